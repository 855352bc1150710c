"""One pass over the audio of many events: what can be told of each event from its samples alone.

Checks and cleaning both go by it, so that what the one finds the other removes.

Events are read in order, block by block, by several threads: numpy lets go of the interpreter while it
computes, and memory does not depend on how long events are.

Legend: N events looked at, C microphones, T samples, F files.
"""

import functools
import hashlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from gerbil_tune.data.checks.block_summary import Summary, merge, summarize
from gerbil_tune.data.checks.findings import BoolArray, FloatArray, IntArray
from gerbil_tune.data.checks.flat_tops import FlatTop, find_flat_tops
from gerbil_tune.data.checks.signal_to_noise import Frames, estimate_snr_db
from gerbil_tune.data.cores import num_cores
from gerbil_tune.data.events import EventSet
from gerbil_tune.data.progress import Advance

_BLOCK_VALUES = 1 << 18
"""Numbers of a block: as float64 it fits in the cache of a core."""
_TASK_BYTES = 4 << 20
_TASK_EVENTS = 256
_MOST_THREADS = 8
"""More wait for each other, or for the disk."""
_TASKS_AHEAD = 4
"""Tasks that wait for each thread, so that results are taken in order without a thread standing still."""

_Kind = TypeVar("_Kind", np.bool_, np.float64)


@dataclass(frozen=True, eq=False)
class AudioScan:
    """What the pass has seen; all arrays are about the events looked at.

    Attributes:
        events: The set.
        places_N: int64 (N,), which events of the set were looked at, ascending; empty events are left out.
        finite_N: bool (N,), no NaN and no infinite value; where it is false, the rest is meaningless.
        low_NC: float64 (N, C), smallest value.
        high_NC: float64 (N, C), largest value.
        mean_NC: float64 (N, C).
        sd_NC: float64 (N, C), standard deviation; 0 exactly where a channel is constant.
        keys_N: uint64 (N,), equal for events of equal samples, and hardly ever for others.
        snr_N_db: float64 (N,), see ``estimate_snr_db``; NaN where it was not asked for.
        flat_tops: Where a channel of an event stays at its extreme, or comes back to it, in order of events.
        same_CC: bool (C, C), two channels that are not constant agree in extremes, mean and variance in all
            events looked at.
        opposite_CC: bool (C, C), likewise, one of them with the other sign.
    """

    events: EventSet
    places_N: IntArray
    finite_N: BoolArray
    low_NC: FloatArray
    high_NC: FloatArray
    mean_NC: FloatArray
    sd_NC: FloatArray
    keys_N: npt.NDArray[np.uint64]
    snr_N_db: FloatArray
    flat_tops: list[FlatTop]
    same_CC: BoolArray
    opposite_CC: BoolArray

    @property
    def constant_NC(self) -> BoolArray:
        """Which channels of which events have one value only, bool (N, C); never one sample alone."""
        many_N = self.events.lengths[self.places_N] > 1
        return np.asarray((self.low_NC == self.high_NC) & many_N[:, None])

    @property
    def sounding_N(self) -> BoolArray:
        """Events with finite audio that is not silent, bool (N,)."""
        return np.asarray(self.finite_N & ~self.constant_NC.all(axis=1))

    def spread(self, values_N: npt.NDArray[_Kind], fill: float) -> npt.NDArray[_Kind]:
        """Say for all events of the set what is known of those looked at.

        Args:
            values_N: (N, ...).
            fill: Value for the others.
        """
        whole = np.full((len(self.events), *values_N.shape[1:]), fill, values_N.dtype)
        whole[self.places_N] = values_N
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
    frames: Frames | None = None,
    max_samples: int | None = None,
    num_threads: int | None = None,
    advance: Advance | None = None,
) -> AudioScan:
    """Read events once, in order, and summarize each.

    Args:
        events: The set.
        places: Which of its events, ascending; None: all. Empty ones are passed over.
        frames: Estimate the signal-to-noise ratio from these frames; None: do not.
        max_samples: Samples of an event that are read at most; None: all.
        num_threads: Threads that read; default one a core, 8 at most.
        advance: Is told how many events more are done.

    Raises:
        DatasetError: If a file cannot be mapped any more, or becomes shorter meanwhile.
    """
    asked = np.arange(len(events)) if places is None else places
    chosen = asked[events.lengths[asked] > 0]
    if advance is not None:
        advance(len(asked) - len(chosen))
    for file in events.files:
        file.audio()  # mapped once, here, and not by two threads at once
    collected = _Collected.empty(len(chosen), events.num_microphones)
    reader = _Reader(events, frames, max_samples)
    threads = num_threads or min(num_cores(), _MOST_THREADS)
    for part in _scan_in_order(reader, chosen, threads):
        collected.take(part, advance)
    return collected.finish(events, chosen)


def _scan_in_order(reader: "_Reader", chosen: IntArray, threads: int) -> Iterator["_Part"]:
    with ThreadPoolExecutor(threads, thread_name_prefix="scan") as pool:
        waiting: deque[Future[_Part]] = deque()
        try:
            for first, stop in reader.divide(chosen):
                waiting.append(pool.submit(reader.scan, chosen[first:stop], first))
                if len(waiting) >= threads * _TASKS_AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            # After an error or an interrupt nobody wants the rest.
            pool.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True)
