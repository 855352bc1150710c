"""One pass over the audio of many events: what can be told of each event from its samples alone.

Events are read in order, block by block, by several threads: numpy lets go of the interpreter while it
computes, and memory does not depend on how long events are.

Legend: N events looked at, C microphones, T samples, F files.
"""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from gerbil_tune.data.checks.block_summary import FlatTop, Summary, merge, summarize
from gerbil_tune.data.checks.findings import BoolArray, FloatArray, IntArray
from gerbil_tune.data.events import EventSet

_BLOCK_VALUES = 1 << 18
"""Numbers of a block: as float64 it fits in the cache of a core."""
_TASK_BYTES = 4 << 20
_TASK_EVENTS = 256
_MOST_THREADS = 8
"""More wait for each other, or for the disk."""
_TASKS_AHEAD = 4
"""Tasks that wait for each thread, so that results are taken in order without a thread standing still."""


@dataclass(frozen=True, eq=False)
class AudioScan:
    """What the pass has seen; all arrays are about the events looked at.

    Attributes:
        events: The set.
        places_N: int64 (N,), which events of the set were looked at, ascending; empty events are left out.
        finite_N: bool (N,), no NaN and no infinite value; where it is false, the rest is meaningless.
        low_NC: float64 (N, C), smallest value.
        high_NC: float64 (N, C), largest value.
        mean_NC: float32 (N, C).
        sd_NC: float32 (N, C), standard deviation; 0 exactly where a channel is constant.
        keys_N: uint64 (N,), equal for events of equal samples, and hardly ever for others.
        flat_tops: Where 3 or more samples in a row are at the extreme of a channel of an event.
        same_CC: bool (C, C), two channels that are not constant agree in extremes, mean and variance in all
            events looked at.
        opposite_CC: bool (C, C), likewise, one of them with the other sign.
    """

    events: EventSet
    places_N: IntArray
    finite_N: BoolArray
    low_NC: FloatArray
    high_NC: FloatArray
    mean_NC: npt.NDArray[np.float32]
    sd_NC: npt.NDArray[np.float32]
    keys_N: npt.NDArray[np.uint64]
    flat_tops: list[FlatTop]
    same_CC: BoolArray
    opposite_CC: BoolArray

    @property
    def constant_NC(self) -> BoolArray:
        """Which channels of which events have one value only, bool (N, C); never one sample alone."""
        many_N = self.events.lengths[self.places_N] > 1
        return np.asarray((self.low_NC == self.high_NC) & many_N[:, None])

    def spread(self, some_N: BoolArray) -> BoolArray:
        """Say for all events of the set what is known of those looked at, false for the others."""
        whole = np.zeros(len(self.events), dtype=np.bool_)
        whole[self.places_N] = some_N
        return whole


@dataclass
class _Pairs:
    """Which pairs of channels may be copies of each other, after some events."""

    same_CC: BoolArray
    opposite_CC: BoolArray
    seen_CC: BoolArray

    @classmethod
    def fresh(cls, num_microphones: int) -> "_Pairs":
        above = np.triu(np.ones((num_microphones, num_microphones), dtype=np.bool_), 1)
        return cls(above, above.copy(), np.zeros_like(above))

    def look_at(self, low_NC: FloatArray, high_NC: FloatArray, mean_NC: FloatArray) -> None:
        """Strike out what events contradict; a rounded mean is the same for equal samples."""
        varies_NC = low_NC != high_NC
        self.seen_CC |= (varies_NC.T.astype(np.float32) @ varies_NC.astype(np.float32)) > 0
        for i, j in np.argwhere(self.same_CC).tolist():
            self.same_CC[i, j] = all(
                np.array_equal(values_NC[:, i], values_NC[:, j])
                for values_NC in (low_NC, high_NC, mean_NC)
            )
        for i, j in np.argwhere(self.opposite_CC).tolist():
            self.opposite_CC[i, j] = (
                np.array_equal(low_NC[:, i], -high_NC[:, j])
                and np.array_equal(high_NC[:, i], -low_NC[:, j])
                and np.array_equal(mean_NC[:, i], -mean_NC[:, j])
            )


def scan_audio(
    events: EventSet,
    places: IntArray | None = None,
    *,
    max_samples: int | None = None,
    num_threads: int | None = None,
    advance: Callable[[int], None] | None = None,
) -> AudioScan:
    """Read events once, in order, and summarize each.

    Args:
        events: The set.
        places: Which of its events, ascending; None: all. Empty ones are passed over.
        max_samples: Samples of an event that are read at most; None: all.
        num_threads: Threads that read; default one a core, 8 at most.
        advance: Is told how many bytes more were read.

    Raises:
        DatasetError: If a file cannot be mapped any more, or becomes shorter meanwhile.
    """
    chosen = np.arange(len(events)) if places is None else places
    chosen = chosen[events.lengths[chosen] > 0]
    for file in events.files:
        file.audio()  # mapped once, here, and not by two threads at once
    collected = _Collected.empty(len(chosen), events.num_microphones)
    threads = num_threads or min(_num_cores(), _MOST_THREADS)
    with ThreadPoolExecutor(threads, thread_name_prefix="scan") as pool:
        waiting: deque[Future[_Part]] = deque()
        try:
            for first, stop in _divide(events, chosen, max_samples):
                part = pool.submit(_scan_part, events, chosen[first:stop], first, max_samples)
                waiting.append(part)
                if len(waiting) >= threads * _TASKS_AHEAD:
                    collected.take(waiting.popleft().result(), advance)
            while waiting:
                collected.take(waiting.popleft().result(), advance)
        finally:
            # After an error or an interrupt nobody wants the rest.
            pool.shutdown(wait=False, cancel_futures=True)
    return collected.finish(events, chosen)


