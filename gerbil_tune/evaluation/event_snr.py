"""How far each event stands out of its noise, of many events at once.

The estimate is ``data.checks.signal_to_noise.estimate_snr_db``, by which cleaning judges, of events of any
lengths together: their frames lie one after the other, and what is wanted of each event is reduced over its
stretch of them.

Letters: N events, F frames of all events, C microphones, T samples.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gerbil_tune.config.cleaning import SnrFilter
from gerbil_tune.data.events import EventSet

_FEWEST_FRAMES = 4
_VALUES_AT_ONCE = 2**22
"""Audio values of a block of frames: 16 MB as float32, which stays near the cache."""
_FRAMES_AT_ONCE = 2**20

Floats = NDArray[np.float64]


def snr_db(events: EventSet, sample_rate_hz: float) -> Floats:
    """Estimate the signal-to-noise ratio of each event, with the frames that cleaning uses by default.

    Args:
        events: N recordings; all their audio is read.
        sample_rate_hz: Of the audio.

    Returns:
        (N,) dB: infinite where the quiet frames are digital silence, NaN of fewer than 4 frames (16 ms), of
        constant audio and of audio that is not finite.
    """
    options = SnrFilter()
    frame_samples = max(1, round(options.frame_ms * sample_rate_hz / 1000))
    num_frames_N = events.lengths // frame_samples
    found_N = np.full(len(events), np.nan)
    long_enough = np.flatnonzero(num_frames_N >= _FEWEST_FRAMES)
    for rows in _blocks(long_enough, num_frames_N[long_enough]):
        powers_FC = _frame_powers(events, rows, num_frames_N[rows], frame_samples)
        found_N[rows] = ragged_snr_db(powers_FC, num_frames_N[rows], options.quiet_part)
    return found_N


def _blocks(rows: NDArray[np.intp], num_frames: NDArray[np.int64]) -> Iterator[NDArray[np.intp]]:
    """Cut events into blocks of about so many frames."""
    block_of = np.cumsum(num_frames) // _FRAMES_AT_ONCE
    yield from (part for part in np.split(rows, np.flatnonzero(np.diff(block_of)) + 1) if len(part))


def _frame_powers(
    events: EventSet, rows: NDArray[np.intp], num_frames_N: NDArray[np.int64], frame_samples: int
) -> NDArray[np.float32]:
    """Variance of each microphone in each whole frame of some events, (F, C)."""
    within_F = _counted_within(num_frames_N)
    first_F = np.repeat(events.first_samples[rows], num_frames_N) + within_F * frame_samples
    file_F = np.repeat(events.file_numbers[rows], num_frames_N)
    powers_FC = np.empty((len(first_F), events.num_microphones), np.float32)
    step = max(1, _VALUES_AT_ONCE // (frame_samples * events.num_microphones))
    for number in np.unique(file_F).tolist():
        audio_TC = events.files[number].audio()
        shape = (frame_samples, audio_TC.shape[1])
        frame_at_TTC = np.lib.stride_tricks.sliding_window_view(audio_TC, shape)[:, 0]
        places = np.flatnonzero(file_F == number)
        for start in range(0, len(places), step):
            part = places[start : start + step]
            powers_FC[part] = _variances(frame_at_TTC[first_F[part]])
    return powers_FC


def _variances(frames_FTC: NDArray[Any]) -> NDArray[np.float32]:
    """Variance of each microphone in each frame, (F, C); NaN where audio is not finite."""
    num_samples = frames_FTC.shape[1]
    # Channels change fastest in memory: a product with ones sums over time at the speed of memory.
    ones_T = np.ones(num_samples, np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        audio_FTC = frames_FTC.astype(np.float32)
        audio_FTC -= (ones_T @ audio_FTC)[:, None] / num_samples
        np.square(audio_FTC, out=audio_FTC)
        return np.asarray(ones_T @ audio_FTC / num_samples)


def ragged_snr_db(
    powers_FC: NDArray[np.floating], num_frames_N: NDArray[np.int64], quiet_part: float
) -> Floats:
    """What ``estimate_snr_db`` says of each event.

    Args:
        powers_FC: Of the frames of all events, one event after the other.
        num_frames_N: Frames of each event, at least 4.
        quiet_part: The quantile of the frame powers that is the noise.
    """
    first_N = np.cumsum(num_frames_N) - num_frames_N
    event_F = np.repeat(np.arange(len(num_frames_N)), num_frames_N)
    place_N = quiet_part * (num_frames_N - 1)
    below_N = np.floor(place_N).astype(np.int64)
    above_N = np.minimum(below_N + 1, num_frames_N - 1)
    excess_F = np.zeros(len(powers_FC))
    num_alive_N = np.zeros(len(num_frames_N))
    is_silent_N = np.zeros(len(num_frames_N), np.bool_)
    for power_F in powers_FC.T.astype(np.float64):
        ordered_F = power_F[np.lexsort((power_F, event_F))]
        low_N, high_N = ordered_F[first_N + below_N], ordered_F[first_N + above_N]
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            noise_N = low_N + (place_N - below_N) * (high_N - low_N)
            is_alive_N = np.maximum.reduceat(power_F, first_N) > 0
            ratio_F = power_F / noise_N[event_F]
        # A constant microphone says nothing; one that is not finite spoils its event, as it does elsewhere.
        is_spoilt_N = ~np.isfinite(np.add.reduceat(power_F, first_N))
        is_silent_N |= is_alive_N & (noise_N == 0)
        excess_F += np.where((is_alive_N & (noise_N > 0))[event_F], ratio_F, 0.0)
        num_alive_N += is_alive_N
        excess_F[is_spoilt_N[event_F]] = np.nan
    with np.errstate(invalid="ignore", divide="ignore"):
        found_N = 10 * np.log10(np.maximum.reduceat(excess_F, first_N) / num_alive_N)
    found_N[is_silent_N & ~np.isnan(found_N)] = np.inf
    return np.where(np.isnan(np.maximum.reduceat(excess_F, first_N)), np.nan, found_N)


def _counted_within(counts_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """0, 1, ... within each stretch of so many."""
    first_N = np.cumsum(counts_N) - counts_N
    within: NDArray[np.int64] = np.arange(int(counts_N.sum())) - np.repeat(first_N, counts_N)
    return within
