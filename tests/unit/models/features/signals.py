"""Sounds whose features are known. Letters: C microphones, T samples."""

import math

import torch

from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.units import distance_to_delay_s

_SPARE = 200  # samples before and after, for sounds that are moved in a circle


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def delayed(delays, num_samples: int = 6000, seed: int = 0) -> torch.Tensor:
    """The same noise at each microphone, later by its delay in samples: (1, C, T); fractions allowed."""
    source = noise(num_samples + 2 * _SPARE, seed=seed).double()
    spectrum = torch.fft.rfft(source)
    frequency = torch.arange(len(spectrum)) / len(source)
    rows = [
        torch.fft.irfft(spectrum * torch.exp(-2j * math.pi * frequency * delay), n=len(source))
        for delay in delays
    ]
    return torch.stack(rows)[None, :, _SPARE : _SPARE + num_samples].float()


def noise_from(place_mm, setup: RecordingSetup, num_samples: int = 4000, seed: int = 1):
    """Noise at a place (x, y, z), at each microphone after its way through the air: (1, C, T)."""
    assert setup.microphones_mm is not None
    ways_mm = [math.dist(place_mm, microphone) for microphone in setup.microphones_mm]
    nearest_mm = min(ways_mm)
    return delayed(
        [distance_to_delay_s(way - nearest_mm) * setup.sample_rate_hz for way in ways_mm],
        num_samples,
        seed,
    )
