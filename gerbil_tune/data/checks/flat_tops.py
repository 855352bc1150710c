"""Where a channel of an event stays at its extreme, or comes back to it, as no sound does.

A signal that nothing cuts off takes its largest value once, or a few times where it is coarse. Two marks tell
a flat top from a crest:

- 3 or more samples in a row are at the extreme. The crest of a slow wave, rounded to steps, is like that too,
  but is left by 4 steps at most; a flat top is left by more.
- The extreme is taken far more often than any other large value. Calls of 20 to 50 kHz at 125 kHz are cut off
  for one or two samples a period, so that no 3 are in a row. The crest of a rounded sine is taken up to 2.4
  times as often as the value below it, and in a tone of a whole number of samples a period all values come
  back alike.

Legend: C microphones, T samples.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gerbil_tune.data.checks.block_summary import Summary
from gerbil_tune.data.checks.findings import FloatArray, IntArray

FLAT_SAMPLES = 3
"""Samples at the extreme of a channel from which on they are no chance, if they are in a row."""
FEWEST_STEPS = 16
"""Sound that swings over fewer of its smallest steps holds no call, and is not cut off."""
_STEEP_STEPS = 4.0
_FEWEST_VISITS = 5
"""Steep ones, from which on coming back is no chance."""
_PILE_UP = ((0.8, 4.0), (0.5, 2.0))
"""Beyond this part of the extreme, no other value may be taken more than once for so many times that it is.

The first rules out crests that are rounded, the second tones of few samples a period.
"""


@dataclass(frozen=True, slots=True)
class FlatTop:
    """A channel of an event that stays at its extreme for 3 or more samples in a row, or comes back to it.

    Attributes:
        channel: Counted from 0.
        sign: 1 for the largest value, -1 for the smallest.
        value: The extreme.
        samples: How many samples have it.
        runs: How often it stays there for 3 samples or more.
        is_steep: Whether such a run is entered or left by more than 4 of the smallest steps of the channel.
        comes_back: Whether it is taken far more often than any other large value, in 5 steep visits or more.
        event: Place of the event in its set.
    """

    channel: int
    sign: int
    value: float
    samples: int
    runs: int
    is_steep: bool
    comes_back: bool
    event: int = -1

    def of_event(self, event: int) -> "FlatTop":
        """The same, with the event's place."""
        return replace(self, event=event)


def find_flat_tops(blocks: Sequence[npt.NDArray[Any]], summary: Summary) -> list[FlatTop]:
    """Look again at the few channels that have their extreme 3 times or more.

    Args:
        blocks: (T, C) each, all samples of one event; they are read only where there is anything to look at.
        summary: Of the same samples. Where they are not all finite, nothing is found.
    """
    if not summary.is_finite:
        return []
    looks = [
        _Look.at(summary, channel, sign)
        for sign, count_C in ((1, summary.num_high_C), (-1, summary.num_low_C))
        for channel in np.flatnonzero((count_C >= FLAT_SAMPLES) & ~summary.constant_C).tolist()
    ]
    for block_TC in blocks if looks else ():
        for look in looks:
            look.count(block_TC[:, look.channel])
    looks = [look for look in looks if look.runs or look.visits >= _FEWEST_VISITS]
    for block_TC in blocks if looks else ():
        for look in looks:
            look.compare(block_TC[:, look.channel].astype(np.float64))
    return [look.judge() for look in looks if look.runs or look.comes_back]


@dataclass
class _Look:
    """One extreme of one channel over the blocks of an event.

    Attributes:
        visits: How often the extreme is taken, for some samples each.
        steep_visits: Of them those that are entered or left by a steep step.
        smallest_step: Between two values, in float32.
        most_frequent: How often the most frequent of the other values is taken, beyond each part of the
            extreme; each block is counted by itself.
    """

    channel: int
    sign: int
    value: float
    samples: int
    low: float
    high: float
    mean: float
    visits: int = 0
    runs: int = 0
    is_steep: bool = False
    steep_visits: int = 0
    smallest_step: float = math.inf
    most_frequent: tuple[int, ...] = (0,) * len(_PILE_UP)

    @classmethod
    def at(cls, summary: Summary, channel: int, sign: int) -> "_Look":
        """Look at the largest (1) or smallest (-1) value of a channel."""
        low, high = float(summary.low_C[channel]), float(summary.high_C[channel])
        value, count_C = (high, summary.num_high_C) if sign == 1 else (low, summary.num_low_C)
        mean = float(summary.mean_C[channel])
        return cls(channel, sign, value, int(count_C[channel]), low, high, mean)

    def count(self, block_T: npt.NDArray[Any]) -> None:
        """Count visits in the next block of the channel; most looks end with this."""
        lengths = np.diff(self._find_visits(block_T))[::2]
        self.visits += len(lengths)
        self.runs += int((lengths >= FLAT_SAMPLES).sum())

    def _find_visits(self, block_T: npt.NDArray[Any]) -> IntArray:
        """Start and stop of each visit, one after the other."""
        return np.flatnonzero(np.diff(block_T == self.value, prepend=False, append=False))

    def compare(self, block_T: FloatArray) -> None:
        """Compare visits with what is around them and with other values, float64 (T,)."""
        # In 24 bits: the values of a tone, as sin() gives them, differ in the last of float64.
        values, counts = np.unique((block_T - self.mean).astype(np.float32), return_counts=True)
        height = abs(self.value - self.mean)
        finest = float(np.spacing(np.float32(height)))
        smallest = max(float(np.diff(values).min(initial=np.inf)), finest)
        self.smallest_step = min(self.smallest_step, smallest)
        extremes = np.array([self.low - self.mean, self.high - self.mean], np.float32)
        counts[np.isin(values, extremes)] = 0
        self.most_frequent = tuple(
            before + int(counts[np.abs(values) > part * height].max(initial=0))
            for before, (part, _) in zip(self.most_frequent, _PILE_UP, strict=True)
        )
        starts, stops = self._find_visits(block_T).reshape(-1, 2).T
        drops_T = np.abs(block_T - self.value)
        # Beyond the ends of the block there is nothing to compare with: a drop of 0.
        before, after = np.maximum(starts - 1, 0), np.minimum(stops, len(drops_T) - 1)
        is_steep = np.maximum(drops_T[before], drops_T[after]) > _STEEP_STEPS * smallest
        self.steep_visits += int(is_steep.sum())
        self.is_steep = self.is_steep or bool(is_steep[stops - starts >= FLAT_SAMPLES].any())

    @property
    def comes_back(self) -> bool:
        """Whether the extreme is taken far more often than any other large value."""
        return (
            self.steep_visits >= _FEWEST_VISITS
            and self.high - self.low >= FEWEST_STEPS * self.smallest_step
            and all(
                self.samples > factor * count
                for count, (_, factor) in zip(self.most_frequent, _PILE_UP, strict=True)
            )
        )

    def judge(self) -> FlatTop:
        """What all blocks together say."""
        return FlatTop(
            self.channel,
            self.sign,
            self.value,
            self.samples,
            self.runs,
            self.is_steep,
            self.comes_back,
        )
