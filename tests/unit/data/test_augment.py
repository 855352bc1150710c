"""Letters: B batch, C microphones, T samples, K keypoints, D axes."""

import pytest
import torch

from gerbil_tune.config.schema import AugmentationConfig, GccConfig
from gerbil_tune.data.augment import Augmenter
from gerbil_tune.data.batches import Batch
from gerbil_tune.errors import ConfigError
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.features import GeneralizedCrossCorrelation

RATE_HZ = 50_000.0
ARENA_MM = (572.0, 356.0)
CORNERS_MM = tuple((x, y, 100.0) for x in (-286.0, 286.0) for y in (-178.0, 178.0))
LENGTHS = (500, 300, 120, 1)


def make_setup(microphones_mm=CORNERS_MM, num_axes=2):
    return RecordingSetup(
        len(microphones_mm or CORNERS_MM), RATE_HZ, ARENA_MM, microphones_mm, num_axes=num_axes
    )


def make_batch(lengths=LENGTHS, num_microphones=4, dtype=torch.float32, num_axes=2, scale=1000.0):
    generator = torch.Generator().manual_seed(0)
    audio_BTC = torch.zeros(len(lengths), max(lengths), num_microphones)
    for audio_TC, length in zip(audio_BTC, lengths, strict=True):
        audio_TC[:length] = scale * torch.randn(length, num_microphones, generator=generator)
    locations = 100 * torch.randn(len(lengths), 2, num_axes, generator=generator)
    return Batch(audio_BTC.to(dtype), torch.tensor(lengths), locations, torch.arange(len(lengths)))


def augment(batch, seed=0, setup=None, **config):
    augmenter = Augmenter(AugmentationConfig(**config), setup or make_setup())
    return augmenter(batch, torch.Generator().manual_seed(seed))


EVERYTHING = {"mirror_prob": 0.5, "polarity_prob": 0.5, "noise_prob": 0.5, "mask_prob": 0.5}


def test_nothing_asked_nothing_changed():
    batch = make_batch()
    result = augment(batch)
    assert torch.equal(result.audio_BTC, batch.audio_BTC)
    assert torch.equal(result.locations_BKD_mm, batch.locations_BKD_mm)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int16])
def test_same_generator_same_result_and_the_batch_is_left_alone(dtype):
    batch = make_batch((400,) * 32, dtype=dtype)
    audio_BTC, locations = batch.audio_BTC.clone(), batch.locations_BKD_mm.clone()
    first, second, other = (augment(batch, seed, **EVERYTHING) for seed in (7, 7, 8))
    assert torch.equal(first.audio_BTC, second.audio_BTC)
    assert torch.equal(first.locations_BKD_mm, second.locations_BKD_mm)
    assert not torch.equal(first.audio_BTC, other.audio_BTC)
    assert torch.equal(batch.audio_BTC, audio_BTC)
    assert torch.equal(batch.locations_BKD_mm, locations)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int16])
@pytest.mark.parametrize("change", ["mirror", "polarity", "noise", "mask"])
def test_dtype_and_padding_are_kept(dtype, change):
    batch = make_batch(dtype=dtype)
    result = augment(batch, **{f"{change}_prob": 1.0})
    assert result.audio_BTC.dtype == dtype
    assert not torch.equal(result.audio_BTC, batch.audio_BTC)
    for audio_TC, length in zip(result.audio_BTC, LENGTHS, strict=True):
        assert not audio_TC[length:].any()
    assert torch.equal(result.lengths_B, batch.lengths_B)
    assert torch.equal(result.indices_B, batch.indices_B)


@pytest.mark.parametrize("num_axes", [2, 3])
def test_mirror_on_both_axes_swaps_opposite_corners(num_axes):
    batch = make_batch(num_axes=num_axes)
    result = augment(batch, setup=make_setup(num_axes=num_axes), mirror_prob=1.0)
    assert torch.equal(result.audio_BTC, batch.audio_BTC[..., [3, 2, 1, 0]])
    sign_D = torch.tensor([-1.0, -1.0, 1.0])[:num_axes]
    assert torch.equal(result.locations_BKD_mm, batch.locations_BKD_mm * sign_D)


