"""Letters: B batch, C microphones, T samples, F planes, P pairs, L lags, K keypoints, D axes."""

import pytest
import torch

from gerbil_tune.config.features import GccConfig, MapsConfig, WaveformConfig
from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.errors import ConfigError
from gerbil_tune.geometry import RecordingSetup, mirror_permutation
from gerbil_tune.models.features.extractor import FeatureExtractor
from gerbil_tune.models.features.features import Features
from gerbil_tune.models.features.gcc import GeneralizedCrossCorrelation
from gerbil_tune.models.features.maps import SteeredResponse
from gerbil_tune.models.features.waveform import WaveformChannels
from gerbil_tune.models.mirroring import Mirror, MirrorAugmentation
from tests.unit.models.features.signals import noise_from

RATE_HZ = 50_000.0
ARENA_MM = (572.0, 356.0)
CORNERS_MM = tuple((x, y, 100.0) for x in (-286.0, 286.0) for y in (-178.0, 178.0))
# Not in the order of their places, and symmetric on x alone.
SCATTERED_MM = ((-200.0, 30.0, 50.0), (100.0, 178.0, 50.0), (200.0, 30.0, 50.0), (-100.0, 178.0, 50.0),
                (0.0, -100.0, 10.0))  # fmt: skip


def make_setup(microphones_mm=CORNERS_MM, num_axes=2):
    number = len(microphones_mm or CORNERS_MM)
    return RecordingSetup(number, RATE_HZ, ARENA_MM, microphones_mm, num_axes=num_axes)


def features_of(audio_BCT, setup, **config):
    """All kinds, with two channels over time for each microphone; maps where the microphones are known."""
    lengths_B = torch.full((len(audio_BCT),), audio_BCT.shape[2])
    gcc = GeneralizedCrossCorrelation(GccConfig(**config), setup)
    waveform = WaveformChannels(WaveformConfig(envelope=True), setup)
    maps_BFYX = None
    if setup.microphones_mm is not None:
        maps_BFYX = SteeredResponse(MapsConfig(cell_mm=50.0), setup)(audio_BCT)
    return Features(lengths_B, waveform(audio_BCT, lengths_B), gcc(audio_BCT), maps_BFYX)


def mirror(setup, axis):
    return Mirror(axis, mirror_permutation(setup, axis))


@pytest.mark.parametrize(("microphones_mm", "axis"), [(SCATTERED_MM, 0), (CORNERS_MM, 1)])
@pytest.mark.parametrize("config", [{}, {"envelope": True}])
def test_mirror_image_is_what_a_source_at_the_mirrored_place_sounds_like(
    microphones_mm, axis, config
):
    """With a simulated source: the microphones swap as the room would have it, not as a table says."""
    place_mm = torch.tensor([120.0, -60.0])
    image_mm = place_mm.clone()
    image_mm[axis] *= -1
    setup = make_setup(microphones_mm)
    there, here = (
        features_of(noise_from((*place.tolist(), 0.0), setup, 3000), setup, **config)
        for place in (place_mm, image_mm)
    )
    image = mirror(setup, axis).mirror_features(there)
    assert_same_features(image, here)
    mirrored = mirror(setup, axis).mirror_locations(place_mm[None, None])
    assert torch.equal(mirrored, image_mm[None, None])


def assert_same_features(found, expected):
    torch.testing.assert_close(found.waveform_BFT, expected.waveform_BFT, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.gcc_BPL, expected.gcc_BPL, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found.maps_BFYX, expected.maps_BFYX, rtol=1e-3, atol=1e-3)
    assert torch.equal(found.lengths_B, expected.lengths_B)


@pytest.mark.parametrize("config", [{}, {"exponent": 0.0}, {"envelope": True}])
@pytest.mark.parametrize("axis", [0, 1])
def test_features_of_mirrored_audio_are_mirrored_features(config, axis):
    setup = make_setup()
    order = mirror_permutation(setup, axis)
    audio_BCT = torch.randn(2, 4, 900, generator=torch.Generator().manual_seed(0))
    image = mirror(setup, axis).mirror_features(features_of(audio_BCT, setup, **config))
    assert_same_features(image, features_of(audio_BCT[:, order], setup, **config))


def test_a_pair_of_opposite_microphones_flips_its_lags():
    setup = make_setup(((-200.0, 0.0, 50.0), (200.0, 0.0, 50.0)))
    gcc_BPL = torch.randn(1, 1, 7, generator=torch.Generator().manual_seed(0))
    image = mirror(setup, 0).mirror_features(Features(torch.ones(1), gcc_BPL=gcc_BPL))
    assert torch.equal(image.gcc_BPL, gcc_BPL.flip(-1))


@pytest.mark.parametrize("axis", [0, 1])
def test_mirrored_twice_is_the_event_itself(axis):
    setup = make_setup()
    features = features_of(torch.randn(2, 4, 900), setup, envelope=True)
    plane = mirror(setup, axis)
    twice = plane.mirror_features(plane.mirror_features(features))
    assert torch.equal(twice.waveform_BFT, features.waveform_BFT)
    assert torch.equal(twice.gcc_BPL, features.gcc_BPL)
    assert torch.equal(twice.maps_BFYX, features.maps_BFYX)


@pytest.mark.parametrize(("axis", "dim"), [(0, 2), (1, 1)])
def test_maps_swap_columns_on_x_and_rows_on_y(axis, dim):
    maps_BFYX = torch.randn(1, 2, 3, 5)
    image = mirror(make_setup(), axis).mirror_features(Features(torch.ones(1), maps_BFYX=maps_BFYX))
    assert torch.equal(image.maps_BFYX[0], maps_BFYX[0].flip(dim))


