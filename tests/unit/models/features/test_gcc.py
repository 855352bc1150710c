"""Cross-correlation against numpy and closed forms. Letters: C microphones, T samples, P pairs, L lags."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gerbil_tune.config.features import GccConfig
from gerbil_tune.errors import ConfigError
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.features.gcc import GeneralizedCrossCorrelation, max_lag_samples
from gerbil_tune.models.features.spectra import fast_fft_length
from tests.unit.models.features.signals import delayed, noise

RATE_HZ = 50_000.0
ARENA_MM = (572.0, 356.0)


def make_setup(num_microphones=2, **facts):
    return RecordingSetup(num_microphones, RATE_HZ, ARENA_MM, **facts)


def make_gcc(num_microphones=2, *, max_lag=100, **config):
    """A correlation up to a lag in samples; all frequencies unless asked otherwise."""
    defaults = {"band_low_hz": 0.0, "max_lag_ms": (max_lag - 0.5) / RATE_HZ * 1000}
    return GeneralizedCrossCorrelation(
        GccConfig(**{**defaults, **config}), make_setup(num_microphones)
    )


def lag_of_peak(gcc, gcc_BPL):
    return gcc_BPL[0].argmax(-1) - gcc.max_lag


def windowed_correlation(gcc, audio_CT, first, second):
    """Sum over the module's windows of numpy's direct linear correlation."""
    length, hop = gcc.config.window_length, gcc.spectra.hop_length
    window = gcc.spectra.window_N.double().numpy()
    padded = np.pad(audio_CT.double().numpy(), ((0, 0), (length, 2 * length)))
    total = np.zeros(2 * length - 1)
    # The module's windows begin at multiples of the hop, counted from the event's first sample.
    for start in range(length % hop, padded.shape[1] - length + 1, hop):
        part = padded[:, start : start + length] * window
        total += np.correlate(part[first], part[second], "full")
    zero = length - 1
    return total[zero - gcc.max_lag : zero + gcc.max_lag + 1]


def unit_mean_square(correlations):
    return correlations / np.sqrt(np.mean(np.square(correlations)))


@pytest.mark.parametrize("exponent", [0.0, 0.75, 1.0])
@pytest.mark.parametrize("lag", [-73, -1, 0, 5, 88])
def test_peak_is_at_the_true_lag(exponent, lag):
    gcc = make_gcc(exponent=exponent)
    assert lag_of_peak(gcc, gcc(delayed([lag, 0]))).tolist() == [lag]


def test_microphone_that_hears_later_comes_first_gives_a_positive_lag():
    gcc_BPL = (gcc := make_gcc(3))(delayed([12, 0, 30]))
    assert lag_of_peak(gcc, gcc_BPL).tolist() == [12, -18, -30]  # pairs (0,1), (0,2), (1,2)


def top_of_parabola(gcc_L, place):
    """Where the parabola through a peak and its neighbours is highest, in samples from the peak."""
    before, peak, after = gcc_L[place - 1 : place + 2].tolist()
    return 0.5 * (before - after) / (before - 2 * peak + after)


@settings(max_examples=20, deadline=None)
@given(lag=st.floats(-90.0, 90.0), exponent=st.sampled_from([0.0, 0.75, 1.0]))
def test_fractional_lag_is_found_within_a_fifth_of_a_sample(lag, exponent):
    gcc = make_gcc(exponent=exponent)
    gcc_BPL = gcc(delayed([lag, 0.0]))
    place = lag_of_peak(gcc, gcc_BPL).item()
    found = place + top_of_parabola(gcc_BPL[0, 0], place + gcc.max_lag)
    assert found == pytest.approx(lag, abs=0.2)


def test_two_swapped_microphones_mirror_the_lags():
    gcc = make_gcc(exponent=0.75)
    audio_BCT = delayed([31.4, 0])
    torch.testing.assert_close(gcc(audio_BCT.flip(1)), gcc(audio_BCT).flip(2))


@pytest.mark.parametrize("exponent", [0.0, 1.0])
def test_reversed_microphones_mirror_pairs_and_lags(exponent):
    gcc = make_gcc(3, exponent=exponent, coherence_exponent=1.0)
    audio_BCT = noise(2, 3, 3000)
    torch.testing.assert_close(gcc(audio_BCT.flip(1)), gcc(audio_BCT).flip(1, 2))


def test_impulses_have_one_lag():
    """Exact for any window: one product is not zero."""
    gcc = make_gcc(exponent=0.0, max_lag=50)
    audio_BCT = torch.zeros(1, 2, 3000)
    audio_BCT[0, 0, 1017], audio_BCT[0, 1, 1000] = -2.0, 3.0
    expected_L = torch.zeros(101)
    expected_L[50 + 17] = -math.sqrt(101)
    torch.testing.assert_close(gcc(audio_BCT)[0, 0], expected_L, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("num_samples", [200, 1024, 5000])
def test_plain_correlation_is_numpys(num_samples):
    gcc = make_gcc(3, exponent=0.0, window_length=1024)
    audio_BCT = noise(1, 3, num_samples)
    expected_PL = unit_mean_square(
        np.stack(
            [windowed_correlation(gcc, audio_BCT[0], *pair) for pair in ((0, 1), (0, 2), (1, 2))]
        )
    )
    np.testing.assert_allclose(gcc(audio_BCT)[0], expected_PL, rtol=1e-3, atol=2e-4)


def test_burst_inside_one_window_is_numpys_correlation_of_the_windowed_burst():
    gcc = make_gcc(exponent=0.0, window_length=512)
    burst = torch.zeros(1, 2, 512)
    burst[..., 128:384] = noise(1, 2, 256)  # a quarter in: no other window reaches it
    windowed = (burst[0] * torch.hann_window(512)).double().numpy()
    full = np.correlate(windowed[0], windowed[1], "full")[511 - 100 : 511 + 101]
    np.testing.assert_allclose(gcc(burst)[0, 0], unit_mean_square(full), rtol=1e-3, atol=2e-4)


def circular(gcc, gcc_PL):
    """All lags of the transform in its own order, from a correlation as wide as the transform."""
    half = gcc.spectra.fft_length // 2
    assert gcc.max_lag >= half
    middle = gcc_PL[..., gcc.max_lag - half : gcc.max_lag + half]
    return torch.fft.ifftshift(middle, dim=-1).double()


def test_phat_has_a_flat_spectrum_inside_the_band_and_none_outside():
    gcc = make_gcc(
        exponent=1.0, window_length=256, max_lag=256, band_low_hz=5000.0, band_high_hz=15_000.0
    )
    coloured = torch.cumsum(noise(1, 2, 4000), dim=2)
    magnitude_F = torch.fft.rfft(circular(gcc, gcc(coloured)[0, 0])).abs()
    frequency_F = torch.fft.rfftfreq(gcc.spectra.fft_length, 1 / RATE_HZ)
    inside_F = (frequency_F >= 5000) & (frequency_F <= 15_000)
    level = magnitude_F[inside_F].mean()
    torch.testing.assert_close(magnitude_F, inside_F * level, rtol=1e-3, atol=1e-3 * level.item())


def test_exponent_lies_between_plain_and_phat():
    """The spectrum's magnitude is that of the plain one to the power 1 - exponent."""
    audio_BCT = noise(1, 2, 4000)
    audio_BCT[..., 1:] += 0.7 * audio_BCT[..., :-1]

    def spectrum(exponent):
        gcc = make_gcc(exponent=exponent, window_length=256, max_lag=256)
        magnitude_F = torch.fft.rfft(circular(gcc, gcc(audio_BCT)[0, 0])).abs()[1:-1]
        return magnitude_F / magnitude_F.mean()

    expected = spectrum(0.0).pow(0.4)
    torch.testing.assert_close(spectrum(0.6), expected / expected.mean(), rtol=1e-2, atol=1e-3)


