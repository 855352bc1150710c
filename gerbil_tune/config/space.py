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

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from gerbil_tune.config.load import (
    Scalar,
    compose,
    parse_overrides,
    read_tree,
    set_paths,
    validate,
)
from gerbil_tune.config.parameters import (
    AnyScalar,
    BranchParameter,
    Parameter,
    always_numeric,
    branch_combinations,
    in_force,
    num_grid_points,
    parameter_paths,
    walk,
    without_pinned,
)
from gerbil_tune.config.schema import NAME_PATTERN, ExperimentConfig
from gerbil_tune.config.section import ConfigModel
from gerbil_tune.config.study import StudyConfig
from gerbil_tune.errors import ConfigError

LARGEST_GRID = 100_000
_STUDY = "study/"
_EXPLORABLE = ("optimizer/", "lr_schedule/", "augmentation/")


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
            Paths that begin with ``study/`` change the study instead.

    Raises:
        ConfigError: On any mistake, naming file, path, value and what is valid.
    """
    given = parse_overrides(overrides)
    of_study = {key.removeprefix(_STUDY): v for key, v in given.items() if key.startswith(_STUDY)}
    pinned = {key: value for key, value in given.items() if not key.startswith(_STUDY)}
    tree = read_tree(path)
    _set_study(tree, of_study)
    space = validate(SpaceFile, tree, source=str(path))
    base = dict(space.base)
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


def _set_study(tree: dict[str, Any], values: Mapping[str, Any]) -> None:
    """Lay values over the study section; another trial scheduler drops the fields of the old one."""
    study = tree.setdefault("study", {})
    if not isinstance(study, dict):
        return  # validation says so
    kind_path = "trial_scheduler/kind"
    trial_scheduler = study.setdefault("trial_scheduler", {})
    if isinstance(trial_scheduler, dict):
        kind = trial_scheduler.setdefault("kind", StudyConfig().trial_scheduler.kind)
        if values.get(kind_path, kind) != kind:
            trial_scheduler.clear()
    for path, value in values.items():
        *parents, leaf = path.split("/")
        section = study
        for key in parents:
            section = section.setdefault(key, {})
            if not isinstance(section, dict):
                raise ConfigError(
                    f"--set: study/{path} cannot be set, for {key} is no section; valid: "
                    f"study/{', study/'.join(StudyConfig.model_fields)}"
                )
        section[leaf] = value


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
    _check_methods(space, source)


def _check_point(space: SpaceFile, point: Mapping[str, Scalar], where: str) -> None:
    known = set(parameter_paths(space.parameters))
    chosen = {path: parameter for path, parameter, _ in in_force(space.parameters, point)}
    for path, value in point.items():
        if path not in known:
            raise ConfigError(
                f"{where} sets {path}, which is not searched; searched: {', '.join(sorted(known))}"
            )
        if path not in chosen:
            raise ConfigError(
                f"{where} sets {path}, which exists only in a branch that the point does not choose; "
                "let the point set the branch too"
            )
        if not chosen[path].allows(value):
            raise ConfigError(
                f"{where} sets {path} to {value}, which the search cannot propose; "
                f"valid: {chosen[path].valid_values()}"
            )


def _check_methods(space: SpaceFile, source: str) -> None:
    """Refuse a sampler or trial scheduler that has nothing to work on."""
    sampler = space.study.sampler
    if sampler.kind == "cmaes" and not always_numeric(space.parameters):
        raise ConfigError(
            f"{source}: study/sampler/kind cmaes adapts numbers that are searched outside branches, and "
            "there are none; use tpe"
        )
    if sampler.kind == "grid":
        num_points = num_grid_points(space.parameters, sampler.grid_points)
        if num_points > LARGEST_GRID:
            raise ConfigError(
                f"{source}: the grid has {num_points:,} points, and more than {LARGEST_GRID:,} are not "
                "searched; fix parameters with --set, lower study/sampler/grid_points, or use quasi-random"
            )
    if space.study.trial_scheduler.kind == "pbt" and not explorable(space):
        raise ConfigError(
            f"{source}: study/trial_scheduler/kind pbt changes parameters under "
            f"{', '.join(_EXPLORABLE)} while it trains, and none is searched; search one, or use asha"
        )


def explorable(space: SpaceFile) -> list[str]:
    """Paths that may change in the middle of training: the network and what its weights mean stay."""
    return [
        path
        for path, parameter, _ in walk(space.parameters)
        if path.startswith(_EXPLORABLE)
        and not isinstance(parameter, BranchParameter)
        and not path.endswith("/kind")
    ]


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


def default_config(space: SpaceFile, source: str) -> ExperimentConfig:
    """Return the config that the space's base gives when nothing is searched."""
    return compose(space.base, {}, source)
