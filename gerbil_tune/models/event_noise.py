"""Random numbers for draws from a density: those of an event do not depend on the events beside it.

Each event reads windows of one table of random numbers, from places that its number and the use decide.
Predictions so come out the same in any batch, by any worker and in any order, and drawing costs a copy.
Windows of two events overlap now and then; as the table is far longer than a window, averages over many
events are as good as with numbers of their own.

Letters: B batch.
"""

import math
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gerbil_tune.mixing import mixed_bits

_TABLE_LENGTH = 1 << 19


class EventNoise:
    """Random numbers of some events; each use takes other ones, the same at each repetition.

    Args:
        numbers_B: (B,) int64, one for each event, such as its place in a file.
        seed: Other numbers for another seed.
    """

    def __init__(self, numbers_B: Tensor, seed: int = 0) -> None:
        self._numbers_B = numbers_B
        self._seed = seed
        self._uses = 0

    @classmethod
    def counted(cls, num_events: int, seed: int = 0) -> "EventNoise":
        """Of events that are numbered from 0."""
        return cls(torch.arange(num_events), seed)

    def __len__(self) -> int:
        return len(self._numbers_B)

    def rows(self, rows: slice) -> "EventNoise":
        """Of some of the events, the numbers that this would give them from its first use on."""
        return EventNoise(self._numbers_B[rows], self._seed)

    def normal(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Standard normal numbers, (B, *shape), of the type and on the device of ``like``."""
        return self._windows(_normal_table(), shape, like)

    def uniform(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Numbers from 0 to 1, without 1, (B, *shape), of the type and on the device of ``like``."""
        return self._windows(_uniform_table(), shape, like)

    def _windows(self, table: Tensor, shape: tuple[int, ...], like: Tensor) -> Tensor:
        count = math.prod(shape)
        if count > _TABLE_LENGTH // 2:
            raise ValueError(f"{count} random numbers an event are more than half of the table")
        starts_B = self._starts(_TABLE_LENGTH - count + 1)
        self._uses += 1
        windows = table.unfold(0, count, 1)[starts_B]
        # What rounds to 1 in a coarser type would be outside of all that adds up to 1.
        return windows.to(like.device, like.dtype).view(len(self), *shape)

    def _starts(self, num_places: int) -> Tensor:
        """Where each event's window begins, by its number and the use."""
        bits_B = mixed_bits(self._numbers_B.cpu().numpy(), self._seed, self._uses)
        return torch.from_numpy((bits_B % np.uint64(num_places)).astype(np.int64))


@lru_cache(maxsize=1)
def _normal_table() -> Tensor:
    return _table(np.random.default_rng(1).standard_normal(_TABLE_LENGTH))


@lru_cache(maxsize=1)
def _uniform_table() -> Tensor:
    return _table(np.random.default_rng(2).random(_TABLE_LENGTH))


def _table(numbers: NDArray[np.float64]) -> Tensor:
    with torch.inference_mode(False):
        return torch.from_numpy(numbers)