def test_coherence_weight_mutes_a_band_of_independent_noise():
    """Below 12.5 kHz all microphones hear one source, above it each hears its own louder noise."""
    common, own = delayed([7, 0], 40_000), 5 * noise(1, 2, 40_000, seed=1)
    split = torch.fft.rfftfreq(40_000) < 0.25
    audio_BCT = torch.fft.irfft(
        torch.where(split, torch.fft.rfft(common), torch.fft.rfft(own)), n=40_000
    )

    def energy(coherence_exponent):
        gcc = make_gcc(
            exponent=1.0,
            coherence_exponent=coherence_exponent,
            window_length=256,
            max_lag=256,
        )
        magnitude_F = torch.fft.rfft(circular(gcc, gcc(audio_BCT)[0, 0])).abs()
        quarter = len(magnitude_F) // 2
        return (magnitude_F[quarter + 8 :].mean() / magnitude_F[: quarter - 8].mean()).item()

    assert energy(0.0) == pytest.approx(1.0, abs=0.01)
    assert energy(1.0) < 0.03
    assert energy(2.0) < energy(1.0)


def test_envelope_is_that_of_the_analytic_signal():
    from scipy.signal import hilbert

    gcc = make_gcc(3, exponent=0.5, envelope=True, window_length=256, max_lag=256)
    assert gcc.num_planes == 6
    gcc_BPL = gcc(noise(2, 3, 3000))
    assert gcc_BPL.shape == (2, 6, 513)
    waves, envelopes = gcc_BPL[:, :3], gcc_BPL[:, 3:]
    assert (envelopes >= waves.abs() - 1e-5).all()
    expected = np.abs(hilbert(circular(gcc, waves).numpy()))
    np.testing.assert_allclose(circular(gcc, envelopes), expected, rtol=1e-3, atol=1e-3)