def test_mirrors_are_drawn_for_each_axis_and_event():
    batch = make_batch((5,) * 4000)
    flipped_BD = (
        augment(batch, mirror_prob=0.3).locations_BKD_mm[:, 0] != (batch.locations_BKD_mm[:, 0])
    )
    assert flipped_BD.float().mean(0).tolist() == pytest.approx([0.3, 0.3], abs=0.03)
    assert flipped_BD.all(1).float().mean() == pytest.approx(0.09, abs=0.02)


def test_array_symmetric_on_one_axis_is_mirrored_on_that_alone():
    wall = ((-200.0, 178.0, 0.0), (0.0, 178.0, 0.0), (200.0, 178.0, 0.0))
    batch = make_batch(num_microphones=3)
    result = augment(batch, setup=make_setup(wall), mirror_prob=1.0)
    assert torch.equal(result.audio_BTC, batch.audio_BTC[..., [2, 1, 0]])
    expected = batch.locations_BKD_mm * torch.tensor([-1.0, 1.0])
    assert torch.equal(result.locations_BKD_mm, expected)


def simulate(location_mm, microphones_mm, num_samples=3000):
    """Noise at a place, at each microphone after its way through the air: (1, T, C)."""
    source = torch.randn(num_samples + 400, generator=torch.Generator().manual_seed(1))
    spectrum = torch.fft.rfft(source.double())
    frequency = torch.arange(len(spectrum)) / len(source)
    rows = []
    for microphone in microphones_mm:
        distance_mm = torch.dist(torch.tensor([*location_mm, 0.0]), torch.tensor(microphone))
        delay = distance_mm.double() / 343_200 * RATE_HZ
        shifted = torch.fft.irfft(
            spectrum * torch.exp(-2j * torch.pi * frequency * delay), n=len(source)
        )
        rows.append(shifted[200 : 200 + num_samples])
    return torch.stack(rows, dim=1)[None].float()


def test_mirrored_event_sounds_like_one_at_the_mirrored_place():
    """With a simulated source: the channels swap as the room would have it, not as a table says."""
    microphones_mm = ((-200.0, 30.0, 50.0), (100.0, 178.0, 50.0), (200.0, 30.0, 50.0),
                      (-100.0, 178.0, 50.0))  # fmt: skip
    batch = Batch(
        simulate((120.0, -60.0), microphones_mm),
        torch.tensor([3000]),
        torch.tensor([[[120.0, -60.0]]]),
        torch.tensor([0]),
    )
    setup = make_setup(microphones_mm)
    mirrored = augment(batch, setup=setup, mirror_prob=1.0)
    assert mirrored.locations_BKD_mm.tolist() == [[[-120.0, -60.0]]]
    torch.testing.assert_close(mirrored.audio_BTC, simulate((-120.0, -60.0), microphones_mm))


def test_mirrored_pair_of_microphones_flips_the_correlation():
    pair = ((-200.0, 0.0, 50.0), (200.0, 0.0, 50.0))
    setup = make_setup(pair)
    batch = Batch(
        simulate((120.0, -60.0), pair),
        torch.tensor([3000]),
        torch.tensor([[[120.0, -60.0]]]),
        torch.tensor([0]),
    )
    gcc = GeneralizedCrossCorrelation(GccConfig(), setup)
    before = gcc(batch.audio_BTC.mT)
    after = gcc(augment(batch, setup=setup, mirror_prob=1.0).audio_BTC.mT)
    torch.testing.assert_close(after, before.flip(-1))
    assert before.argmax() - gcc.max_lag > 5  # nearer to the second: the first hears it later


@pytest.mark.parametrize(
    "microphones_mm", [None, ((0.0, 0.0, 0.0), (100.0, 50.0, 0.0), (-30.0, 90.0, 0.0))]
)
def test_mirroring_without_symmetry_is_refused_in_one_sentence(microphones_mm):
    with pytest.raises(ConfigError, match="augmentation/mirror_prob is 0.5") as error:
        augment(make_batch(), setup=make_setup(microphones_mm), mirror_prob=0.5)
    assert "\n" not in str(error.value)
    augment(make_batch(), setup=make_setup(microphones_mm), polarity_prob=0.5)


