"""Spectrograms and levels of single events, for pictures.

Legend: C microphones, T samples, F frequencies, M columns of a picture.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

_WINDOW_S = 0.004
_WINDOW_SAMPLES = 512
_SHORTEST_WINDOW = 32
_MAX_FRAMES = 4096
_CONTRAST_DB = (25.0, 70.0)
"""Least and greatest span of the colours."""
_QUIET = 0.5
"""Share of a spectrogram that is shown as background."""
_NOTHING_DB = -300.0
_LARGEST = 1e15
"""Of audio that is shown; the power of more may be beyond float32."""

FloatArray = npt.NDArray[np.float32]


def window_length(sample_rate_hz: float | None, num_samples: int) -> int:
    """Samples of a window: a power of two of about 4 ms, and at most a quarter of the event.

    Args:
        sample_rate_hz: None where it is not known; then 512 samples.
        num_samples: Of the event.
    """
    wanted = _WINDOW_SAMPLES if sample_rate_hz is None else _WINDOW_S * sample_rate_hz
    power = round(math.log2(max(wanted, _SHORTEST_WINDOW)))
    return int(2 ** min(power, math.floor(math.log2(max(num_samples / 4, _SHORTEST_WINDOW)))))


def spectrograms_db(
    audio_TC: npt.NDArray[Any], window: int, num_columns: int, num_rows: int | None = None
) -> FloatArray:
    """Power spectral density of each microphone over time.

    A column is the loudest of the windows in its stretch of time, which overlap by half, so that a short
    call is seen in a long event; a row likewise of its frequencies. Of more than 4096 windows so many are
    taken, evenly spread.

    Args:
        audio_TC: One event, in any number type. What is not finite counts as 0.
        window: Samples of a Hann window, even.
        num_columns: M, over the whole event from its first sample to its last.
        num_rows: F, from 0 to half the sample rate; default: window/2 + 1. Rows repeat where there are more
            than frequencies.

    Returns:
        (C, F, M) in dB of an arbitrary unit, -300 where there is nothing.
    """
    num_samples = len(audio_TC)
    in_column = math.ceil(num_samples / num_columns / (window / 2))
    in_column = max(1, min(in_column, _MAX_FRAMES // num_columns))
    num_frames = num_columns * in_column
    starts = ((np.arange(num_frames) + 0.5) * num_samples / num_frames).astype(np.int64)
    hann = np.hanning(window + 1)[:-1].astype(np.float32)
    num_bins = window // 2 + 1
    num_rows = num_bins if num_rows is None else num_rows
    edges = np.arange(num_rows) * num_bins // num_rows
    power_CFM = np.empty((audio_TC.shape[1], num_rows, num_columns), np.float32)
    for channel, power_FM in enumerate(power_CFM):
        padded = np.pad(centred(audio_TC[:, channel]), window // 2)
        frames = np.lib.stride_tricks.sliding_window_view(padded, window)[starts] * hann
        spectrum = np.fft.rfft(frames)
        loudest = (spectrum.real**2 + spectrum.imag**2).reshape(num_columns, in_column, -1).max(1)
        power_FM[:] = np.maximum.reduceat(loudest, edges, axis=1).T
    return np.asarray(10 * np.log10(power_CFM + 10 ** (_NOTHING_DB / 10)), dtype=np.float32)


def colour_range_db(power_db: npt.NDArray[np.floating[Any]]) -> tuple[float, float]:
    """Ends of a colour scale: from what is background to the loudest; of silence all is background."""
    top = float(power_db.max())
    least, greatest = _CONTRAST_DB
    if top < _NOTHING_DB + 1.0:
        return top, top + least
    return min(max(float(np.quantile(power_db, _QUIET)), top - greatest), top - least), top


def level_db(audio_TC: npt.NDArray[Any]) -> float:
    """Mean power over all microphones, their offsets removed, in dB.

    0 dB is a mean square of 1; for audio of integers 1 is full scale. Silence has -inf, and NaN tells of
    audio that is not finite.
    """
    scale = 1.0
    if audio_TC.dtype.kind == "i":
        scale = float(np.iinfo(audio_TC.dtype).max) + 1.0
    if audio_TC.size == 0:
        return -math.inf
    with np.errstate(over="ignore", invalid="ignore"):
        variances = [float(np.var(channel, dtype=np.float64)) for channel in audio_TC.T]
    power = sum(variances) / len(variances) / scale**2
    if not math.isfinite(power):
        return math.nan
    return 10 * math.log10(power) if power > 0 else -math.inf


def level_text(level: float, dtype: np.dtype[Any]) -> str:
    """A level for people: ``-31.5 dB re full scale``."""
    if math.isnan(level):
        return "not finite"
    if level == -math.inf:
        return "silent"
    reference = "full scale" if dtype.kind == "i" else "1"
    return f"{level:.1f} dB re {reference}".replace("-", "\N{MINUS SIGN}")


def centred(audio_T: npt.NDArray[Any]) -> FloatArray:
    """One channel as float32 without offset; what is not finite becomes 0."""
    values = np.nan_to_num(audio_T.astype(np.float64), posinf=0.0, neginf=0.0)
    values = values.clip(-_LARGEST, _LARGEST)
    mean = values.mean() if len(values) else 0.0
    return np.asarray(values - mean, dtype=np.float32)
