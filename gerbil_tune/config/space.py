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
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StrictBool, StrictInt, StrictStr, model_validator

from gerbil_tune.config.load import Scalar, apply_overrides, compose, read_tree, validate
from gerbil_tune.config.schema import ConfigModel, ExperimentConfig, PositiveFloat, PositiveInt
from gerbil_tune.errors import ConfigError

Metric = Literal["val_error_median_mm", "val_error_mean_mm", "val_error_p90_mm", "val_nll"]


class FloatParameter(ConfigModel):
    """A real number from low to high, both included."""

    type: Literal["float"]
    low: float
    high: float
    log: StrictBool = False

    @model_validator(mode="after")
    def _range_ascends(self) -> "FloatParameter":
        check_range(self.low, self.high, self.log)
        return self

    def ends(self) -> tuple[Scalar, ...]:
        """Lowest and highest value."""
        return self.low, self.high


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

    def ends(self) -> tuple[Scalar, ...]:
        """Lowest and highest value."""
        return self.low, self.high - (self.high - self.low) % self.step


class CategoricalParameter(ConfigModel):
    """One of several scalars."""

    type: Literal["categorical"]
    choices: tuple[StrictBool | StrictInt | float | StrictStr | None, ...] = Field(min_length=1)

    def ends(self) -> tuple[Scalar, ...]:
        """All choices."""
        return self.choices


class BranchParameter(ConfigModel):
    """One of several names, each with parameters that exist only under it."""

    type: Literal["branch"]
    branches: dict[str, dict[str, "Parameter"]] = Field(min_length=1)


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
    seed: StrictInt = 0
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

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    study: StudyConfig = StudyConfig()
    base: dict[str, Any] = Field(default_factory=dict)
    parameters: dict[str, Parameter] = Field(min_length=1)
    points: tuple[dict[str, Scalar], ...] = ()


def load_space(path: Path, overrides: tuple[str, ...] = ()) -> SpaceFile:
    """Read a space file and prove that everything it can propose is a valid config.

    Args:
        path: The YAML file.
        overrides: ``path/to/key=value`` strings laid over ``base``.

    Raises:
        ConfigError: On any mistake, naming file, path, value and what is valid.
    """
    tree = read_tree(path)
    space = validate(SpaceFile, tree, source=str(path))
    base = dict(space.base)
    apply_overrides(base, overrides)
    space = space.model_copy(update={"base": base})
    check_space(space, source=str(path))
    return space


def check_space(space: SpaceFile, source: str) -> None:
    """Validate every boundary config, and that points set only what is searched.

    Raises:
        ConfigError: Naming the parameter whose value no config accepts.
    """
    for _ in boundary_configs(space, f"{source}: parameters"):
        pass
    known = set(parameter_paths(space.parameters))
    for number, point in enumerate(space.points):
        for path in point:
            if path not in known:
                raise ConfigError(
                    f"{source}: points/{number} sets {path}, which is not searched; "
                    f"searched: {', '.join(sorted(known))}"
                )


def boundary_configs(space: SpaceFile, source: str) -> Iterator[ExperimentConfig]:
    """Yield the configs at both ends of every parameter, in every combination of branches.

    Raises:
        ConfigError: Naming the parameter whose value no config accepts.
    """
    for parameters in branch_combinations(space.parameters):
        lowest = {path: ends[0] for path, ends in parameters.items()}
        yield compose(space.base, lowest, source)
        for path, ends in parameters.items():
            for value in ends[1:]:
                yield compose(space.base, {**lowest, path: value}, source)


def branch_combinations(
    parameters: Mapping[str, Parameter],
) -> Iterator[dict[str, tuple[Scalar, ...]]]:
    """Yield, for each combination of branches, the values at the ends of each parameter in force."""
    plain = {
        path: parameter.ends()
        for path, parameter in parameters.items()
        if not isinstance(parameter, BranchParameter)
    }
    alternatives = [
        [
            {path: (branch,), **inner}
            for branch, nested in parameter.branches.items()
            for inner in branch_combinations(nested)
        ]
        for path, parameter in parameters.items()
        if isinstance(parameter, BranchParameter)
    ]
    for combination in itertools.product(*alternatives):
        merged = dict(plain)
        for part in combination:
            merged.update(part)
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
