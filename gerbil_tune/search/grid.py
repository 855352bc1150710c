"""All combinations of a grid over the space, each by its number; branches are expanded."""

import random
from collections.abc import Mapping
from functools import lru_cache

from gerbil_tune.config.load import Scalar
from gerbil_tune.config.parameters import BranchParameter, Parameter, num_grid_points
from gerbil_tune.config.space import SpaceFile


def num_points(space: SpaceFile) -> int:
    """Points of the space's grid; ``load_space`` has refused more than 100,000."""
    return num_grid_points(space.parameters, space.study.sampler.grid_points)


def grid_point(space: SpaceFile, index: int) -> dict[str, Scalar]:
    """Values by path of the grid point that comes at some place, from 0 up to ``num_points``.

    The order is shuffled by the sampler's seed: a study of fewer trials than points sees all of the space.
    """
    sampler = space.study.sampler
    order = _shuffled(num_points(space), sampler.seed)
    return decode(space.parameters, order[index], sampler.grid_points)


def decode(parameters: Mapping[str, Parameter], number: int, num_values: int) -> dict[str, Scalar]:
    """Read a number as one digit a parameter; the digits of a branch are the points of all its choices."""
    values: dict[str, Scalar] = {}
    for path, parameter in parameters.items():
        base = num_grid_points({path: parameter}, num_values)
        number, digit = divmod(number, base)
        if not isinstance(parameter, BranchParameter):
            values[path] = parameter.grid(num_values)[digit]
            continue
        for branch, nested in parameter.branches.items():
            size = num_grid_points(nested, num_values)
            if digit < size:
                values[path] = branch
                values |= decode(nested, digit, num_values)
                break
            digit -= size
    return values


@lru_cache(maxsize=1)
def _shuffled(count: int, seed: int) -> tuple[int, ...]:
    order = list(range(count))
    random.Random(seed).shuffle(order)
    return tuple(order)
