"""The memory that the largest configuration of a space takes."""

from collections.abc import Callable, Iterator, Sequence

from gerbil_tune.config.load import Scalar, compose
from gerbil_tune.config.parameters import branch_combinations
from gerbil_tune.config.space import SpaceFile
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.cost import model_cost

Probes = dict[str, Sequence[Scalar]]
Values = dict[str, Scalar]

_OPTIMIZER = "optimizer/"
_NO_MATTER = ("augmentation/", "loss/", "lr_schedule/", "scaling/")
"""Sections that change no tensor's shape."""
_FAINT = 0.9
"""A parameter of whose probes the smallest takes more than this part of the largest is asked again."""


def largest_training_bytes(
    space: SpaceFile, setup: RecordingSetup, num_workers: int, source: str
) -> float:
    """Estimate the memory of one worker of the largest configuration that is trained.

    Parameters multiply each other's memory: channels with crop length with batch. So for each combination of
    branches one configuration is grown, parameter by parameter, to the end of each range that takes most.

    Args:
        space: What is searched; its ``max_memory_gb`` caps the result, for more is not trained.
        setup: The recording site.
        num_workers: Workers that share a batch.
        source: What to call the space in an error.

    Returns:
        Bytes, as ``models.cost`` estimates them.

    Raises:
        ConfigError: If parameters are valid one by one but not together, naming the value.
    """

    def training_bytes(values: Values) -> int:
        config = compose(space.base, values, f"{source}: the largest configuration")
        return model_cost(config, setup, num_workers).training_bytes

    needed = 0.0
    for probes, optimizers in _distinct(branch_combinations(space.parameters, source)):
        grown = _grown(probes, optimizers[0], training_bytes)
        needed = max(needed, *(training_bytes({**grown, **other}) for other in optimizers))
    limit_gb = space.study.constraints.max_memory_gb
    return needed if limit_gb is None else min(needed, limit_gb * 1e9)


def _grown(probes: Probes, fixed: Values, training_bytes: Callable[[Values], int]) -> Values:
    """The probe of each parameter that takes most beside the others."""
    values = {path: ends[0] for path, ends in probes.items()}
    asked = [path for path, ends in probes.items() if len(ends) > 1]
    largest, before = 1, 0
    while largest > before:
        before, faint = largest, []
        for path in asked:
            sizes = [training_bytes({**values, path: end, **fixed}) for end in probes[path]]
            largest = max(sizes)
            values[path] = probes[path][sizes.index(largest)]
            if min(sizes) > _FAINT * largest:
                faint.append(path)
        # What weighed little while the others were at their lowest may weigh more now, or the other way.
        asked = faint
    return values


def _distinct(
    combinations: Iterator[dict[str, tuple[Scalar, ...]]],
) -> Iterator[tuple[Probes, list[Values]]]:
    """Yield combinations of branches that differ in shapes, each with the optimizers that it may have.

    An optimizer adds to a network's memory and has no part in its growth. What has no bearing on memory keeps
    its lowest values, since a branch's parameters are valid only beside its choice.
    """
    found: dict[str, tuple[Probes, dict[Scalar, Values]]] = {}
    for combination in combinations:
        shapes = {path: ends for path, ends in combination.items() if _shapes(path)}
        lowest = {path: ends[:1] for path, ends in combination.items() if not _shapes(path)}
        optimizer = {path: e[0] for path, e in lowest.items() if path.startswith(_OPTIMIZER)}
        beside = {path: e for path, e in lowest.items() if path not in optimizer}
        _, optimizers = found.setdefault(repr(shapes), ({**beside, **shapes}, {}))
        optimizers.setdefault(optimizer.get(f"{_OPTIMIZER}kind"), optimizer)
    for probes, optimizers in found.values():
        yield probes, list(optimizers.values())


def _shapes(path: str) -> bool:
    return not path.startswith((_OPTIMIZER, *_NO_MATTER))