@dataclass(frozen=True)
class _Part:
    """Summaries of some events in a row."""

    first: int
    low_NC: FloatArray
    high_NC: FloatArray
    mean_NC: FloatArray
    sd_NC: FloatArray
    keys_N: npt.NDArray[np.uint64]
    flat_tops: list[FlatTop]
    num_bytes: int


@dataclass
class _Collected:
    """Arrays that parts are put into, in order."""

    low_NC: FloatArray
    high_NC: FloatArray
    mean_NC: npt.NDArray[np.float32]
    sd_NC: npt.NDArray[np.float32]
    keys_N: npt.NDArray[np.uint64]
    pairs: _Pairs
    flat_tops: list[FlatTop] = field(default_factory=list)

    @classmethod
    def empty(cls, num_events: int, num_microphones: int) -> "_Collected":
        size = (num_events, num_microphones)
        return cls(
            np.zeros(size),
            np.zeros(size),
            np.zeros(size, np.float32),
            np.zeros(size, np.float32),
            np.zeros(num_events, np.uint64),
            _Pairs.fresh(num_microphones),
        )

    def take(self, part: _Part, advance: Callable[[int], None] | None) -> None:
        """Put a part into its place."""
        rows = slice(part.first, part.first + len(part.keys_N))
        self.low_NC[rows], self.high_NC[rows] = part.low_NC, part.high_NC
        with np.errstate(all="ignore"):  # float64 may be beyond float32, which is a finding later
            self.mean_NC[rows], self.sd_NC[rows] = part.mean_NC, part.sd_NC
        self.keys_N[rows] = part.keys_N
        self.flat_tops += part.flat_tops
        finite_N = _are_finite(part.low_NC, part.high_NC)
        self.pairs.look_at(part.low_NC[finite_N], part.high_NC[finite_N], part.mean_NC[finite_N])
        if advance is not None:
            advance(part.num_bytes)

    def finish(self, events: EventSet, places_N: IntArray) -> AudioScan:
        """What all parts together say."""
        return AudioScan(
            events,
            places_N,
            _are_finite(self.low_NC, self.high_NC),
            self.low_NC,
            self.high_NC,
            self.mean_NC,
            self.sd_NC,
            self.keys_N,
            self.flat_tops,
            self.pairs.same_CC & self.pairs.seen_CC,
            self.pairs.opposite_CC & self.pairs.seen_CC,
        )


def _are_finite(low_NC: FloatArray, high_NC: FloatArray) -> BoolArray:
    """Events whose extremes, and so all values, are finite, (N,)."""
    return np.asarray((np.isfinite(low_NC) & np.isfinite(high_NC)).all(axis=1))


def _num_cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # fewer than the machine's inside a batch job
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _divide(
    events: EventSet, chosen: IntArray, max_samples: int | None
) -> Iterator[tuple[int, int]]:
    """Cut the events into tasks, [first, stop) each."""
    lengths = events.lengths[chosen]
    if max_samples is not None:
        lengths = np.minimum(lengths, max_samples)
    ends = np.cumsum(lengths) * events.num_microphones * events.files[0].dtype.itemsize
    first = done = 0
    while first < len(chosen):
        stop = int(np.searchsorted(ends, done + _TASK_BYTES, side="right"))
        stop = min(max(stop, first + 1), first + _TASK_EVENTS)
        yield first, stop
        first, done = stop, int(ends[stop - 1])


def _scan_part(events: EventSet, places: IntArray, first: int, max_samples: int | None) -> _Part:
    for number in np.unique(events.file_numbers[places]).tolist():
        events.files[number].check_unchanged()
    size = (len(places), events.num_microphones)
    low, high, mean, sd = (np.zeros(size) for _ in range(4))
    keys = np.zeros(len(places), np.uint64)
    flat_tops: list[FlatTop] = []
    num_bytes = 0
    # NaN, infinities and squares beyond float64 are what is looked for here, not accidents.
    with np.errstate(all="ignore"):
        for row, place in enumerate(places.tolist()):
            summary = _scan_event(events, place, max_samples)
            low[row], high[row], mean[row] = summary.low_C, summary.high_C, summary.mean_C
            sd[row] = np.where(summary.low_C == summary.high_C, 0.0, summary.sd_C)
            keys[row] = _make_key(summary)
            flat_tops += [top.of_event(place) for top in summary.flat_tops]
            num_bytes += summary.num_bytes
    return _Part(first, low, high, mean, sd, keys, flat_tops, num_bytes)


def _scan_event(events: EventSet, place: int, max_samples: int | None) -> Summary:
    audio_TC = events.read(place, 0, max_samples)
    rows = max(_BLOCK_VALUES // events.num_microphones, 1)
    whole = summarize(audio_TC[:rows])
    for start in range(rows, len(audio_TC), rows):
        whole = merge(whole, summarize(audio_TC[start : start + rows]))
    return whole


def _make_key(summary: Summary) -> int:
    digest = hashlib.blake2b(str(summary.num_samples).encode(), digest_size=8)
    for values_C in (summary.low_C, summary.high_C, summary.mean_C, summary.squares_C):
        digest.update(values_C.tobytes())
    return int.from_bytes(digest.digest(), "little")
