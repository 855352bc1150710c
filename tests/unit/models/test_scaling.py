"""Letters: B batch, C microphones, T samples."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gerbil_tune.config.schema import (
    AudioGain,
    ChannelZScore,
    EventZScore,
    LocationGain,
    LocationIsotropic,
    LocationPerAxis,
)
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models import scaling as scaling_module
from gerbil_tune.models.scaling import (
    LocationScale,
    measure,
    pcm_to_float,
    time_mask,
)

LENGTHS = torch.tensor([50, 200, 7])


def scale_audio(audio_BCT, lengths_B, scaling, statistics=None):
    """``scaling.scale_audio`` with channels before samples, as everything after it has them."""
    audio_BTC = audio_BCT.transpose(1, 2).contiguous()
    scaled_BTC = scaling_module.scale_audio(audio_BTC, lengths_B, scaling, statistics)
    return scaled_BTC.transpose(1, 2)


def padded_noise(lengths_B=LENGTHS, num_samples=200, num_microphones=3):
    generator = torch.Generator().manual_seed(0)
    audio_BCT = torch.randn(len(lengths_B), num_microphones, num_samples, generator=generator)
    loudness_C = 10.0 ** torch.arange(num_microphones)
    audio_BCT = audio_BCT * loudness_C[:, None] + 5.0
    return audio_BCT * time_mask(lengths_B, num_samples)


@pytest.mark.parametrize(
    ("dtype", "full_scale"), [(torch.int8, 2**7), (torch.int16, 2**15), (torch.int32, 2**31)]
)
def test_full_scale_pcm_is_one(dtype, full_scale):
    limits = torch.iinfo(dtype)
    audio = torch.tensor([limits.min, 0, limits.max // 2 + 1], dtype=dtype)
    assert pcm_to_float(audio).tolist() == [-1.0, 0.0, 0.5]
    assert limits.min == -full_scale


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_float_audio_keeps_its_values(dtype):
    audio = torch.tensor([-3.5, 0.0, 1000.0], dtype=dtype)
    result = pcm_to_float(audio)
    assert result.dtype == torch.float32
    assert result.tolist() == [-3.5, 0.0, 1000.0]


def test_time_mask():
    mask_B1T = time_mask(torch.tensor([0, 2, 3]), 3)
    assert mask_B1T.shape == (3, 1, 3)
    assert mask_B1T[:, 0].tolist() == [[0, 0, 0], [1, 1, 0], [1, 1, 1]]


def test_gain_multiplies():
    audio_BCT = padded_noise()
    scaled = scale_audio(audio_BCT, LENGTHS, AudioGain(gain=250.0))
    torch.testing.assert_close(scaled, audio_BCT * 250.0)


def test_event_z_score_is_numpys_over_all_channels_of_the_event_alone():
    audio_BCT = padded_noise()
    scaled = scale_audio(audio_BCT, LENGTHS, EventZScore())
    for audio_CT, result_CT, length in zip(audio_BCT, scaled, LENGTHS.tolist(), strict=True):
        inside = audio_CT[:, :length].double().numpy()
        expected = (inside - inside.mean()) / inside.std()
        np.testing.assert_allclose(result_CT[:, :length], expected, rtol=1e-4, atol=1e-5)
        assert not result_CT[:, length:].any()


@pytest.mark.parametrize("scaling", [EventZScore(), ChannelZScore()])
def test_z_scores_of_a_crop_by_the_statistics_of_its_whole_event(scaling):
    whole_BCT = padded_noise()
    scaled = scale_audio(whole_BCT, LENGTHS, scaling)
    crop_lengths = torch.tensor([20, 20, 7])
    crop_BCT = whole_BCT[:, :, :20] * time_mask(crop_lengths, 20)
    by_whole = scale_audio(
        crop_BCT, crop_lengths, scaling, measure(whole_BCT.transpose(1, 2), LENGTHS)
    )
    expected = scaled[:, :, :20] * time_mask(crop_lengths, 20)
    torch.testing.assert_close(by_whole, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scaling", [EventZScore(), ChannelZScore()])
@pytest.mark.parametrize("dtype", [torch.float32, torch.int16])
def test_audio_is_overwritten_only_where_it_may_be(scaling, dtype):
    audio_BTC = (padded_noise() * 100).transpose(1, 2).contiguous().to(dtype)
    original_BTC = audio_BTC.clone()
    kept = scaling_module.scale_audio(audio_BTC, LENGTHS, scaling)
    assert torch.equal(audio_BTC, original_BTC)
    reused = scaling_module.scale_audio(audio_BTC, LENGTHS, scaling, may_overwrite=True)
    assert torch.equal(reused, kept)
    assert (reused.data_ptr() == audio_BTC.data_ptr()) == (dtype == torch.float32)


def test_channel_z_score_is_numpys_over_each_channel():
    audio_BCT = padded_noise()
    scaled = scale_audio(audio_BCT, LENGTHS, ChannelZScore())
    for audio_CT, result_CT, length in zip(audio_BCT, scaled, LENGTHS.tolist(), strict=True):
        inside = audio_CT[:, :length].double().numpy()
        expected = (inside - inside.mean(1, keepdims=True)) / inside.std(1, keepdims=True)
        np.testing.assert_allclose(result_CT[:, :length], expected, rtol=1e-4, atol=1e-4)
        assert not result_CT[:, length:].any()


@pytest.mark.parametrize("scaling", [EventZScore(), ChannelZScore()])
@settings(max_examples=15, deadline=None)
@given(gain=st.floats(1e-6, 1e6))
def test_z_scores_do_not_depend_on_loudness(scaling, gain):
    audio_BCT = padded_noise()
    torch.testing.assert_close(
        scale_audio(gain * audio_BCT, LENGTHS, scaling),
        scale_audio(audio_BCT, LENGTHS, scaling),
        rtol=1e-3,
        atol=1e-3,
    )


@pytest.mark.parametrize("scaling", [AudioGain(), EventZScore(), ChannelZScore()])
@pytest.mark.parametrize("lengths", [[0, 0], [1, 1], [4, 4]])
def test_silent_constant_and_empty_events_are_finite(scaling, lengths):
    lengths_B = torch.tensor(lengths)
    audio_BCT = torch.zeros(2, 3, 4)
    audio_BCT[1] = 0.25
    scaled = scale_audio(audio_BCT * time_mask(lengths_B, 4), lengths_B, scaling)
    assert scaled.isfinite().all()
    assert not scaled[0].any()


@pytest.mark.parametrize(
    ("scaling", "mm_per_unit"),
    [
        (LocationGain(gain=0.01), [100.0, 100.0, 100.0]),
        (LocationIsotropic(), [286.0, 286.0, 286.0]),
        (LocationPerAxis(), [286.0, 178.0, 150.0]),
    ],
)
@pytest.mark.parametrize("num_axes", [2, 3])
def test_millimetres_of_a_network_unit(scaling, mm_per_unit, num_axes):
    setup = RecordingSetup(4, 1.0, (572.0, 356.0, 300.0)[:num_axes], num_axes=num_axes)
    scale = LocationScale(scaling, setup)
    torch.testing.assert_close(scale.mm_per_unit_D, torch.tensor(mm_per_unit[:num_axes]))
    assert not scale.state_dict()


@pytest.mark.parametrize("scaling", [LocationIsotropic(), LocationPerAxis()])
def test_an_arena_without_height_gives_z_the_longest_width(scaling):
    setup = RecordingSetup(4, 1.0, (572.0, 356.0), num_axes=3)
    assert LocationScale(scaling, setup).mm_per_unit_D[2] == 286.0


def test_the_height_of_the_arena_does_not_matter_to_locations_in_the_plane():
    setup = RecordingSetup(4, 1.0, (572.0, 356.0, 3000.0), num_axes=2)
    scale = LocationScale(LocationIsotropic(), setup)
    torch.testing.assert_close(scale.mm_per_unit_D, torch.tensor([286.0, 286.0]))
