"""Where a channel of an event stays at its extreme, or comes back to it, as no sound does.

A signal that nothing cuts off takes its largest value once, or some times where it is coarse. Two marks tell a
flat top from a crest:

- 3 or more samples in a row are at the extreme. A crest of a slow wave, rounded to steps, is like that too, but
  is left by 4 steps at most; a flat top is left by more.
- The extreme is taken far more often than other large values. Calls of 20 to 50 kHz at 125 kHz are cut off for
  one or two samples a period, so that none are 3 in a row. The crest of a rounded sine is taken up to 2.4 times
  as often as the value below it, and in a tone of 5 to 25 samples a period all values come back alike.

Legend: C microphones, T samples.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gerbil_tune.data.checks.block_summary import Summary
from gerbil_tune.data.checks.findings import BoolArray, FloatArray

FLAT_SAMPLES = 3
"""Samples at the extreme of a channel from which on they are no chance, if they are in a row."""
FEWEST_STEPS = 16
"""Sound that swings over fewer of its smallest steps holds no call, and is not cut off."""
_STEEP_STEPS = 4.0
_FEWEST_VISITS = 5
"""Steep ones, from which on coming back is no chance."""
_PILE_UP = 4.0
"""How many times as often as any other large value the extreme must be taken."""


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


def find_flat_tops(blocks: Iterable[npt.NDArray[Any]], summary: Summary) -> list[FlatTop]:
    """Look again at the few channels that have their extreme 3 times or more.

    Args:
        blocks: (T, C) each, all samples of one event; they are read only where there is anything to look at.
        summary: Of the same samples. Where they are not all finite, nothing is found.
    """
    if not summary.is_finite:
        return []
    sides = ((1, summary.high_C, summary.num_high_C), (-1, summary.low_C, summary.num_low_C))
    looks = [
        _Look(channel, sign, float(value_C[channel]), int(count_C[channel]))
        for sign, value_C, count_C in sides
        for channel in np.flatnonzero((count_C >= FLAT_SAMPLES) & ~summary.constant_C).tolist()
    ]
    if looks:
        for block_TC in blocks:
            for look in looks:
                look.add(block_TC[:, look.channel].astype(np.float64), summary)
    tops = [look.judge(summary) for look in looks]
    return [top for top in tops if top.runs or top.comes_back]


@dataclass
class _Look:
    """One extreme of one channel over the blocks of an event."""

    channel: int
    sign: int
    value: float
    samples: int
    visits: int = 0
    runs: int = 0
    is_steep: bool = False
    smallest_step: float = field(default=math.inf)
    others: int = 0

    def add(self, block_T: FloatArray, summary: Summary) -> None:
        """Take in the next block of the channel, float64 (T,)."""
        steps = np.abs(np.diff(block_T))
        smallest = float(steps[steps > 0].min(initial=math.inf))
        self.smallest_step = min(self.smallest_step, smallest)
        self.others += self._count_others(block_T, summary)
        is_flat_T = block_T == self.value
        edges = np.flatnonzero(np.diff(is_flat_T, prepend=False, append=False))
        starts, stops = edges[::2], edges[1::2]
        drops_T = np.abs(block_T - self.value)
        # Beyond the ends of the block there is nothing to compare with: a drop of 0.
        before, after = drops_T[np.maximum(starts - 1, 0)], drops_T[np.minimum(stops, len(drops_T) - 1)]
        is_steep: BoolArray = np.maximum(before, after) > _STEEP_STEPS * smallest
        is_long = stops - starts >= FLAT_SAMPLES
        self.visits += int(is_steep.sum())
        self.runs += int(is_long.sum())
        self.is_steep = self.is_steep or bool((is_steep & is_long).any())

    def _count_others(self, block_T: FloatArray, summary: Summary) -> int:
        """How often the most frequent value is taken that is large, but no extreme."""
        low, high = summary.low_C[self.channel], summary.high_C[self.channel]
        mean = summary.mean_C[self.channel]
        is_large_T = np.abs(block_T - mean) > abs(self.value - mean) / 2
        large = block_T[is_large_T & (block_T != low) & (block_T != high)]
        # In 24 bits: the values of a tone, as sin() gives them, differ in the last of float64.
        _, counts = np.unique((large - mean).astype(np.float32), return_counts=True)
        return int(counts.max(initial=0))

    def judge(self, summary: Summary) -> FlatTop:
        """What all blocks together say; the most frequent value is counted in each block by itself."""
        swing = summary.high_C[self.channel] - summary.low_C[self.channel]
        comes_back = (
            self.visits >= _FEWEST_VISITS
            and self.samples > _PILE_UP * self.others
            and bool(swing >= FEWEST_STEPS * self.smallest_step)
        )
        return FlatTop(
            self.channel,
            self.sign,
            self.value,
            self.samples,
            self.runs,
            self.is_steep,
            comes_back,
        )