def test_polarity_turns_whole_events():
    batch = make_batch((50,) * 2000)
    sign_BTC = augment(batch, polarity_prob=0.25).audio_BTC / batch.audio_BTC
    assert (sign_BTC == sign_BTC[:, :1, :1]).all()
    assert (sign_BTC[:, 0, 0] == -1).float().mean() == pytest.approx(0.25, abs=0.03)


def test_polarity_of_a_clipped_recording():
    """-(-32768) does not exist in int16, and would stay -32768."""
    batch = make_batch((10,), dtype=torch.int16)
    batch.audio_BTC[:] = -32768
    result = augment(batch, polarity_prob=1.0)
    assert (result.audio_BTC == 32767).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.int16])
@pytest.mark.parametrize("snr_db", [0.0, 12.0])
def test_noise_has_the_wanted_level_below_each_events_own(dtype, snr_db):
    lengths = (20_000, 8_000)
    batch = make_batch(lengths, dtype=dtype)
    batch.audio_BTC[1] //= 10
    noisy = augment(batch, noise_prob=1.0, noise_snr_db=(snr_db, snr_db))
    noise_BTC = noisy.audio_BTC.float() - batch.audio_BTC.float()
    for event, length in enumerate(lengths):
        signal_power = batch.audio_BTC[event, :length].float().square().mean()
        noise_TC = noise_BTC[event, :length]
        measured_db = 10 * torch.log10(signal_power / noise_TC.square().mean())
        assert measured_db.item() == pytest.approx(snr_db, abs=0.15)
        correlation = torch.corrcoef(noise_TC.T) - torch.eye(4)
        assert correlation.abs().max() < 0.06  # each microphone hears its own


def test_noise_levels_cover_the_range():
    batch = make_batch((500,) * 800)
    noisy = augment(batch, noise_prob=0.5, noise_snr_db=(3.0, 15.0))
    noise_B = (noisy.audio_BTC - batch.audio_BTC).square().mean((1, 2))
    chosen = noise_B > 0
    assert chosen.float().mean() == pytest.approx(0.5, abs=0.06)
    snr_db = 10 * torch.log10(batch.audio_BTC.square().mean((1, 2)) / noise_B)[chosen]
    assert snr_db.min() == pytest.approx(3.0, abs=0.8)
    assert snr_db.max() == pytest.approx(15.0, abs=0.8)
    assert snr_db.mean() == pytest.approx(9.0, abs=0.8)


def test_noise_does_not_wrap_around_at_full_scale():
    batch = make_batch((2000,), dtype=torch.int16)
    batch.audio_BTC[:] = 32767
    noisy = augment(batch, noise_prob=1.0, noise_snr_db=(20.0, 20.0)).audio_BTC
    assert noisy.min() > 0


def test_silence_gets_no_noise():
    batch = make_batch((50,), scale=0.0)
    assert not augment(batch, noise_prob=1.0).audio_BTC.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.int16])
def test_mask_silences_one_stretch_on_all_microphones(dtype):
    batch = make_batch((600,) * 400, dtype=dtype)
    batch.audio_BTC[batch.audio_BTC == 0] = 1
    masked = augment(batch, mask_prob=0.5, mask_length=(30, 60)).audio_BTC
    silent_BT = (masked == 0).all(2)
    assert torch.equal(silent_BT, (masked == 0).any(2))
    lengths_B = silent_BT.sum(1)
    chosen = lengths_B > 0
    assert chosen.float().mean() == pytest.approx(0.5, abs=0.1)
    assert lengths_B[chosen].min() == 30
    assert lengths_B[chosen].max() == 60
    edges = silent_BT.int().diff(dim=1, prepend=torch.zeros(400, 1), append=torch.zeros(400, 1))
    assert ((edges == 1).sum(1)[chosen] == 1).all()
    starts = silent_BT.int().argmax(1)[chosen]
    assert starts.min() < 40
    assert starts.max() > 500
    assert torch.equal(masked[~silent_BT], batch.audio_BTC[~silent_BT])


def test_batch_without_locations():
    batch = make_batch()
    unlabelled = Batch(batch.audio_BTC, batch.lengths_B, None, batch.indices_B)
    assert augment(unlabelled, **EVERYTHING).locations_BKD_mm is None
