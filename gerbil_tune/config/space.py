"""The search-space file: which leaves of the experiment config are searched, and how.

name: quick
study:   {trials: 12, metric: val_error_median_mm, sampler: {kind: tpe, seed: 0}, ...}
base:    {training: {epochs: 12}}             # fixed values, laid over the defaults
parameters:
  optimizer/learning_rate: {type: float, low: 1.0e-4, high: 1.0e-2, log: true}
  model/kind:                                 # a branch: its choices bring parameters of their own
    type: branch
    branches:
      gcc-net:  {model/lags/hidden: {type: int, low: 32, high: 256, log: true}}
      densenet: {model/growth: {type: int, low: 8, high: 24}}
points:                                       # known-good values, tried first; the rest is sampled
  - {optimizer/learning_rate: 1.0e-3}
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, StrictBool, StrictFloat, StrictInt, model_validator

from gerbil_tune.config.load import (
    Scalar,
    compose,
    parse_overrides,
    read_tree,
    set_paths,
    validate,
)
from gerbil_tune.config.schema import NAME_PATTERN, ExperimentConfig
from gerbil_tune.config.section import ConfigModel, PositiveFloat, PositiveInt, Seed
from gerbil_tune.errors import ConfigError


def check_scalar(value: Any) -> Scalar:
    """Return a single finite value unchanged, else raise ValueError."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"a number must be finite, but is {value}")
    if value is not None and not isinstance(value, bool | int | float | str):
        raise ValueError(f"must be a number, a string, true, false or null, but is {value}")
    return value


AnyScalar = Annotated[Scalar, PlainValidator(check_scalar)]
Metric = Literal["val_error_median_mm", "val_error_mean_mm", "val_error_p90_mm", "val_nll"]


class FloatParameter(ConfigModel):
    """A real number from low to high, both included."""

    type: Literal["float"]
    low: StrictFloat
    high: StrictFloat
    log: StrictBool = False

    @model_validator(mode="after")
    def _range_ascends(self) -> "FloatParameter":
        check_range(self.low, self.high, self.log)
        return self

    def probes(self) -> tuple[Scalar, ...]:
        """Values that prove the range valid: its ends."""
        return self.low, self.high

    def allows(self, value: Scalar) -> bool:
        """Whether it can propose a value."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return self.low <= value <= self.high

    def valid_values(self) -> str:
        """What it can propose, in words."""
        return f"{self.low:g} to {self.high:g}"


class IntParameter(ConfigModel):
    """A whole number from low to high, both included."""

    type: Literal["int"]
    low: StrictInt
    high: StrictInt
    log: StrictBool = False
    step: PositiveInt = 1

    @model_validator(mode="after")
    def _range_ascends(self) -> "IntParameter":
        check_range(self.low, self.high, self.log)
        if self.log and self.step != 1:
            raise ValueError(f"step must be 1 where log is true, but is {self.step}")
        return self

    def probes(self) -> tuple[Scalar, ...]:
        """Values that prove the range valid: its ends, and the second for rules such as being odd."""
        highest = self.high - (self.high - self.low) % self.step
        return tuple(sorted({self.low, min(self.low + self.step, highest), highest}))

    def allows(self, value: Scalar) -> bool:
        """Whether it can propose a value."""
        if isinstance(value, bool) or not isinstance(value, int):
            return False
        return value in range(self.low, self.high + 1, self.step)

    def valid_values(self) -> str:
        """What it can propose, in words."""
        steps = f" in steps of {self.step}" if self.step > 1 else ""
        return f"whole numbers from {self.low} to {self.high}{steps}"


class CategoricalParameter(ConfigModel):
    """One of several scalars."""

    type: Literal["categorical"]
    choices: tuple[AnyScalar, ...] = Field(min_length=1)

    def probes(self) -> tuple[Scalar, ...]:
        """Values that prove the range valid: all choices."""
        return self.choices

    def allows(self, value: Scalar) -> bool:
        """Whether it can propose a value."""
        return value in self.choices

    def valid_values(self) -> str:
        """What it can propose, in words."""
        return ", ".join(str(choice) for choice in self.choices)


class BranchParameter(ConfigModel):
    """One of several names, each with parameters that exist only under it."""

    type: Literal["branch"]
    branches: dict[str, dict[str, "Parameter"]] = Field(min_length=1)

    def allows(self, value: Scalar) -> bool:
        """Whether it can propose a value."""
        return value in self.branches

    def valid_values(self) -> str:
        """What it can propose, in words."""
        return ", ".join(self.branches)


Parameter = Annotated[
    FloatParameter | IntParameter | CategoricalParameter | BranchParameter,
    Field(discriminator="type"),
]


def check_range(low: float, high: float, log: bool) -> None:
    """Raise ValueError unless low < high, and low > 0 where log."""
    if low >= high:
        raise ValueError(f"low must be below high, but low is {low} and high is {high}")
    if log and low <= 0:
        raise ValueError(f"low must be above 0 where log is true, but is {low}")


class SamplerConfig(ConfigModel):
    """Who proposes the next configuration."""

    kind: Literal["tpe", "random"] = "tpe"
    seed: Seed = 0
    startup_trials: PositiveInt = Field(8, description="Random trials before TPE models anything.")


class TrialSchedulerConfig(ConfigModel):
    """Who stops a trial early."""

    kind: Literal["asha", "median", "none"] = "asha"
    grace_epochs: PositiveInt = Field(3, description="No trial is stopped before this many epochs.")
    reduction_factor: Annotated[StrictInt, Field(ge=2)] = Field(
        3, description="ASHA keeps the best 1/n at each rung."
    )


class StudyConfig(ConfigModel):
    """The study's goal, budget and methods."""

    metric: Metric = "val_error_median_mm"
    trials: PositiveInt = 50
    time_budget_s: PositiveFloat | None = None
    refit_epochs: PositiveInt | None = Field(
        None, description="Epochs of the champion's final training; default: as searched."
    )
    sampler: SamplerConfig = SamplerConfig()
    trial_scheduler: TrialSchedulerConfig = TrialSchedulerConfig()


