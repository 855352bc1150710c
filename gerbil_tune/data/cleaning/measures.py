"""What the audio of events is like: levels, flat tops, noise floor, content. One pass over the audio.

Legend: N events, C microphones, T samples, F frames.
"""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gerbil_tune.data.events import EventSet
from gerbil_tune.data.progress import Advance

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

DIGEST_BYTES = 16
_BLOCK_VALUES = 1 << 20
"""Values that a thread holds at a time, so that hour-long events cost no more than short ones."""
_EVENTS_A_TASK = 32
_MOST_THREADS = 8
_FEWEST_FRAMES = 4
_BAND = 0.1
"""Flat tops are compared with the samples in this part of the half range below the extreme."""
_PILE_UP = 2.0
"""A top is flat when it holds this many times the samples that the crest of a sine would."""
_SHARE_WORTH_A_LOOK = 1e-4


@dataclass(frozen=True)
class AudioMeasures:
    """What was measured of N events; NaN where an event is empty or not finite.

    Attributes:
        is_finite_N: Whether all samples are finite numbers.
        level_NC_db: float64, root mean square without the mean, in dB re full scale (the largest integer, or
            1.0 for floats); -inf for a constant channel.
        clipped_NC: float64, share of the samples that lie at the value at which peaks are cut off.
        snr_N_db: float64, the loudest frame over the quiet ones, in dB; NaN also for fewer than 4 frames.
        digest_N: Hash of the samples, 16 bytes each.
    """

    is_finite_N: BoolArray
    level_NC_db: FloatArray
    clipped_NC: FloatArray
    snr_N_db: FloatArray
    digest_N: list[bytes]


def measure_audio(
    events: EventSet,
    *,
    frame_samples: int,
    quiet_part: float = 0.1,
    advance: Advance | None = None,
) -> AudioMeasures:
    """Measure all events, with a thread for each core and little memory.

    Args:
        events: The set.
        frame_samples: Length of the frames whose powers are compared.
        quiet_part: Quantile of the frame powers that is the noise.
        advance: Told how many more events are done.
    """
    num_events = len(events)
    level_NC, clipped_NC = np.full((2, num_events, events.num_microphones), np.nan)
    measures = AudioMeasures(
        np.ones(num_events, dtype=np.bool_),
        level_NC,
        clipped_NC,
        np.full(num_events, np.nan),
        [b""] * num_events,
    )

    def measure(first: int) -> int:
        last = min(first + _EVENTS_A_TASK, num_events)
        # State of numpy's error handling is each thread's own.
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            for i in range(first, last):
                _measure_event(events, i, measures, frame_samples, quiet_part)
        return last - first

    for file in events.files:
        file.audio()  # mapped here, once, and not by two threads at a time
    pool = ThreadPoolExecutor(_num_threads(), thread_name_prefix="measure")
    try:
        for count in pool.map(measure, range(0, num_events, _EVENTS_A_TASK)):
            if advance is not None:
                advance(count)
    finally:
        pool.shutdown(cancel_futures=True)
    return measures


def _num_threads() -> int:
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return min(cores, _MOST_THREADS)


