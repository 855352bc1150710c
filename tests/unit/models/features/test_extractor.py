"""Letters: B batch, C microphones, T samples."""

import itertools

import pytest
import torch

from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.errors import ConfigError
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.features.extractor import FeatureExtractor
from tests.unit.models.features.signals import noise

CORNERS_MM = tuple((x, y, 100.0) for x in (-286.0, 286.0) for y in (-178.0, 178.0))
SETUP = RecordingSetup(4, 50_000.0, (572.0, 356.0), CORNERS_MM)
UNKNOWN = RecordingSetup(4, 50_000.0, (572.0, 356.0))
KINDS = ("waveform", "gcc", "maps")
SUBSETS = [frozenset(subset) for size in range(4) for subset in itertools.combinations(KINDS, size)]
LENGTHS_B = torch.tensor([700, 512])


def make_extractor(uses, setup=SETUP, scaling=None, **features):
    features = {"maps": {"cell_mm": 50.0}, **features}
    scaling = {"audio": scaling or {"kind": "event_zscore"}}
    config = ExperimentConfig(features=features, scaling=scaling)
    return FeatureExtractor(config, setup, frozenset(uses))


def make_audio():
    audio_BTC = noise(2, 700, 4)
    audio_BTC[1, 512:] = 0
    return audio_BTC


@pytest.mark.parametrize("uses", SUBSETS)
def test_features_that_are_used_have_the_shapes_that_are_stated(uses):
    extractor = make_extractor(
        uses,
        waveform={"phase": True, "envelope": True},
        gcc={"envelope": True},
        maps={"cell_mm": 50.0, "num_bands": 3, "heights_mm": [0.0, 40.0]},
    )
    features = extractor(make_audio(), LENGTHS_B)
    expected = extractor.shapes.empty(uses, num_events=2, num_samples=700)
    for name in ("waveform_BFT", "gcc_BPL", "maps_BFYX"):
        found, wanted = getattr(features, name), getattr(expected, name)
        assert (found is None) == (wanted is None)
        if found is not None:
            assert (found.shape, found.dtype) == (wanted.shape, torch.float32)
    assert torch.equal(features.lengths_B, LENGTHS_B)
    assert not extractor.state_dict()  # a bundle holds no constants


def test_shapes_do_not_depend_on_what_is_used():
    shapes = {make_extractor(uses).shapes for uses in SUBSETS}
    assert len(shapes) == 1
    (shape,) = shapes
    assert (shape.waveform_planes, shape.gcc_planes, shape.window_length) == (4, 6, 32768)
    assert (shape.map_planes, shape.map_shape) == (4, (8, 12))
    assert shape.map_extent_mm == (-286.0, 286.0, -178.0, 178.0)


def test_without_microphone_positions_there_are_no_maps():
    extractor = make_extractor({"waveform", "gcc"}, UNKNOWN)
    assert (extractor.shapes.map_planes, extractor.shapes.map_shape) == (0, (0, 0))
    assert extractor.shapes.map_extent_mm is None
    with pytest.raises(ConfigError, match="need the microphone positions"):
        make_extractor({"maps"}, UNKNOWN)


@pytest.mark.parametrize("uses", SUBSETS)
def test_each_feature_is_the_same_alone_and_with_the_others(uses):
    together = make_extractor(KINDS)(make_audio(), LENGTHS_B)
    alone = make_extractor(uses)(make_audio(), LENGTHS_B)
    for name in ("waveform_BFT", "gcc_BPL", "maps_BFYX"):
        if getattr(alone, name) is not None:
            torch.testing.assert_close(getattr(alone, name), getattr(together, name))


@pytest.mark.parametrize(
    ("kind", "uses", "expected"),
    [
        ("gain", KINDS, False),
        ("event_zscore", ("gcc", "maps"), False),
        ("event_zscore", ("waveform", "gcc"), True),
        ("channel_zscore", ("gcc",), True),
        ("channel_zscore", ("maps",), True),
    ],
)
def test_statistics_of_events_are_asked_for_where_they_count(kind, uses, expected):
    extractor = make_extractor(
        uses, scaling={"kind": kind}, maps={"cell_mm": 50.0, "exponent": 0.0}
    )
    assert extractor.uses_statistics == expected
    audio_BTC = make_audio() * torch.tensor([1.0, 2.0, 3.0, 4.0])
    plain = extractor(audio_BTC, LENGTHS_B)
    told = extractor(audio_BTC, LENGTHS_B, torch.full((2, 4), 0.5), torch.full((2, 4), 2.0))
    names = {"waveform": "waveform_BFT", "gcc": "gcc_BPL", "maps": "maps_BFYX"}
    changed = [
        not torch.allclose(getattr(plain, names[use]), getattr(told, names[use]), atol=1e-3)
        for use in uses
    ]
    assert any(changed) == expected


def test_waveform_is_the_scaled_audio():
    extractor = make_extractor({"waveform"}, scaling={"kind": "gain", "gain": 3.0})
    audio_BTC = make_audio()
    features = extractor(audio_BTC, LENGTHS_B)
    torch.testing.assert_close(features.waveform_BFT, 3.0 * audio_BTC.transpose(1, 2))


def test_an_offset_and_the_type_of_number_do_not_show_in_correlations_and_maps():
    extractor = make_extractor({"gcc", "maps"})
    audio_BTC = (1000 * make_audio()).round()
    expected = extractor(audio_BTC, LENGTHS_B)
    integers = extractor(audio_BTC.to(torch.int16), LENGTHS_B)
    offset_BTC = audio_BTC + 5000.0
    offset_BTC[1, 512:] = 0
    shifted = extractor(offset_BTC, LENGTHS_B)
    for found in (integers, shifted):
        torch.testing.assert_close(found.gcc_BPL, expected.gcc_BPL, rtol=1e-2, atol=1e-2)
        torch.testing.assert_close(found.maps_BFYX, expected.maps_BFYX, rtol=1e-2, atol=1e-2)


def test_audio_is_overwritten_only_if_it_may_be():
    audio_BTC = make_audio()
    kept = audio_BTC.clone()
    extractor = make_extractor(KINDS)
    expected = extractor(audio_BTC, LENGTHS_B)
    assert torch.equal(audio_BTC, kept)
    found = extractor(audio_BTC, LENGTHS_B, may_overwrite=True)
    torch.testing.assert_close(found.waveform_BFT, expected.waveform_BFT)
    torch.testing.assert_close(found.gcc_BPL, expected.gcc_BPL)