class SpaceFile(ConfigModel):
    """A search space, whole."""

    name: str = Field(pattern=NAME_PATTERN)
    study: StudyConfig = StudyConfig()
    base: dict[str, Any] = Field(default_factory=dict)
    parameters: dict[str, Parameter] = Field(min_length=1)
    points: tuple[dict[str, AnyScalar], ...] = ()


def load_space(path: Path, overrides: tuple[str, ...] = ()) -> SpaceFile:
    """Read a space file and prove that everything it can propose is a valid config.

    Args:
        path: The YAML file.
        overrides: ``path/to/key=value`` strings laid over ``base``; a parameter so set is searched no more.

    Raises:
        ConfigError: On any mistake, naming file, path, value and what is valid.
    """
    tree = read_tree(path)
    space = validate(SpaceFile, tree, source=str(path))
    base = dict(space.base)
    pinned = parse_overrides(overrides)
    set_paths(base, pinned, "--set")
    parameters = without_pinned(space.parameters, pinned)
    if not parameters:
        raise ConfigError(f"{path}: --set fixes every parameter, so nothing is left to search")
    points = [{k: v for k, v in point.items() if k not in pinned} for point in space.points]
    space = space.model_copy(
        update={"base": base, "parameters": parameters, "points": tuple(points)}
    )
    check_space(space, source=str(path))
    return space


def without_pinned(
    parameters: Mapping[str, Parameter], pinned: Mapping[str, Any]
) -> dict[str, Parameter]:
    """Parameters that are still searched when some paths have fixed values.

    Of a branch whose choice is fixed, the parameters of that choice remain.
    """
    remaining: dict[str, Parameter] = {}
    for path, parameter in parameters.items():
        if isinstance(parameter, BranchParameter):
            branches = {
                name: without_pinned(nested, pinned) for name, nested in parameter.branches.items()
            }
            if path in pinned:
                remaining |= branches.get(str(pinned[path]), {})
            else:
                remaining[path] = parameter.model_copy(update={"branches": branches})
        elif path not in pinned:
            remaining[path] = parameter
    return remaining