def _measure_event(
    events: EventSet, i: int, measures: AudioMeasures, frame_samples: int, quiet_part: float
) -> None:
    """Fill the i-th place of each measure."""
    # Blocks hold whole frames.
    rows = max(_BLOCK_VALUES // events.num_microphones // frame_samples, 1) * frame_samples
    first = _FirstLook(events.num_microphones, frame_samples)
    dtype = events.files[events.file_numbers[i]].dtype
    block_CT = None
    for block_CT in _blocks(events, i, rows, first.digest):
        first.add(block_CT)
    measures.digest_N[i] = first.digest.digest()
    measures.is_finite_N[i] = first.is_finite
    if block_CT is None or not first.is_finite:
        return
    full_scale = float(np.iinfo(dtype).max) if dtype.kind == "i" else 1.0
    power_C = first.power_C()
    measures.level_NC_db[i] = 10 * np.log10(power_C / full_scale**2)
    measures.snr_N_db[i] = estimate_snr_db(first.frame_powers_CF(), quiet_part)
    is_one_block = first.num_samples <= rows
    again = iter([block_CT]) if is_one_block else _blocks(events, i, rows, None)
    limits = (float(np.iinfo(dtype).min), full_scale) if dtype.kind == "i" else None
    measures.clipped_NC[i] = _clipped_share_C(again, first, limits)


def _blocks(
    events: EventSet, i: int, rows: int, digest: "hashlib.blake2b | None"
) -> Iterator[FloatArray]:
    """Blocks (C, T) of an event in float64; ``digest`` sees the numbers, which are the same in any dtype."""
    has_one_dtype = len({file.dtype for file in events.files}) == 1
    for start in range(0, int(events.lengths[i]), rows):
        block_TC = np.ascontiguousarray(events.read(i, start, start + rows))
        if digest is not None:
            digest.update((block_TC if has_one_dtype else block_TC.astype(np.float64)).data)
        yield np.ascontiguousarray(block_TC.T, dtype=np.float64)


class _FirstLook:
    """Sums over the blocks of one event."""

    def __init__(self, num_microphones: int, frame_samples: int) -> None:
        self.frame_samples = frame_samples
        self.digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
        self.is_finite = True
        self.num_samples = 0
        self.low_C = np.full(num_microphones, np.inf)
        self.high_C = np.full(num_microphones, -np.inf)
        self._sum_C, self._squares_C = np.zeros(num_microphones), np.zeros(num_microphones)
        self._frames: list[FloatArray] = []

    def add(self, block_CT: FloatArray) -> None:
        """Take in the next block; all but the last hold whole frames."""
        self.is_finite = self.is_finite and bool(np.isfinite(block_CT).all())
        if not self.is_finite:
            return
        self.num_samples += block_CT.shape[1]
        self.low_C = np.minimum(self.low_C, block_CT.min(axis=1))
        self.high_C = np.maximum(self.high_C, block_CT.max(axis=1))
        self._sum_C += block_CT.sum(axis=1)
        self._squares_C += np.einsum("ct,ct->c", block_CT, block_CT)
        num_frames = block_CT.shape[1] // self.frame_samples
        framed = block_CT[:, : num_frames * self.frame_samples]
        framed = framed.reshape(len(block_CT), num_frames, self.frame_samples)
        centred = framed - framed.mean(axis=2, keepdims=True)
        self._frames.append(np.einsum("cft,cft->cf", centred, centred) / self.frame_samples)

    def power_C(self) -> FloatArray:
        """Mean square without the mean; exactly 0 for constant channels."""
        mean_C = self._sum_C / self.num_samples
        power_C = np.maximum(self._squares_C / self.num_samples - mean_C**2, 0)
        return np.where(self.low_C == self.high_C, 0.0, power_C)

    def frame_powers_CF(self) -> FloatArray:
        """Variance of each frame, which rumble slower than a frame is not in; 0 for constant channels."""
        constant_C1 = (self.low_C == self.high_C)[:, None]
        return np.where(constant_C1, 0.0, np.concatenate(self._frames, axis=1))


def estimate_snr_db(powers_CF: FloatArray, quiet_part: float) -> float:
    """How far the loudest frame stands out of the quiet ones, in dB.

        10 log10  max_f  mean_c  P[c, f] / quantile_f(P[c], quiet_part)

    Each microphone is measured against its own noise, so that neither gains nor one noisy microphone matter.
    Constant microphones are left out.

    Args:
        powers_CF: float64, power of each microphone and frame, without the frame's mean.
        quiet_part: The quantile.

    Returns:
        0 for constant power, inf where the quiet frames are digital silence, NaN for fewer than 4 frames or
        no microphone that is not constant.
    """
    alive_CF = powers_CF[powers_CF.any(axis=1)]
    if alive_CF.shape[1] < _FEWEST_FRAMES or not len(alive_CF):
        return float("nan")
    noise_C1 = np.quantile(alive_CF, quiet_part, axis=1, keepdims=True)
    if (noise_C1 == 0).any():
        return float("inf")
    return float(10 * np.log10((alive_CF / noise_C1).mean(axis=0).max()))


def _clipped_share_C(
    blocks: Iterator[FloatArray], first: _FirstLook, limits: tuple[float, float] | None
) -> FloatArray:
    """Share of the samples of each microphone at a flat top or bottom.

    A float signal takes its largest value once. A coarse one takes it often without being clipped: at the
    crest of a sine of amplitude A, the part sqrt(q / b) of the samples within b of the crest rounds to the
    crest, q being the step and q <= b << A. Flat is what holds twice as many, or lies at the end of the
    integers.

    Args:
        blocks: (C, T) of the event.
        first: Sums over the same blocks.
        limits: Smallest and largest integer; None for floats.
    """
    reach_C1 = _BAND * (first.high_C - first.low_C)[:, None] / 2
    sides = ((1.0, first.high_C), (-1.0, -first.low_C))
    at_SC, near_SC = np.zeros((2, len(reach_C1))), np.zeros((2, len(reach_C1)))
    whole_CT: FloatArray | None = None
    for block_CT in blocks:
        whole_CT = block_CT if whole_CT is None else whole_CT
        for side, (sign, extreme_C) in enumerate(sides):
            signed_CT = sign * block_CT
            at_SC[side] += np.count_nonzero(signed_CT == extreme_C[:, None], axis=1)
            near_SC[side] += np.count_nonzero(signed_CT >= extreme_C[:, None] - reach_C1, axis=1)
    share_SC = np.maximum(at_SC - 1, 0) / first.num_samples
    if whole_CT is None or not (share_SC > _SHARE_WORTH_A_LOOK).any():
        return np.zeros(len(reach_C1))
    step_C = np.array([_step(channel_T) for channel_T in whole_CT])
    expected_SC = near_SC * np.sqrt(np.minimum(step_C / np.maximum(reach_C1[:, 0], 1e-300), 1))
    is_flat_SC = at_SC > _PILE_UP * expected_SC
    if limits is not None:
        is_flat_SC |= np.stack([first.high_C >= limits[1], first.low_C <= limits[0] + 1])
    is_flat_SC &= first.low_C < first.high_C
    return np.asarray(np.where(is_flat_SC, share_SC, 0.0).sum(axis=0))


def _step(channel_T: FloatArray) -> float:
    """Smallest difference between two values that a channel takes; inf if it takes one only."""
    return float(np.diff(np.unique(channel_T)).min(initial=np.inf))
