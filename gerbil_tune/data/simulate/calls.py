"""Synthetic rodent calls: frequency sweeps, harmonic stacks and noisy calls."""

import math

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from gerbil_tune.data.simulate.rooms import HIGHEST_PART_OF_RATE

Call = NDArray[np.float32]

_KINDS = ("sweep", "stack", "noisy")
_KIND_PROBABILITIES = (0.45, 0.35, 0.2)
_STACK_OCTAVES = 2.0
"""Fundamentals of harmonic stacks stay within the lowest octaves of the range, as in gerbils."""


def draw_log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """One draw whose logarithm is uniform between the logarithms of ``low`` and ``high``."""
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def synthesize_call(
    rng: np.random.Generator,
    num_samples: int,
    sample_rate_hz: float,
    fundamental_hz: tuple[float, float],
) -> Call:
    """Make one random call.

    Args:
        rng: Where all randomness comes from.
        num_samples: Length.
        sample_rate_hz: Samples a second; nothing sounds above ``HIGHEST_PART_OF_RATE`` of it.
        fundamental_hz: Lowest and highest fundamental (or centre frequency of a noisy call), in Hz.

    Returns:
        (num_samples,) float32 that starts and ends at zero, with a largest absolute value of one.
    """
    low_hz = fundamental_hz[0]
    high_hz = min(fundamental_hz[1], HIGHEST_PART_OF_RATE * sample_rate_hz)
    kind = _KINDS[rng.choice(len(_KINDS), p=_KIND_PROBABILITIES)]
    if kind == "noisy":
        call = _band_noise(rng, num_samples, sample_rate_hz, low_hz, high_hz)
    else:
        if kind == "stack":
            high_hz = min(high_hz, low_hz * 2**_STACK_OCTAVES)
            num_harmonics, decay = int(rng.integers(4, 13)), rng.uniform(0.6, 0.95)
        else:
            num_harmonics, decay = int(rng.integers(1, 4)), rng.uniform(0.1, 0.5)
        frequency_hz = _frequency_course(rng, num_samples, sample_rate_hz, low_hz, high_hz)
        call = _harmonics(rng, frequency_hz, sample_rate_hz, num_harmonics, decay)
    call *= _envelope(rng, num_samples, sample_rate_hz)
    call /= np.abs(call).max()
    return call.astype(np.float32)


def _frequency_course(
    rng: np.random.Generator,
    num_samples: int,
    sample_rate_hz: float,
    low_hz: float,
    high_hz: float,
) -> NDArray[np.float64]:
    """A smooth course of the fundamental, in Hz: slope, bow and vibrato in octaves."""
    start_hz = draw_log_uniform(rng, low_hz, high_hz)
    slope, bow = rng.uniform(-1.0, 1.0), rng.uniform(-0.4, 0.4)
    vibrato, vibrato_hz, phase = (
        rng.uniform(0.0, 0.08),
        rng.uniform(8.0, 40.0),
        rng.uniform(0, 2 * math.pi),
    )
    part = np.linspace(0.0, 1.0, num_samples)
    seconds = np.arange(num_samples) / sample_rate_hz
    octaves = slope * part + bow * 4 * part * (1 - part)
    octaves += vibrato * np.sin(2 * math.pi * vibrato_hz * seconds + phase)
    return np.clip(start_hz * np.exp2(octaves), low_hz, high_hz)


def _harmonics(
    rng: np.random.Generator,
    frequency_hz: NDArray[np.float64],
    sample_rate_hz: float,
    num_harmonics: int,
    decay: float,
) -> NDArray[np.float64]:
    """Sum of sines at multiples of the course, faded out towards the highest frequency."""
    phase = np.cumsum(frequency_hz) * (2 * math.pi / sample_rate_hz) + rng.uniform(0, 2 * math.pi)
    # sin(k p) = 2 cos(p) sin((k-1) p) - sin((k-2) p) costs one sine and one cosine for all harmonics.
    double_cosine = 2 * np.cos(phase)
    before, sine = np.zeros_like(phase), np.sin(phase)
    limit_hz, fade_hz = HIGHEST_PART_OF_RATE * sample_rate_hz, 0.03 * sample_rate_hz
    lowest_hz = float(frequency_hz.min())
    total = np.zeros_like(phase)
    for harmonic in range(1, num_harmonics + 1):
        if harmonic > 1 and harmonic * lowest_hz >= limit_hz:
            break
        weight = decay ** (harmonic - 1) * rng.uniform(0.5, 1.0)
        if harmonic == 1:  # The course itself respects the limit.
            total += weight * sine
        else:
            fade = np.clip((limit_hz - harmonic * frequency_hz) / fade_hz, 0.0, 1.0)
            total += weight * fade * sine
        before, sine = sine, double_cosine * sine - before
    return total


def _band_noise(
    rng: np.random.Generator,
    num_samples: int,
    sample_rate_hz: float,
    low_hz: float,
    high_hz: float,
) -> NDArray[np.float64]:
    """Gaussian noise with a bell-shaped spectrum on the octave scale."""
    centre_hz, width_octaves = draw_log_uniform(rng, low_hz, high_hz), rng.uniform(0.2, 0.8)
    length = int(scipy.fft.next_fast_len(num_samples, real=True))
    frequency_hz = scipy.fft.rfftfreq(length, 1 / sample_rate_hz)
    frequency_hz[0] = frequency_hz[1]
    octaves = np.log2(frequency_hz / centre_hz)
    spectrum = np.exp(-0.5 * (octaves / width_octaves) ** 2)
    limit_hz, fade_hz = HIGHEST_PART_OF_RATE * sample_rate_hz, 0.03 * sample_rate_hz
    spectrum *= np.clip((limit_hz - frequency_hz) / fade_hz, 0.0, 1.0)
    spectrum[0] = 0.0
    phases = rng.standard_normal((2, len(spectrum)))
    noise: NDArray[np.float64] = scipy.fft.irfft(spectrum * (phases[0] + 1j * phases[1]), length)
    return noise[:num_samples]


def _envelope(
    rng: np.random.Generator, num_samples: int, sample_rate_hz: float
) -> NDArray[np.float64]:
    """Raised-cosine rise and fall with a slow tremor between them."""
    rise, fall = (max(2, int(rng.uniform(0.05, 0.3) * num_samples)) for _ in range(2))
    envelope = np.ones(num_samples)
    envelope[:rise] *= 0.5 - 0.5 * np.cos(math.pi * np.arange(rise) / rise)[:num_samples]
    envelope[-fall:] *= (0.5 - 0.5 * np.cos(math.pi * np.arange(fall) / fall))[:num_samples][::-1]
    depth, tremor_hz, phase = (
        rng.uniform(0.0, 0.5),
        rng.uniform(5.0, 50.0),
        rng.uniform(0, 2 * math.pi),
    )
    seconds = np.arange(num_samples) / sample_rate_hz
    tremor: NDArray[np.float64] = 1 + depth * np.sin(2 * math.pi * tremor_hz * seconds + phase)
    return envelope * tremor
