"""From a space file to Optuna: sample a trial's parameters, define-by-run."""

from collections.abc import Mapping

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from gerbil_tune.config.load import Scalar
from gerbil_tune.config.parameters import (
    BranchParameter,
    FloatParameter,
    IntParameter,
    Parameter,
    in_force,
)
from gerbil_tune.errors import ConfigError


def parameter_name(path: str, branches: tuple[str, ...]) -> str:
    """Optuna's name of a parameter: its config path, then the branches that it lives in.

    Two branches may search the same path over different ranges; Optuna would mix them under one name.
    """
    return "@".join((path, *branches))


def sample(
    trial: optuna.Trial, parameters: Mapping[str, Parameter], branches: tuple[str, ...] = ()
) -> dict[str, Scalar]:
    """Let Optuna choose a value for every parameter in force.

    Args:
        trial: A live trial; a parameter it has already is returned unchanged.
        parameters: As in the space file.
        branches: The branches chosen so far.

    Returns:
        Value by config path.
    """
    values: dict[str, Scalar] = {}
    for path, parameter in parameters.items():
        name = parameter_name(path, branches)
        value = values[path] = _suggest(trial, name, distribution(parameter))
        if isinstance(parameter, BranchParameter):
            values |= sample(trial, parameter.branches[str(value)], (*branches, str(value)))
    return values


def _suggest(trial: optuna.Trial, name: str, drawn_from: BaseDistribution) -> Scalar:
    if isinstance(drawn_from, FloatDistribution):
        return trial.suggest_float(name, drawn_from.low, drawn_from.high, log=drawn_from.log)
    if isinstance(drawn_from, IntDistribution):
        return trial.suggest_int(
            name, drawn_from.low, drawn_from.high, log=drawn_from.log, step=drawn_from.step
        )
    assert isinstance(drawn_from, CategoricalDistribution)
    return trial.suggest_categorical(name, drawn_from.choices)


def distribution(parameter: Parameter) -> BaseDistribution:
    """What ``sample`` lets Optuna draw a parameter from."""
    if isinstance(parameter, FloatParameter):
        return FloatDistribution(parameter.low, parameter.high, log=parameter.log)
    if isinstance(parameter, IntParameter):
        return IntDistribution(
            parameter.low, parameter.highest, log=parameter.log, step=parameter.step
        )
    if isinstance(parameter, BranchParameter):
        return CategoricalDistribution(tuple(parameter.branches))
    return CategoricalDistribution(parameter.choices)


def named_distributions(
    values: Mapping[str, Scalar], parameters: Mapping[str, Parameter]
) -> dict[str, BaseDistribution]:
    """Distribution by Optuna's name of every parameter in force, as ``sample`` would have defined them."""
    return {
        parameter_name(path, branches): distribution(parameter)
        for path, parameter, branches in in_force(parameters, values)
    }


def named_point(
    point: Mapping[str, Scalar],
    parameters: Mapping[str, Parameter],
) -> dict[str, Scalar]:
    """Translate a point's config paths into Optuna's names, along the branches that it chooses.

    Raises:
        ConfigError: If it sets a parameter of a branch that it does not choose.
    """
    named = {
        parameter_name(path, branches): point[path]
        for path, _, branches in in_force(parameters, point)
        if path in point
    }
    if len(named) != len(point):
        used = {name.partition("@")[0] for name in named}
        unused = ", ".join(sorted(set(point) - used))
        raise ConfigError(
            f"points: {unused} exists only in a branch that the point does not choose; "
            "let the point set the branch too"
        )
    return named


def values_by_path(named: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """The inverse of ``named_point``."""
    return {name.partition("@")[0]: value for name, value in named.items()}
