"""Recorded calls from a folder of wav files."""

import functools
import math
import warnings
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import scipy.io.wavfile
import scipy.signal
from numpy.typing import NDArray

from gerbil_tune.errors import ConfigError

_LONGEST_S = 10.0
_SHORTEST_SAMPLES = 16
_LARGEST_FACTOR = 2000
"""Largest term of the resampling ratio; the pitch is then off by less than one in a million."""
_FADE_S = 5e-4


@dataclass(frozen=True)
class WavCalls:
    """The wav files of a folder in the order of their names.

    Attributes:
        paths: The files.
        lengths: Samples of each at the simulated sample rate.
    """

    paths: tuple[Path, ...]
    lengths: tuple[int, ...]


def find_wavs(folder: Path, sample_rate_hz: float) -> WavCalls:
    """List and check the wav files of a folder (not of its subfolders).

    Args:
        folder: Where to look; the suffix may be in any case.
        sample_rate_hz: The rate that the files will be resampled to.

    Raises:
        ConfigError: If there is none, or one cannot serve as a call.
    """
    if not folder.is_dir():
        raise ConfigError(f"the folder of wav files {folder} does not exist or is no folder")
    paths = tuple(sorted(path for path in folder.iterdir() if path.suffix.lower() == ".wav"))
    if not paths:
        raise ConfigError(f"folder {folder} holds no .wav file; name a folder of one call a file")
    # Reading all of them now finds a broken file before hours of work, and costs little.
    return WavCalls(paths, tuple(len(_read(path, sample_rate_hz)) for path in paths))


@functools.lru_cache(maxsize=64)
def read_wav(path: Path, sample_rate_hz: float) -> NDArray[np.float32]:
    """Read one call.

    Args:
        path: A wav file: PCM or floating point; of several channels the loudest is taken.
        sample_rate_hz: The rate to resample to.

    Returns:
        (T,) float32 without offset, full scale ±1, faded over half a millisecond at both ends. Read-only.

    Raises:
        ConfigError: If it cannot be read, is silent, not finite, too short or too long.
    """
    return _read(path, sample_rate_hz)


def _read(path: Path, sample_rate_hz: float) -> NDArray[np.float32]:
    try:
        with warnings.catch_warnings():
            # Chunks with recorder metadata are common and mean nothing here.
            warnings.simplefilter("ignore", scipy.io.wavfile.WavFileWarning)
            rate_hz, samples = scipy.io.wavfile.read(path)
    except (OSError, ValueError, EOFError) as error:
        raise ConfigError(f"wav file {path} cannot be read: {error}") from error
    if len(samples) > _LONGEST_S * rate_hz:
        raise ConfigError(
            f"wav file {path} is {len(samples) / rate_hz:.1f} s long, and a call may take"
            f" {_LONGEST_S:g} s; cut recordings into one call a file"
        )
    if len(samples) < _SHORTEST_SAMPLES:
        raise ConfigError(
            f"wav file {path} has {len(samples)} samples; a call needs {_SHORTEST_SAMPLES} or more"
        )
    call = _loudest_channel(_to_float(samples))
    if not np.isfinite(call).all() or not call.any():
        raise ConfigError(f"wav file {path} is silent or not finite; remove it from the folder")
    ratio = Fraction(sample_rate_hz / rate_hz).limit_denominator(_LARGEST_FACTOR)
    if ratio != 1:
        call = scipy.signal.resample_poly(call, ratio.numerator, ratio.denominator)
    fade = min(max(1, round(_FADE_S * sample_rate_hz)), len(call) // 2)
    ramp = 0.5 - 0.5 * np.cos(math.pi * np.arange(fade) / fade)
    call[:fade] *= ramp
    call[-fade:] *= ramp[::-1]
    result = call.astype(np.float32)
    result.flags.writeable = False
    return result


def _to_float(samples: NDArray[np.generic]) -> NDArray[np.float64]:
    """PCM to ±1 (unsigned 8-bit is centred at 128); floating point as it is."""
    values = samples.astype(np.float64)
    if samples.dtype == np.uint8:
        return (values - 128.0) / 128.0
    if np.issubdtype(samples.dtype, np.signedinteger):
        bits = 8 * samples.dtype.itemsize
        values /= 2.0 ** (bits - 1)
    return values


def _loudest_channel(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """(T,) or (T, channels) to (T,), its mean removed."""
    centred: NDArray[np.float64] = samples - samples.mean(axis=0)
    if centred.ndim == 1:
        return centred
    loudest: NDArray[np.float64] = centred[:, int(np.argmax((centred**2).sum(axis=0)))]
    return loudest