def test_envelope_leaves_the_correlations_as_they_are():
    audio_BCT = noise(2, 3, 3000)
    with_envelope = make_gcc(3, envelope=True)(audio_BCT)[:, :3]
    torch.testing.assert_close(with_envelope, make_gcc(3)(audio_BCT))


def test_longer_transforms_do_not_change_the_lags():
    """Zero-padding beyond window and lags adds nothing to a linear correlation."""
    audio_BCT = noise(2, 2, 3000)
    middle = make_gcc(exponent=0.0, max_lag=40)(audio_BCT)
    wide = make_gcc(exponent=0.0, max_lag=700)
    cut = wide(audio_BCT)[..., wide.max_lag - 40 : wide.max_lag + 41]
    cut = cut / cut.square().mean((1, 2), keepdim=True).sqrt()
    torch.testing.assert_close(cut, middle, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("config", [{}, {"exponent": 1.0}, {"coherence_exponent": 1.0}])
@pytest.mark.parametrize("padding", [1, 700, 5000])
def test_padding_changes_nothing(config, padding):
    gcc = make_gcc(3, **config)
    audio_BCT = noise(2, 3, 3000)
    padded_BCT = torch.nn.functional.pad(audio_BCT, (0, padding))
    torch.testing.assert_close(gcc(padded_BCT), gcc(audio_BCT), rtol=1e-4, atol=1e-4)


@settings(max_examples=15, deadline=None)
@given(gain=st.floats(1e-4, 1e4), exponent=st.sampled_from([0.0, 0.75, 1.0]))
def test_loudness_and_polarity_do_not_matter(gain, exponent):
    gcc = make_gcc(exponent=exponent, coherence_exponent=1.0)
    audio_BCT = noise(2, 2, 2500)
    torch.testing.assert_close(gcc(-gain * audio_BCT), gcc(audio_BCT), rtol=1e-3, atol=1e-3)


def test_correlations_of_an_event_have_unit_mean_square():
    gcc_BPL = make_gcc(4)(noise(5, 4, 3000) * torch.logspace(-3, 3, 5)[:, None, None])
    torch.testing.assert_close(gcc_BPL.square().mean((1, 2)), torch.ones(5))


def test_silence_is_zero():
    assert not make_gcc(3, coherence_exponent=1.0, envelope=True)(torch.zeros(2, 3, 500)).any()


def test_shape_pairs_and_lags():
    gcc = make_gcc(4, max_lag=33)
    assert (gcc.max_lag, gcc.num_lags, gcc.num_planes) == (33, 67, 6)
    assert gcc(noise(2, 4, 500)).shape == (2, 6, 67)
    assert not list(gcc.parameters())
    assert not gcc.state_dict()  # a bundle holds no constants


def test_largest_lag_follows_from_the_geometry():
    diagonal_s = math.hypot(*ARENA_MM) / 343_200
    assert max_lag_samples(GccConfig(), make_setup()) == math.ceil(diagonal_s * 1.1 * RATE_HZ)
    near = ((0.0, 0.0, 0.0), (0.0, 100.0, 0.0))
    known = make_setup(microphones_mm=near)
    assert max_lag_samples(GccConfig(), known) == math.ceil(100 / 343_200 * 1.1 * RATE_HZ)
    assert max_lag_samples(GccConfig(max_lag_ms=2.0), known) == 100


@given(at_least=st.integers(2, 20_000))
def test_fast_length_has_small_factors_and_is_the_smallest(at_least):
    def is_fast(length):
        for prime in (2, 3, 5):
            while length % prime == 0:
                length //= prime
        return length == 1

    length = fast_fft_length(at_least)
    assert length >= at_least
    assert length % 2 == 0
    assert is_fast(length)
    assert not any(is_fast(n) for n in range(at_least + at_least % 2, length, 2))


def test_a_lag_that_is_not_kept_does_not_come_back_from_the_other_side():
    """In a circular correlation of 512 samples a lag of 450 would be one of -62."""
    audio_BCT = torch.zeros(1, 2, 3000)
    audio_BCT[0, 0, 1250], audio_BCT[0, 1, 800] = 1.0, 1.0  # in one window

    def highest(max_lag):
        spectra = make_gcc(exponent=0.0, window_length=512, max_lag=max_lag).spectra
        return spectra.lags(spectra(audio_BCT)).abs().max()

    assert highest(120) < 1e-6
    assert highest(460) > 1e-3


def test_one_microphone_is_refused():
    with pytest.raises(ConfigError, match="has 1 microphone; localization needs two"):
        make_gcc(1)
