"""Extremes, mean and variance of blocks of samples, and how those of two blocks are put together.

A block of few channels is a tall, narrow array, on which numpy reduces one short row at a time. Folded to
rows of about 256 numbers, many samples of all channels side by side, it runs at the speed of memory.

Legend: C microphones, T samples, W numbers of a folded row.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gerbil_tune.data.checks.findings import BoolArray, FloatArray, IntArray

_FOLDED_WIDTH = 256


@dataclass(frozen=True, slots=True)
class Summary:
    """What is kept of some samples in a row.

    Attributes:
        num_samples: T.
        low_C: float64 (C,), smallest value; NaN where one is NaN.
        high_C: float64 (C,), largest value.
        num_low_C: int64 (C,), how many samples have the smallest value.
        num_high_C: int64 (C,), how many have the largest.
        mean_C: float64 (C,).
        squares_C: float64 (C,), sum of squared differences from the mean.
    """

    num_samples: int
    low_C: FloatArray
    high_C: FloatArray
    num_low_C: IntArray
    num_high_C: IntArray
    mean_C: FloatArray
    squares_C: FloatArray

    @property
    def sd_C(self) -> FloatArray:
        """Standard deviation, float64 (C,)."""
        return np.asarray(np.sqrt(self.squares_C / self.num_samples))

    @property
    def is_finite(self) -> bool:
        """Whether all samples are finite numbers, which shows in the extremes."""
        return bool(np.isfinite(self.low_C).all() and np.isfinite(self.high_C).all())

    @property
    def constant_C(self) -> BoolArray:
        """Channels of one value only, bool (C,)."""
        return np.asarray(self.low_C == self.high_C)


def summarize(audio_TC: npt.NDArray[Any]) -> Summary:
    """Look at samples in a row, in the dtype that they have.

    Args:
        audio_TC: (T, C), integers or floats, at least one sample.
    """
    num_samples, num_channels = audio_TC.shape
    if not audio_TC.dtype.isnative:
        audio_TC = audio_TC.astype(audio_TC.dtype.newbyteorder("="))
    parts = _fold(audio_TC)
    low_C, high_C = (
        _reduce([reduce.reduce(part, axis=0) for part in parts], num_channels, reduce)
        for reduce in (np.minimum, np.maximum)
    )
    sums = [np.add.reduce(part, axis=0, dtype=np.float64) for part in parts]
    mean_C = _reduce(sums, num_channels, np.add) / num_samples
    squares = [_sum_squares(part, mean_C) for part in parts]
    return Summary(
        num_samples,
        low_C.astype(np.float64),
        high_C.astype(np.float64),
        _count(parts, low_C),
        _count(parts, high_C),
        mean_C,
        _reduce(squares, num_channels, np.add),
    )


def merge(first: Summary, second: Summary) -> Summary:
    """Put the summaries of two stretches together (Chan, Golub and LeVeque, 1983)."""
    total = first.num_samples + second.num_samples
    difference_C = second.mean_C - first.mean_C
    low_C = np.minimum(first.low_C, second.low_C)
    high_C = np.maximum(first.high_C, second.high_C)
    weight = first.num_samples * second.num_samples / total
    return Summary(
        total,
        low_C,
        high_C,
        _add_up((first.low_C, first.num_low_C), (second.low_C, second.num_low_C), low_C),
        _add_up((first.high_C, first.num_high_C), (second.high_C, second.num_high_C), high_C),
        first.mean_C + difference_C * (second.num_samples / total),
        first.squares_C + second.squares_C + difference_C**2 * weight,
    )


def _fold(audio_TC: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    """Cut into a part of wide rows and the few samples that are left over; each row is whole samples."""
    num_samples, num_channels = audio_TC.shape
    fold = max(_FOLDED_WIDTH // num_channels, 1)
    folded = num_samples // fold * fold
    parts = []
    if folded:
        parts.append(audio_TC[:folded].reshape(-1, fold * num_channels))
    if folded < num_samples:
        parts.append(audio_TC[folded:].reshape(1, -1))
    return parts


def _reduce(
    parts_W: list[npt.NDArray[Any]], num_channels: int, reduce: np.ufunc
) -> npt.NDArray[Any]:
    """Reduce folded rows to one number a channel."""
    rows = np.concatenate(parts_W).reshape(-1, num_channels)
    return np.asarray(reduce.reduce(rows, axis=0))


def _sum_squares(part: npt.NDArray[Any], mean_C: FloatArray) -> FloatArray:
    centred = part - np.tile(mean_C, part.shape[1] // len(mean_C))
    return np.asarray(np.einsum("tw,tw->w", centred, centred))


def _count(parts: list[npt.NDArray[Any]], values_C: npt.NDArray[Any]) -> IntArray:
    """How many samples of each channel have a value that each of them takes."""
    num_channels = len(values_C)
    hits = [part == np.tile(values_C, part.shape[1] // num_channels) for part in parts]
    # Counting alone is fast, and in most blocks all that is needed.
    if sum(int(np.count_nonzero(hit)) for hit in hits) == num_channels:
        return np.ones(num_channels, np.int64)
    channels = np.concatenate([np.flatnonzero(hit) for hit in hits]) % num_channels
    return np.bincount(channels, minlength=num_channels)


def _add_up(
    first: tuple[FloatArray, IntArray], second: tuple[FloatArray, IntArray], value_C: FloatArray
) -> IntArray:
    """Add counts of the value that became the extreme of both stretches."""
    return sum(
        (np.where(extreme_C == value_C, count_C, 0) for extreme_C, count_C in (first, second)),
        start=np.zeros(len(value_C), np.int64),
    )
