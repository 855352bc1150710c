"""Population based training: how a copy of a good member is changed (Jaderberg et al. 2017).

Only what may change in the middle of training is touched: optimizer, schedule of the learning rate and
augmentation. The network stays what its weights were trained in.
"""

import random
from collections.abc import Mapping, Sequence

from gerbil_tune.config.load import Scalar
from gerbil_tune.config.parameters import (
    BranchParameter,
    CategoricalParameter,
    FloatParameter,
    IntParameter,
    in_force,
)
from gerbil_tune.config.space import SpaceFile, explorable
from gerbil_tune.config.study import PopulationConfig


def explore(
    values: Mapping[str, Scalar], space: SpaceFile, config: PopulationConfig, seed: int
) -> dict[str, Scalar]:
    """Perturb or draw anew what may change in the middle of training.

    Args:
        values: Value by path of every parameter in force, of the member that is copied.
        space: What is searched.
        config: How far.
        seed: Of the draws.

    Returns:
        All values by path; those of the network and of branches unchanged.
    """
    draws = random.Random(seed)
    changing = set(explorable(space))
    explored = dict(values)
    for path, parameter, _ in in_force(space.parameters, values):
        if path not in changing or isinstance(parameter, BranchParameter):
            continue
        if draws.random() < config.resample_probability:
            explored[path] = parameter.at(draws.random())
        elif isinstance(parameter, CategoricalParameter):
            explored[path] = _neighbour(parameter.choices, values[path], draws)
        else:
            explored[path] = _perturbed(parameter, values[path], config.factor, draws)
    return explored


def _neighbour(choices: Sequence[Scalar], value: Scalar, draws: random.Random) -> Scalar:
    index = choices.index(value)
    neighbours = [choices[i] for i in (index - 1, index + 1) if 0 <= i < len(choices)]
    return draws.choice(neighbours) if neighbours else value


def _perturbed(
    parameter: FloatParameter | IntParameter, value: Scalar, factor: float, draws: random.Random
) -> float:
    """Multiply or divide; a whole number moves by one step at least."""
    assert isinstance(value, int | float)
    upwards = draws.random() < 0.5
    changed = value * factor if upwards else value / factor
    if isinstance(parameter, IntParameter):
        step = parameter.step if upwards else -parameter.step
        changed = max(changed, value + step) if upwards else min(changed, value + step)
    return parameter.nearest(changed)
