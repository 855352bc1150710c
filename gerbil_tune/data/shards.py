"""Which events each worker reads in each step: index arithmetic, without any data."""

import numpy as np
import numpy.typing as npt

from gerbil_tune.errors import ConfigError, DatasetError

_ORDER_STREAM = 0
_CROP_STREAM = 1


def steps_per_epoch(num_events: int, *, global_batch_size: int, world_size: int) -> tuple[int, int]:
    """Steps of an epoch, and the events of a step over all workers.

    A step has ``global_batch_size`` events, or fewer where there are fewer in all. Events left over at the
    end of an epoch's order are not used in that epoch.

    Raises:
        ConfigError: If the events of a step cannot be shared out equally.
        DatasetError: If there are fewer events than workers.
    """
    if global_batch_size % world_size:
        raise ConfigError(
            f"training/global_batch_size is {global_batch_size}, but must be a multiple of the "
            f"{world_size} workers; use {global_batch_size // world_size * world_size or world_size}"
        )
    if num_events < world_size:
        raise DatasetError(
            f"there are {num_events} training events for {world_size} workers, but each worker needs "
            "one a step; use fewer workers or more data"
        )
    if num_events < global_batch_size:
        global_batch_size = num_events // world_size * world_size
    return num_events // global_batch_size, global_batch_size


def training_schedule(
    num_events: int,
    *,
    epoch: int,
    seed: int,
    global_batch_size: int,
    world_size: int,
    rank: int,
) -> npt.NDArray[np.int64]:
    """Events of one worker in one epoch.

    All workers together follow one permutation for each seed and epoch, however many they are: step s has
    its entries [s*G, (s+1)*G), and rank r of W the part [r*G/W, (r+1)*G/W) of them.

    Args:
        num_events: Events of the training set.
        epoch: From 0.
        seed: Any integer.
        global_batch_size: G, a multiple of ``world_size``.
        world_size: W, the number of workers.
        rank: 0 <= rank < world_size.

    Returns:
        int64 (steps, G/W), of the same shape on all ranks.

    Raises:
        ConfigError: If G is no multiple of W.
        DatasetError: If there are fewer events than workers.
    """
    _check_rank(rank, world_size)
    steps, in_step = steps_per_epoch(
        num_events, global_batch_size=global_batch_size, world_size=world_size
    )
    order = _generator(seed, epoch, _ORDER_STREAM).permutation(num_events)
    shares = order[: steps * in_step].reshape(steps, world_size, in_step // world_size)
    return np.ascontiguousarray(shares[:, rank])


def crop_fractions(num_events: int, *, epoch: int, seed: int) -> npt.NDArray[np.float64]:
    """Where each event's crop begins in this epoch: (num_events,), 0 earliest, below 1 latest.

    One draw for all events, so that it depends on nothing but seed, epoch and event.
    """
    return _generator(seed, epoch, _CROP_STREAM).random(num_events)


def evaluation_shard(num_events: int, *, world_size: int, rank: int) -> npt.NDArray[np.int64]:
    """Places that one worker evaluates, int64: every W-th, so that each place has exactly one worker."""
    _check_rank(rank, world_size)
    return np.arange(rank, num_events, world_size, dtype=np.int64)


def _check_rank(rank: int, world_size: int) -> None:
    if not 0 <= rank < world_size:
        raise ConfigError(
            f"rank is {rank}, but must be at least 0 and below world_size {world_size}"
        )


def _generator(seed: int, epoch: int, stream: int) -> np.random.Generator:
    # A seed sequence takes no negative numbers, a config's seed may be one.
    return np.random.default_rng((seed % 2**64, epoch, stream))
