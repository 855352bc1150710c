"""Letters: B batch, C microphones, T samples."""

import pytest
import torch

from gerbil_tune.config.schema import AugmentationConfig
from gerbil_tune.data.augment import Augmenter
from gerbil_tune.data.batches import Batch

LENGTHS = (500, 300, 120, 1)


def make_batch(lengths=LENGTHS, num_microphones=4, dtype=torch.float32, scale=1000.0):
    generator = torch.Generator().manual_seed(0)
    audio_BTC = torch.zeros(len(lengths), max(lengths), num_microphones)
    for audio_TC, length in zip(audio_BTC, lengths, strict=True):
        audio_TC[:length] = scale * torch.randn(length, num_microphones, generator=generator)
    locations = 100 * torch.randn(len(lengths), 2, 2, generator=generator)
    return Batch(audio_BTC.to(dtype), torch.tensor(lengths), locations, torch.arange(len(lengths)))


def augment(batch, seed=0, **config):
    augmenter = Augmenter(AugmentationConfig(**config))
    return augmenter(batch, torch.Generator().manual_seed(seed))


EVERYTHING = {"polarity_prob": 0.5, "noise_prob": 0.5, "mask_prob": 0.5}


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
    assert torch.equal(first.locations_BKD_mm, locations)
    assert not torch.equal(first.audio_BTC, other.audio_BTC)
    assert torch.equal(batch.audio_BTC, audio_BTC)
    assert torch.equal(batch.locations_BKD_mm, locations)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int16])
@pytest.mark.parametrize("change", ["polarity", "noise", "mask"])
def test_dtype_and_padding_are_kept(dtype, change):
    batch = make_batch(dtype=dtype)
    result = augment(batch, **{f"{change}_prob": 1.0})
    assert result.audio_BTC.dtype == dtype
    assert not torch.equal(result.audio_BTC, batch.audio_BTC)
    for audio_TC, length in zip(result.audio_BTC, LENGTHS, strict=True):
        assert not audio_TC[length:].any()
    assert torch.equal(result.lengths_B, batch.lengths_B)
    assert torch.equal(result.indices_B, batch.indices_B)


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
