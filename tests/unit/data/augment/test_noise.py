"""Letters: C microphones, T samples, F frequencies."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gerbil_tune.data.augment.noise import low_frequency_noise, power_law_noise, white_noise

RATE_HZ = 125_000.0
KINDS = {
    "white": white_noise,
    "pink": lambda shape, generator: power_law_noise(shape, 1.0, generator),
    "blue": lambda shape, generator: power_law_noise(shape, -1.0, generator),
    "black": lambda shape, generator: power_law_noise(shape, 3.0, generator),
    "low": lambda shape, generator: low_frequency_noise(shape, 2000.0, RATE_HZ, generator),
    "very low": lambda shape, generator: low_frequency_noise(shape, 0.1, RATE_HZ, generator),
}
by_kind = pytest.mark.parametrize("kind", KINDS)


def draw(kind, num_microphones, length, seed=0):
    noise = KINDS[kind]((num_microphones, length), torch.Generator().manual_seed(seed))
    assert noise.shape == (num_microphones, length)
    assert noise.dtype == torch.float32
    return noise


def mean_spectrum(noise_CT):
    """Frequencies and the mean power of all microphones."""
    length = noise_CT.shape[1]
    window_T = np.hanning(length)
    power_CF = np.abs(np.fft.rfft(noise_CT.numpy() * window_T)) ** 2
    return np.fft.rfftfreq(length, 1 / RATE_HZ), power_CF.mean(0)


@by_kind
@settings(deadline=None)
@given(
    length=st.integers(0, 300), num_microphones=st.integers(1, 5), seed=st.integers(0, 2**63 - 1)
)
def test_any_length_is_finite_with_mean_0_and_variance_1(kind, length, num_microphones, seed):
    noise_CT = draw(kind, num_microphones, length, seed)
    assert noise_CT.isfinite().all()
    if length == 1:
        assert not noise_CT.any()
    elif length > 16:
        torch.testing.assert_close(
            noise_CT.mean(1), torch.zeros(num_microphones), atol=1e-4, rtol=0
        )
        torch.testing.assert_close(
            noise_CT.square().mean(1), torch.ones(num_microphones), atol=1e-3, rtol=0
        )


@by_kind
@pytest.mark.parametrize("length", [4096, 5000, 8191])
def test_microphones_are_independent(kind, length):
    noise_CT = torch.cat([draw(kind, 6, length, seed) for seed in range(40)], dim=1)
    correlation = torch.corrcoef(noise_CT) - torch.eye(6)
    assert correlation.abs().max() < (0.05 if kind in ("white", "blue", "pink") else 0.5)


@by_kind
def test_the_generator_alone_decides(kind):
    assert torch.equal(draw(kind, 3, 1000, 7), draw(kind, 3, 1000, 7))
    assert not torch.equal(draw(kind, 3, 1000, 7), draw(kind, 3, 1000, 8))


@pytest.mark.parametrize("exponent", [-2.0, -1.0, 0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("length", [8192, 7001])
def test_the_slope_of_the_spectrum(exponent, length):
    shape = (64, length)
    noise_CT = power_law_noise(shape, exponent, torch.Generator().manual_seed(1))
    frequency_hz, power_F = mean_spectrum(noise_CT)
    inside = (frequency_hz > 500) & (frequency_hz < 0.48 * RATE_HZ)
    slope, _ = np.polyfit(np.log(frequency_hz[inside]), np.log(power_F[inside]), 1)
    assert slope == pytest.approx(-exponent, abs=0.1)


def test_white_noise_is_flat_and_gaussian():
    noise_CT = white_noise((64, 8192), torch.Generator().manual_seed(1))
    _, power_F = mean_spectrum(noise_CT)
    halves = [part.mean() for part in np.array_split(power_F[2:-2], 2)]
    assert halves[0] == pytest.approx(halves[1], rel=0.02)
    assert noise_CT.pow(4).mean().item() == pytest.approx(3.0, abs=0.05)


@pytest.mark.parametrize("cutoff_hz", [1000.0, 8000.0])
def test_low_frequencies_fall_off_exponentially(cutoff_hz):
    noise_CT = low_frequency_noise((64, 8192), cutoff_hz, RATE_HZ, torch.Generator().manual_seed(1))
    frequency_hz, power_F = mean_spectrum(noise_CT)
    inside = (frequency_hz > 100) & (frequency_hz < 4 * cutoff_hz)
    slope, _ = np.polyfit(frequency_hz[inside], np.log(power_F[inside]), 1)
    assert slope == pytest.approx(-2 / cutoff_hz, rel=0.05)
    below = power_F[frequency_hz < cutoff_hz].sum() / power_F.sum()
    assert below == pytest.approx(1 - np.exp(-2), abs=0.03)