def test_microphones_swap_within_each_kind_of_channels():
    waveform_BFT = torch.arange(12.0)[None, :, None]  # four microphones of three kinds
    features = Features(torch.ones(1), waveform_BFT)
    image = mirror(make_setup(), 0).mirror_features(features)
    assert image.waveform_BFT.flatten().tolist() == [2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9]


@pytest.mark.parametrize("kept", [(), ("waveform_BFT",), ("gcc_BPL", "maps_BFYX")])
def test_absent_features_stay_absent(kept):
    everything = features_of(torch.randn(3, 4, 900), make_setup())
    features = Features(everything.lengths_B, **{name: getattr(everything, name) for name in kept})
    result, _ = augment(features, torch.zeros(3, 1, 2), probability=1.0)
    for name in ("waveform_BFT", "gcc_BPL", "maps_BFYX"):
        assert (getattr(result, name) is not None) == (name in kept)


def augment(features, locations_BKD, probability, setup=None, seed=0):
    augmentation = MirrorAugmentation(probability, setup or make_setup())
    generator = torch.Generator().manual_seed(seed)
    mirrored_B2 = torch.rand(len(locations_BKD), 2, generator=generator) < probability
    return augmentation(features, locations_BKD, mirrored_B2)


@pytest.mark.parametrize("num_axes", [2, 3])
def test_both_axes_swap_opposite_corners_and_keep_the_height(num_axes):
    locations_BKD = torch.randn(3, 2, num_axes)
    audio_BCT = torch.randn(3, 4, 50)
    features = Features(torch.full((3,), 50), audio_BCT)
    result, mirrored = augment(features, locations_BKD, 1.0, make_setup(num_axes=num_axes))
    assert torch.equal(result.waveform_BFT, audio_BCT[:, [3, 2, 1, 0]])
    assert torch.equal(mirrored, locations_BKD * torch.tensor([-1.0, -1.0, 1.0])[:num_axes])


def test_features_go_with_locations_whichever_axes_are_mirrored():
    number = 4000
    audio_BCT = torch.arange(4.0).expand(number, 4)[..., None].clone()
    features = Features(torch.ones(number), audio_BCT)
    result, locations = augment(features, torch.ones(number, 1, 2), 0.3)
    flipped_BD = locations[:, 0] < 0
    assert flipped_BD.float().mean(0).tolist() == pytest.approx([0.3, 0.3], abs=0.03)
    assert flipped_BD.all(1).float().mean() == pytest.approx(0.09, abs=0.02)
    first_channel = torch.tensor([[0.0, 1.0], [2.0, 3.0]])[
        flipped_BD[:, 0].long(), flipped_BD[:, 1].long()
    ]
    assert torch.equal(result.waveform_BFT[:, 0, 0], first_channel)


def test_the_originals_are_left_alone():
    features = features_of(torch.randn(64, 4, 100), make_setup())
    before = [x.clone() for x in (features.waveform_BFT, features.gcc_BPL, features.maps_BFYX)]
    locations = torch.randn(64, 1, 2)
    kept = locations.clone()
    mirrored, places = augment(features, locations, 0.5)
    assert not torch.equal(places, kept)
    assert not torch.equal(mirrored.gcc_BPL, before[1])
    assert not torch.equal(mirrored.maps_BFYX, before[2])
    assert torch.equal(locations, kept)
    assert torch.equal(features.waveform_BFT, before[0])
    assert torch.equal(features.gcc_BPL, before[1])
    assert torch.equal(features.maps_BFYX, before[2])


def test_array_symmetric_on_one_axis_is_mirrored_on_that_alone():
    audio_BCT = torch.randn(2, 5, 30)
    features = Features(torch.full((2,), 30), audio_BCT)
    setup = make_setup(SCATTERED_MM)
    result, locations = augment(features, torch.ones(2, 1, 2), 1.0, setup)
    assert torch.equal(result.waveform_BFT, audio_BCT[:, [2, 3, 0, 1, 4]])
    assert torch.equal(locations, torch.tensor([-1.0, 1.0]).expand(2, 1, 2))


def test_no_probability_needs_no_symmetry():
    setup = make_setup(None)
    features = features_of(torch.randn(2, 4, 100), setup)
    result, locations = augment(features, torch.ones(2, 1, 2), 0.0, setup)
    assert result is features
    assert torch.equal(locations, torch.ones(2, 1, 2))


@pytest.mark.parametrize(
    "microphones_mm", [None, ((0.0, 0.0, 0.0), (100.0, 50.0, 0.0), (-30.0, 90.0, 0.0))]
)
def test_mirroring_without_symmetry_is_refused_in_one_sentence(microphones_mm):
    with pytest.raises(ConfigError, match=r"augmentation/mirror_prob is 0\.5") as error:
        MirrorAugmentation(0.5, make_setup(microphones_mm))
    assert "\n" not in str(error.value)


def test_scaled_features_mirror_like_the_audio():
    """Per-channel scaling comes before: it must not know which microphone is which."""
    setup = make_setup()
    config = ExperimentConfig(
        scaling={"audio": {"kind": "channel_zscore"}},
        features={"waveform": {"phase": True, "log_power": True}},
    )
    extractor = FeatureExtractor(config, setup, frozenset({"waveform", "gcc", "maps"}))
    audio_BTC = torch.randn(2, 700, 4) * torch.tensor([1.0, 2.0, 3.0, 4.0])
    lengths_B = torch.tensor([700, 700])
    order = mirror_permutation(setup, 0)
    expected = extractor(audio_BTC[..., list(order)], lengths_B)
    assert_same_features(
        mirror(setup, 0).mirror_features(extractor(audio_BTC, lengths_B)), expected
    )
