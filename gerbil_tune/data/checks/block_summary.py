"""Extremes, mean, variance and flat tops of blocks of samples, and how those of two blocks are put together.

A block of few channels is a tall, narrow array, on which numpy reduces one short row at a time. Folded to
rows of about 256 numbers, many samples of all channels side by side, it runs at the speed of memory.

Legend: C microphones, T samples, W numbers of a folded row.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gerbil_tune.data.checks.findings import FloatArray

FLAT_SAMPLES = 3
"""Samples in a row at the extreme of a channel from which on they are no chance."""
_FOLDED_WIDTH = 256
_STEEP_STEPS = 4.0
"""A crest of a slow wave, rounded to steps, is left by less than 3 steps; what is cut off, by more."""


@dataclass(frozen=True, slots=True)
class FlatTop:
    """A channel of an event that stays at its extreme for 3 or more samples in a row.

    Attributes:
        channel: Counted from 0.
        sign: 1 for the largest value, -1 for the smallest.
        value: The extreme.
        runs: How often it stays there for 3 samples or more.
        samples: How many samples that are.
        is_steep: Whether a run is entered or left by more than 4 of the smallest steps of the channel.
        event: Place of the event in its set.
    """

    channel: int
    sign: int
    value: float
    runs: int
    samples: int
    is_steep: bool
    event: int = -1

    def of_event(self, event: int) -> "FlatTop":
        """The same, with the event's place."""
        return replace(self, event=event)


@dataclass(frozen=True, slots=True)
class Summary:
    """What is kept of some samples in a row.

    Attributes:
        num_samples: T.
        low_C: float64 (C,), smallest value; NaN where one is NaN.
        high_C: float64 (C,), largest value.
        mean_C: float64 (C,).
        squares_C: float64 (C,), sum of squared differences from the mean.
        flat_tops: Runs at the extremes of these samples.
        num_bytes: Bytes that were read.
    """

    num_samples: int
    low_C: FloatArray
    high_C: FloatArray
    mean_C: FloatArray
    squares_C: FloatArray
    flat_tops: tuple[FlatTop, ...]
    num_bytes: int

    @property
    def sd_C(self) -> FloatArray:
        """Standard deviation, float64 (C,)."""
        return np.asarray(np.sqrt(self.squares_C / self.num_samples))


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
        mean_C,
        _reduce(squares, num_channels, np.add),
        (*_find_flat(audio_TC, parts, high_C, 1), *_find_flat(audio_TC, parts, low_C, -1)),
        audio_TC.nbytes,
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
        first.mean_C + difference_C * (second.num_samples / total),
        first.squares_C + second.squares_C + difference_C**2 * weight,
        _merge_flat((*first.flat_tops, *second.flat_tops), low_C, high_C),
        first.num_bytes + second.num_bytes,
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


def _find_flat(
    audio_TC: npt.NDArray[Any],
    parts: list[npt.NDArray[Any]],
    extreme_C: npt.NDArray[Any],
    sign: int,
) -> list[FlatTop]:
    num_channels = len(extreme_C)
    at_extreme = sum(
        int(np.count_nonzero(part == np.tile(extreme_C, part.shape[1] // num_channels)))
        for part in parts
    )
    # Each channel is at its extreme once: without two samples more, nothing can be flat.
    if at_extreme < num_channels + FLAT_SAMPLES - 1:
        return []
    flat_TC = audio_TC == extreme_C
    runs_TC = flat_TC[2:] & flat_TC[1:-1] & flat_TC[:-2]
    return [
        _describe_flat(audio_TC[:, channel], flat_TC[:, channel], channel, sign)
        for channel in np.flatnonzero(runs_TC.any(axis=0)).tolist()
        if not flat_TC[:, channel].all()
    ]


def _describe_flat(
    audio_T: npt.NDArray[Any], flat_T: npt.NDArray[np.bool_], channel: int, sign: int
) -> FlatTop:
    edges = np.flatnonzero(np.diff(flat_T, prepend=False, append=False))
    starts, stops = edges[::2], edges[1::2]
    is_long = stops - starts >= FLAT_SAMPLES
    starts, stops = starts[is_long], stops[is_long]
    values = audio_T.astype(np.float64)
    extreme = float(values[starts[0]])
    neighbours = np.concatenate([starts[starts > 0] - 1, stops[stops < len(values)]])
    steps = np.abs(np.diff(values))
    smallest = float(steps[steps > 0].min())
    is_steep = bool(np.any(np.abs(values[neighbours] - extreme) > _STEEP_STEPS * smallest))
    samples = int((stops - starts).sum())
    return FlatTop(channel, sign, extreme, len(starts), samples, is_steep)


def _merge_flat(
    tops: tuple[FlatTop, ...], low_C: FloatArray, high_C: FloatArray
) -> tuple[FlatTop, ...]:
    """Keep what is still at the extreme, and add up what concerns the same one."""
    merged: dict[tuple[int, int], FlatTop] = {}
    for top in tops:
        if top.value != (high_C if top.sign == 1 else low_C)[top.channel]:
            continue
        other = merged.get((top.channel, top.sign))
        if other is not None:
            top = replace(
                top,
                runs=top.runs + other.runs,
                samples=top.samples + other.samples,
                is_steep=top.is_steep or other.is_steep,
            )
        merged[top.channel, top.sign] = top
    return tuple(merged.values())
