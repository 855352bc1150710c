"""Letters: B batch, C microphones, T samples, F planes."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import hilbert

from gerbil_tune.config.features import WaveformConfig
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.features.waveform import WaveformChannels, waveform_planes
from tests.unit.models.features.signals import noise

RATE_HZ = 50_000.0
EVERYTHING = dict.fromkeys(("raw", "quadrature", "envelope", "phase", "log_power"), True)
REACH = 127  # samples to either side that a quadrature depends on


def make_channels(num_microphones=2, **config):
    setup = RecordingSetup(num_microphones, RATE_HZ, (572.0, 356.0))
    return WaveformChannels(WaveformConfig(**{"raw": False, **config}), setup)


def whole(audio_BCT):
    return torch.full((len(audio_BCT),), audio_BCT.shape[2])


def band_limited(*shape, low=0.03, high=0.47, seed=0):
    """Noise without the frequencies near 0 and half the sample rate."""
    spectrum = torch.fft.rfft(noise(*shape, seed=seed).double())
    frequency = torch.fft.rfftfreq(shape[-1])
    return torch.fft.irfft(spectrum * ((frequency > low) & (frequency < high)), n=shape[-1])


def test_quadrature_and_envelope_are_those_of_scipys_analytic_signal():
    audio_BCT = band_limited(2, 3, 6000)
    analytic = hilbert(audio_BCT.numpy())[..., REACH:-REACH]
    planes_BFT = make_channels(3, quadrature=True, envelope=True)(
        audio_BCT.float(), whole(audio_BCT)
    )
    quadrature, envelope = planes_BFT[..., REACH:-REACH].split(3, dim=1)
    np.testing.assert_allclose(quadrature, analytic.imag, atol=0.01)
    np.testing.assert_allclose(envelope, np.abs(analytic), atol=0.01)


@pytest.mark.parametrize("frequency", [0.01, 0.1, 0.25, 0.49])
def test_a_tone_has_a_flat_envelope_and_a_phase_that_turns(frequency):
    angle_T = 2 * math.pi * frequency * torch.arange(3000, dtype=torch.float64) + 0.3
    audio_BCT = (2.5 * angle_T.cos()).float().expand(1, 1, -1)
    planes_BFT = make_channels(1, envelope=True, phase=True)(audio_BCT, whole(audio_BCT))
    envelope, cosine, sine = planes_BFT[0, :, REACH:-REACH].double()
    inside_T = angle_T[REACH:-REACH]
    torch.testing.assert_close(envelope, torch.full_like(envelope, 2.5), rtol=0.01, atol=0)
    torch.testing.assert_close(cosine, inside_T.cos(), rtol=0, atol=0.01)
    torch.testing.assert_close(sine, inside_T.sin(), rtol=0, atol=0.01)


def test_planes_come_kind_by_kind_each_of_all_microphones():
    audio_BCT = noise(2, 3, 900)
    together = make_channels(3, **EVERYTHING)(audio_BCT, whole(audio_BCT))
    alone = [make_channels(3, **{kind: True})(audio_BCT, whole(audio_BCT)) for kind in EVERYTHING]
    assert together.shape == (2, 18, 900)
    assert torch.equal(together, torch.cat(alone, dim=1))
    assert torch.equal(together[:, :3], audio_BCT)
    cosine, sine = alone[3].split(3, dim=1)
    envelope = alone[2]
    torch.testing.assert_close(envelope * cosine, audio_BCT)
    torch.testing.assert_close(envelope * sine, alone[1])


@given(kinds=st.sets(st.sampled_from(list(EVERYTHING)), min_size=1))
@settings(max_examples=15, deadline=None)
def test_number_of_planes(kinds):
    channels = make_channels(3, **dict.fromkeys(kinds, True))
    planes_BFT = channels(noise(1, 3, 200), torch.tensor([200]))
    assert planes_BFT.shape[1] == channels.num_planes == 3 * waveform_planes(channels.config)
    assert not channels.state_dict()  # a bundle holds no constants


@pytest.mark.parametrize("padding", [1, 700, 5000])
def test_padding_and_company_change_nothing(padding):
    """An event gives the same numbers alone and in a batch of longer ones."""
    channels = make_channels(2, **EVERYTHING)
    event_BCT = noise(1, 2, 2600)
    batch_BCT = noise(3, 2, 2600 + padding, seed=1)
    batch_BCT[1] = torch.nn.functional.pad(event_BCT[0], (0, padding))
    lengths_B = torch.tensor([2600 + padding, 2600, 2600 + padding])
    found = channels(batch_BCT, lengths_B)[1]
    torch.testing.assert_close(
        found[:, :2600], channels(event_BCT, whole(event_BCT))[0], rtol=1e-5, atol=1e-5
    )
    assert not found[:, 2600:].any()


@pytest.mark.parametrize("level", [0.0, 1e-38, 1e-20, 1e15])
def test_silence_and_extremes_are_finite_and_silence_is_zero(level):
    channels = make_channels(2, **EVERYTHING)
    audio_BCT = level * noise(1, 2, 500)
    audio_BCT[..., 300:] = 0
    planes_BFT = channels(audio_BCT, torch.tensor([500]))
    assert planes_BFT.isfinite().all()
    assert planes_BFT[:, 4 + 2 : 4 + 6].abs().max() <= 1 + 1e-5  # cosines and sines
    assert level or not planes_BFT.any()


@pytest.mark.parametrize(("window_ms", "half"), [(0.01, 0), (0.1, 2), (1.0, 25)])
def test_log_power_is_that_of_a_centred_window_inside_the_event(window_ms, half):
    channels = make_channels(2, log_power=True, log_power_window_ms=window_ms)
    audio_BCT = noise(2, 2, 400) * torch.logspace(-3, 1, 400)
    lengths_B = torch.tensor([400, 250])
    audio_BCT[1, :, 250:] = 0
    found = channels(audio_BCT, lengths_B)
    for event, length in enumerate(lengths_B.tolist()):
        power_CT = audio_BCT[event].double().square()
        for t in range(length):
            mean_C = power_CT[:, max(0, t - half) : min(length, t + half + 1)].mean(1)
            expected = torch.log1p(mean_C / 1e-4) / math.log(1e4)
            torch.testing.assert_close(found[event, :, t].double(), expected, rtol=1e-4, atol=1e-5)
    assert not found[1, :, 250:].any()


def test_log_power_of_unit_power_is_one():
    channels = make_channels(1, log_power=True)
    planes = channels(torch.ones(1, 1, 100), torch.tensor([100]))
    torch.testing.assert_close(planes, torch.ones_like(planes), rtol=0, atol=1e-4)