class _Part:
    """Summaries of some events in a row."""

    first: int
    low_NC: FloatArray
    high_NC: FloatArray
    mean_NC: FloatArray
    sd_NC: FloatArray
    keys_N: npt.NDArray[np.uint64]
    snr_N_db: FloatArray
    flat_tops: list[FlatTop]

    @classmethod
    def empty(cls, first: int, num_events: int, num_microphones: int) -> "_Part":
        """Room for some events."""
        low, high, mean, sd = np.zeros((4, num_events, num_microphones))
        keys = np.zeros(num_events, np.uint64)
        return cls(first, low, high, mean, sd, keys, np.full(num_events, np.nan), [])


@dataclass
class _Collected:
    """Arrays that parts are put into, in order."""

    whole: _Part
    pairs: _Pairs

    @classmethod
    def empty(cls, num_events: int, num_microphones: int) -> "_Collected":
        return cls(_Part.empty(0, num_events, num_microphones), _Pairs.fresh(num_microphones))

    def take(self, part: _Part, advance: Advance | None) -> None:
        """Put a part into its place."""
        rows = slice(part.first, part.first + len(part.keys_N))
        for name in ("low_NC", "high_NC", "mean_NC", "sd_NC", "keys_N", "snr_N_db"):
            getattr(self.whole, name)[rows] = getattr(part, name)
        self.whole.flat_tops.extend(part.flat_tops)
        finite_N = _are_finite(part.low_NC, part.high_NC)
        self.pairs.look_at(part.low_NC[finite_N], part.high_NC[finite_N], part.mean_NC[finite_N])
        if advance is not None:
            advance(len(part.keys_N))

    def finish(self, events: EventSet, places_N: IntArray) -> AudioScan:
        """What all parts together say."""
        whole = self.whole
        return AudioScan(
            events,
            places_N,
            _are_finite(whole.low_NC, whole.high_NC),
            whole.low_NC,
            whole.high_NC,
            whole.mean_NC,
            whole.sd_NC,
            whole.keys_N,
            whole.snr_N_db,
            whole.flat_tops,
            self.pairs.same_CC & self.pairs.seen_CC,
            self.pairs.opposite_CC & self.pairs.seen_CC,
        )


def _are_finite(low_NC: FloatArray, high_NC: FloatArray) -> BoolArray:
    """Events whose extremes, and so all values, are finite, (N,)."""
    return np.asarray((np.isfinite(low_NC) & np.isfinite(high_NC)).all(axis=1))


@dataclass(frozen=True)
class _Reader:
    """What each thread does."""

    events: EventSet
    frames: Frames | None
    max_samples: int | None

    def divide(self, chosen: IntArray) -> Iterator[tuple[int, int]]:
        """Cut the chosen events into tasks, [first, stop) each."""
        lengths = self.events.lengths[chosen]
        if self.max_samples is not None:
            lengths = np.minimum(lengths, self.max_samples)
        sample_bytes = self.events.num_microphones * self.events.files[0].dtype.itemsize
        ends = np.cumsum(lengths) * sample_bytes
        first = done = 0
        while first < len(chosen):
            stop = int(np.searchsorted(ends, done + _TASK_BYTES, side="right"))
            stop = min(max(stop, first + 1), first + _TASK_EVENTS)
            yield first, stop
            first, done = stop, int(ends[stop - 1])

    def scan(self, places: IntArray, first: int) -> _Part:
        """Summarize some events in a row."""
        for number in np.unique(self.events.file_numbers[places]).tolist():
            self.events.files[number].check_unchanged()
        part = _Part.empty(first, len(places), self.events.num_microphones)
        # NaN, infinities and squares beyond float64 are what is looked for here, not accidents.
        with np.errstate(all="ignore"):
            for row, place in enumerate(places.tolist()):
                blocks = self._cut(self.events.read(place, 0, self.max_samples))
                summary = functools.reduce(merge, map(summarize, blocks))
                part.low_NC[row], part.high_NC[row] = summary.low_C, summary.high_C
                part.mean_NC[row] = summary.mean_C
                part.sd_NC[row] = np.where(summary.constant_C, 0.0, summary.sd_C)
                part.keys_N[row] = _make_key(summary)
                part.snr_N_db[row] = self._estimate_snr_db(blocks, summary)
                part.flat_tops.extend(
                    top.of_event(place) for top in find_flat_tops(blocks, summary)
                )
        return part

    def _cut(self, audio_TC: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
        """Views of an event in order, of whole frames all but the last."""
        rows = max(_BLOCK_VALUES // self.events.num_microphones, 1)
        if self.frames is not None:
            rows = max(rows // self.frames.num_samples, 1) * self.frames.num_samples
        return [audio_TC[start : start + rows] for start in range(0, len(audio_TC), rows)]

    def _estimate_snr_db(self, blocks: list[npt.NDArray[Any]], summary: Summary) -> float:
        if self.frames is None or not summary.is_finite:
            return float("nan")
        powers_CF = np.concatenate([self.frames.powers_CF(block) for block in blocks], axis=1)
        # A mean that is rounded would leave constant channels some power.
        powers_CF[summary.constant_C] = 0
        return estimate_snr_db(powers_CF, self.frames.quiet_part)


def _make_key(summary: Summary) -> int:
    digest = hashlib.blake2b(str(summary.num_samples).encode(), digest_size=8)
    for values_C in (summary.low_C, summary.high_C, summary.mean_C, summary.squares_C):
        digest.update(values_C.tobytes())
    return int.from_bytes(digest.digest(), "little")
