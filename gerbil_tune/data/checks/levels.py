"""How loud events and microphones are, and which of them are silent.

Legend: N events looked at, C microphones.
"""

import numpy as np

from gerbil_tune.data.checks.audio_scan import AudioScan
from gerbil_tune.data.checks.findings import MOSTLY, BoolArray, FloatArray


def find_levels_db(scan: AudioScan) -> FloatArray:
    """Root mean square without the mean, float64 (N, C), in dB re 1 of the file's unit.

    -inf for a constant channel, NaN for all channels of an event that is not finite or has one sample.
    """
    is_known_NC = scan.finite_N[:, None] & ((scan.sd_NC > 0) | scan.constant_NC)
    with np.errstate(divide="ignore"):
        return np.where(is_known_NC, 20 * np.log10(scan.sd_NC), np.nan)


def find_event_levels_db(scan: AudioScan) -> FloatArray:
    """Level of the median microphone of each event (N,); of an even number the louder middle one."""
    levels_NC_db = np.sort(find_levels_db(scan), axis=1)
    return np.asarray(levels_NC_db[:, levels_NC_db.shape[1] // 2])


def compare_with_median_db(scan: AudioScan) -> FloatArray:
    """Level of each event re that of the median event, (N,); -inf where most channels are constant."""
    levels_N_db = find_event_levels_db(scan)
    known = levels_N_db[np.isfinite(levels_N_db)]
    return levels_N_db - (np.median(known) if len(known) else 0.0)


def compare_with_event_db(scan: AudioScan) -> FloatArray:
    """Level of each channel re that of its event, float64 (N, C).

    -inf where the channel is constant, NaN for all channels of an event that is silent or not finite.
    """
    is_usable_N1 = scan.sounding_N[:, None]
    levels_NC_db = np.where(is_usable_N1, find_levels_db(scan), np.nan)
    with np.errstate(invalid="ignore"):
        relative_NC_db = levels_NC_db - find_event_levels_db(scan)[:, None]
    # In an event of which most channels are constant the others are no measure.
    return np.where(np.isneginf(levels_NC_db), -np.inf, relative_NC_db)


def find_dead(scan: AudioScan, max_below_db: float) -> tuple[BoolArray, BoolArray]:
    """Find microphones that are silent in events in which others are not.

    Args:
        scan: Of the events.
        max_below_db: How far a microphone may be below the median microphone of its event.

    Returns:
        Which channel of which event is silent, (N, C), and which channel is so in most of them, (C,): that is
        a fault of the recording site, and not of single events.
    """
    is_dead_NC = np.asarray(compare_with_event_db(scan) < -max_below_db)
    return is_dead_NC, np.asarray(is_dead_NC.sum(axis=0) > MOSTLY * scan.sounding_N.sum())