def check_space(space: SpaceFile, source: str) -> None:
    """Validate the base, the configs at the ends of every parameter, and the points.

    Raises:
        ConfigError: Naming the value that no config accepts, or the point that nothing proposes.
    """
    compose(space.base, {}, f"{source}: base")
    for _ in boundary_configs(space, f"{source}: parameters"):
        pass
    for number, point in enumerate(space.points):
        _check_point(space, point, f"{source}: points/{number}")


def _check_point(space: SpaceFile, point: Mapping[str, Scalar], where: str) -> None:
    in_force = dict(_parameters_in_force(space.parameters, point))
    known = set(parameter_paths(space.parameters))
    for path, value in point.items():
        if path not in known:
            raise ConfigError(
                f"{where} sets {path}, which is not searched; searched: {', '.join(sorted(known))}"
            )
        if path not in in_force:
            raise ConfigError(
                f"{where} sets {path}, which exists only in a branch that the point does not choose; "
                "let the point set the branch too"
            )
        if not in_force[path].allows(value):
            raise ConfigError(
                f"{where} sets {path} to {value}, which the search cannot propose; "
                f"valid: {in_force[path].valid_values()}"
            )


def _parameters_in_force(
    parameters: Mapping[str, Parameter], point: Mapping[str, Scalar]
) -> Iterator[tuple[str, Parameter]]:
    """Yield the parameters outside branches, and those inside the branches that a point chooses."""
    for path, parameter in parameters.items():
        yield path, parameter
        if isinstance(parameter, BranchParameter):
            nested = parameter.branches.get(str(point.get(path)), {})
            yield from _parameters_in_force(nested, point)


def boundary_configs(space: SpaceFile, source: str) -> Iterator[ExperimentConfig]:
    """Yield the configs at the ends of every parameter, in every combination of branches.

    Raises:
        ConfigError: Naming the parameter whose value no config accepts.
    """
    for parameters in branch_combinations(space.parameters, source):
        lowest = {path: probes[0] for path, probes in parameters.items()}
        yield compose(space.base, lowest, source)
        for path, probes in parameters.items():
            for value in probes[1:]:
                yield compose(space.base, {**lowest, path: value}, source)


def branch_combinations(
    parameters: Mapping[str, Parameter], source: str
) -> Iterator[dict[str, tuple[Scalar, ...]]]:
    """Yield, for each combination of branches, the probes of each parameter in force.

    Raises:
        ConfigError: If two parameters of one combination set the same path.
    """
    plain = {
        path: parameter.probes()
        for path, parameter in parameters.items()
        if not isinstance(parameter, BranchParameter)
    }
    alternatives = [
        [
            (path, branch, inner)
            for branch, nested in parameter.branches.items()
            for inner in branch_combinations(nested, source)
        ]
        for path, parameter in parameters.items()
        if isinstance(parameter, BranchParameter)
    ]
    for combination in itertools.product(*alternatives):
        merged = {**plain, **{path: (branch,) for path, branch, _ in combination}}
        for path, branch, inner in combination:
            twice = sorted(merged.keys() & inner.keys())
            if twice:
                raise ConfigError(
                    f"{source}: {twice[0]} is searched in the branch {branch} of {path} and outside it; "
                    "search it in one place"
                )
            merged.update(inner)
        yield merged


def parameter_paths(parameters: Mapping[str, Parameter]) -> Iterator[str]:
    """Yield the config path of every parameter, those inside branches too."""
    for path, parameter in parameters.items():
        yield path
        if isinstance(parameter, BranchParameter):
            for nested in parameter.branches.values():
                yield from parameter_paths(nested)


def default_config(space: SpaceFile, source: str) -> ExperimentConfig:
    """Return the config that the space's base gives when nothing is searched."""
    return compose(space.base, {}, source)
