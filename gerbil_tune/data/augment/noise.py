"""Noise of one event: white, with a power law, or of low frequencies; of its own on each microphone.

It is drawn for the event's own length, so that no padding changes it, and scaled by what was drawn, so that
a signal-to-noise ratio is met by every event rather than on average.

Letters: C microphones, T samples, F frequencies.
"""

import torch
from torch import Tensor

_TINY = 1e-30


def white_noise(shape_CT: tuple[int, int], generator: torch.Generator) -> Tensor:
    """White noise.

    Args:
        shape_CT: Microphones and samples.
        generator: Whose device it is drawn on.

    Returns:
        (C, T) float32, each microphone with mean 0 and variance 1; zeros where T is 1.
    """
    return _standardized(
        torch.empty(shape_CT, device=generator.device).normal_(generator=generator)
    )


def power_law_noise(
    shape_CT: tuple[int, int], exponent: float, generator: torch.Generator
) -> Tensor:
    """Noise whose power spectrum is proportional to 1 / frequency^exponent, otherwise as ``white_noise``."""
    number_F = _frequencies(shape_CT[1], generator.device)
    return _shaped(shape_CT, number_F.pow(-exponent / 2), generator)


def low_frequency_noise(
    shape_CT: tuple[int, int], cutoff_hz: float, sample_rate_hz: float, generator: torch.Generator
) -> Tensor:
    """Noise whose magnitude spectrum is proportional to exp(-frequency / cutoff), else as ``white_noise``.

    The lowest frequency is one period an event; where even that is far above the cutoff, it is a mere tone.
    """
    step_hz = sample_rate_hz / _period(shape_CT[1])
    number_F = _frequencies(shape_CT[1], generator.device)
    # Counted from the lowest frequency: the scale is arbitrary, and it must not underflow everywhere.
    return _shaped(shape_CT, torch.exp((1 - number_F) * (step_hz / cutoff_hz)), generator)


def _shaped(shape_CT: tuple[int, int], magnitude_F: Tensor, generator: torch.Generator) -> Tensor:
    """Noise with a magnitude spectrum: Gaussian Fourier coefficients, transformed, cut to length."""
    num_microphones, length = shape_CT
    parts_CF2 = torch.empty(num_microphones, len(magnitude_F), 2, device=generator.device)
    spectrum_CF = torch.view_as_complex(parts_CF2.normal_(generator=generator))
    spectrum_CF = spectrum_CF * magnitude_F
    spectrum_CF[:, 0] = 0
    return _standardized(torch.fft.irfft(spectrum_CF, n=_period(length))[:, :length])


def _frequencies(length: int, device: torch.device) -> Tensor:
    """Numbers of the frequencies of a period, (F,) float32; 1 in place of 0, which has no power anyway."""
    number_F = torch.arange(_period(length) // 2 + 1, device=device, dtype=torch.float32)
    return number_F.clamp_min(1)


def _period(length: int) -> int:
    """Samples of the transform for a length: at most an eighth more, and of small prime factors.

    The multiples of an eighth of a power of two: 8 to 15 times that power.
    """
    step = 1 << max(1, length.bit_length() - 4)
    return max(2, -(-length // step) * step)


def _standardized(noise_CT: Tensor) -> Tensor:
    """Scale each microphone to mean 0 and variance 1, in place."""
    noise_CT -= noise_CT.mean(1, keepdim=True)
    # The norm takes one pass and no memory, unlike the mean of squares.
    norm_C1 = torch.linalg.vector_norm(noise_CT, dim=1, keepdim=True)
    noise_CT *= noise_CT.shape[1] ** 0.5 / norm_C1.clamp_min(_TINY)
    return noise_CT
