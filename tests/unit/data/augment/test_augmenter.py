"""Letters: B batch, C microphones, T samples."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gerbil_tune.config.schema import AugmentationConfig
from gerbil_tune.data.augment.augmenter import Augmenter, changes_audio
from gerbil_tune.data.augment.draws import EventDraws
from gerbil_tune.data.batches import Batch
from gerbil_tune.data.shards import training_schedule
from gerbil_tune.errors import ConfigError

LENGTHS = (500, 300, 120, 1)
RATE_HZ = 125_000.0
KINDS = ("polarity", "gain", "noise", "low_frequency", "mask", "dropout", "shift")
STRENGTHS = {
    "noise_exponent": (0.0, 2.0),
    "dropout_microphones": 3,
    "shift_ms": 1.0,
    "mask_length": (5, 40),
}
EVERYTHING = {**{f"{kind}_prob": 0.5 for kind in KINDS}, **STRENGTHS}
FLOAT_AND_INT16 = pytest.mark.parametrize("dtype", [torch.float32, torch.int16])


def make_batch(lengths=LENGTHS, num_microphones=4, dtype=torch.float32, scale=1000.0):
    generator = torch.Generator().manual_seed(0)
    audio_BTC = torch.zeros(len(lengths), max(lengths, default=1) or 1, num_microphones)
    for audio_TC, length in zip(audio_BTC, lengths, strict=True):
        audio_TC[:length] = scale * torch.randn(length, num_microphones, generator=generator)
    locations = 100 * torch.randn(len(lengths), 2, 2, generator=generator)
    lengths_B = torch.tensor(lengths, dtype=torch.int64)
    return Batch(audio_BTC.to(dtype), lengths_B, locations, torch.arange(len(lengths)))


def make_augmenter(batch, seed=0, num_events=None, **config):
    number, microphones = num_events or len(batch.indices_B), batch.audio_BTC.shape[2]
    draws = EventDraws(number, microphones, seed=seed)
    return Augmenter(AugmentationConfig(**config), draws, RATE_HZ)


def augment(batch, epoch=0, seed=0, **config):
    return make_augmenter(batch, seed, **config)(batch, epoch)


def with_statistics(batch):
    """As the reader adds them, here of the events as they are in the batch."""
    mean, sd = [], []
    for audio_TC, length in zip(batch.audio_BTC.double(), batch.lengths_B.tolist(), strict=True):
        event_TC = audio_TC[: max(length, 1)]
        mean.append(event_TC.mean(0))
        sd.append((event_TC - mean[-1]).square().mean(0).sqrt())
    return dataclasses.replace(
        batch, mean_BC=torch.stack(mean).float(), sd_BC=torch.stack(sd).float()
    )


def events_of(batch):
    """Every event without its padding, which has to be zero."""
    events = []
    for audio_TC, length in zip(batch.audio_BTC, batch.lengths_B.tolist(), strict=True):
        assert not audio_TC[length:].any()
        events.append(audio_TC[:length])
    return events


def test_nothing_asked_nothing_changed():
    batch = make_batch()
    assert augment(batch, mirror_prob=1.0) is batch
    assert not changes_audio(AugmentationConfig(mirror_prob=1.0))


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_changes_the_audio(kind):
    assert changes_audio(AugmentationConfig(**{f"{kind}_prob": 0.1}))
    batch = make_batch((500,) * 8)
    changed = augment(batch, **{f"{kind}_prob": 1.0}, **STRENGTHS)
    pairs = zip(events_of(changed), events_of(batch), strict=True)
    assert not any(torch.equal(event, original) for event, original in pairs)


@FLOAT_AND_INT16
@pytest.mark.parametrize("kind", KINDS)
def test_dtype_padding_and_the_rest_are_kept(dtype, kind):
    batch = make_batch(dtype=dtype)
    result = augment(batch, **{f"{kind}_prob": 1.0}, **STRENGTHS)
    assert result.audio_BTC.dtype == dtype
    events_of(result)
    assert torch.equal(result.indices_B, batch.indices_B)
    assert torch.equal(result.locations_BKD_mm, batch.locations_BKD_mm)
    assert result.lengths_B.dtype == torch.int64
    assert torch.equal(result.lengths_B, batch.lengths_B) or kind == "shift"
    unlabelled = dataclasses.replace(batch, locations_BKD_mm=None)
    assert augment(unlabelled, **{f"{kind}_prob": 1.0}).locations_BKD_mm is None


@FLOAT_AND_INT16
def test_seed_and_epoch_decide_and_the_batch_is_left_alone(dtype):
    batch = with_statistics(make_batch((400,) * 32, dtype=dtype))
    before = dataclasses.asdict(batch)
    first, second, epoch, seed = (
        augment(batch, **which, **EVERYTHING) for which in ({}, {}, {"epoch": 1}, {"seed": 1})
    )
    for name, value in dataclasses.asdict(first).items():
        assert torch.equal(value, getattr(second, name))
        assert torch.equal(before[name], getattr(batch, name))
    for other in (epoch, seed):
        assert not torch.equal(first.lengths_B, other.lengths_B)
        pairs = list(zip(events_of(first), events_of(other), strict=True))
        assert sum(torch.equal(a, b) for a, b in pairs) < 4


@settings(deadline=None, max_examples=60)
@given(data=st.data(), is_int16=st.booleans(), epoch=st.integers(0, 5), seed=st.integers(0, 2**40))
def test_an_event_changes_alike_in_any_batch(data, is_int16, epoch, seed):
    """Whatever shares its batch, in whatever order, and however long the padding is."""
    lengths = data.draw(st.lists(st.integers(0, 60), min_size=1, max_size=8))
    dtype = torch.int16 if is_int16 else torch.float32
    batch = with_statistics(make_batch(lengths, dtype=dtype))
    config = {**EVERYTHING, "shift_ms": 0.1, "mask_length": (1, 20)}
    together = augment(batch, epoch, seed, **config)
    chosen = data.draw(st.permutations(range(len(lengths))))[: data.draw(st.integers(1, 8))]
    padding = data.draw(st.integers(0, 40))
    rows = torch.tensor(chosen)
    part = Batch(
        torch.nn.functional.pad(batch.audio_BTC[rows], (0, 0, 0, padding)),
        batch.lengths_B[rows],
        batch.locations_BKD_mm[rows],
        rows,
        batch.mean_BC[rows],
        batch.sd_BC[rows],
    )
    augmenter = make_augmenter(part, seed, num_events=len(lengths), **config)
    augmenter(part, epoch + 1)  # nor does it matter what was done before
    alone = augmenter(part, epoch)
    for name in ("lengths_B", "mean_BC", "sd_BC"):
        assert torch.equal(getattr(alone, name), getattr(together, name)[rows])
    whole = events_of(together)
    for i, event_TC in zip(chosen, events_of(alone), strict=True):
        assert torch.equal(event_TC, whole[i])


@pytest.mark.parametrize("world_size", [2, 4])
def test_any_number_of_workers_changes_events_alike(world_size):
    batch = make_batch((200,) * 48)
    everything = events_of(augment(batch, 2, **EVERYTHING))
    for rank in range(world_size):
        augmenter = make_augmenter(batch, **EVERYTHING)  # each worker has its own
        place = {"global_batch_size": 16, "world_size": world_size, "rank": rank}
        for indices_B in training_schedule(48, epoch=2, seed=0, **place):
            rows = torch.from_numpy(indices_B)
            part = Batch(batch.audio_BTC[rows], batch.lengths_B[rows], None, rows)
            for i, event_TC in zip(indices_B, events_of(augmenter(part, 2)), strict=True):
                assert torch.equal(event_TC, everything[i])


def test_one_more_augmentation_changes_no_draw_of_another():
    """The shift comes last, so what the noise added can be told apart."""
    batch = make_batch((300,) * 50)
    alone = augment(batch, noise_prob=0.5)
    both = augment(batch, noise_prob=0.5, shift_prob=1.0, shift_ms=0.5, mirror_prob=0.5)
    shifts = (both.lengths_B - batch.lengths_B).tolist()
    for event, moved, shift in zip(events_of(alone), events_of(both), shifts, strict=True):
        assert torch.equal(moved[max(0, shift) :], event[max(0, -shift) :])


@settings(deadline=None, max_examples=60)
@given(
    lengths=st.lists(st.integers(0, 200), max_size=5),
    num_microphones=st.integers(3, 6),
    scale=st.sampled_from([0.0, 1e-20, 1.0, 30_000.0]),
    is_int16=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_any_lengths_stay_finite(lengths, num_microphones, scale, is_int16, seed):
    """Empty, of one sample, shorter than masks and shifts, silent, nearly silent, clipped."""
    batch = make_batch(lengths, num_microphones, scale=scale)
    if is_int16:
        batch = dataclasses.replace(
            batch, audio_BTC=batch.audio_BTC.clamp(-32768, 32767).to(torch.int16)
        )
    certain = {f"{kind}_prob": 1.0 for kind in KINDS}
    strengths = {"noise_exponent": (0.0, 3.0), "dropout_microphones": 9, "shift_ms": 2.0}
    result = augment(batch, seed=seed, **certain, **strengths)
    assert result.audio_BTC.isfinite().all()
    assert len(events_of(result)) == len(lengths)
    pairs = zip(result.lengths_B.tolist(), lengths, strict=True)
    assert all(length // 2 <= after and (after > 0) == (length > 0) for after, length in pairs)
    if scale == 0:
        assert not result.audio_BTC.any()


@pytest.mark.parametrize("kind", KINDS)
def test_probabilities_are_those_of_each_event(kind):
    number, probability = 3000, 0.25
    batch = make_batch((40,) * number)
    strengths = {"mask_length": (10, 20), "shift_ms": 50.0}
    changed = augment(batch, **{f"{kind}_prob": probability}, **strengths)
    pairs = zip(events_of(changed), events_of(batch), strict=True)
    count = sum(not torch.equal(event, original) for event, original in pairs)
    assert abs(count - probability * number) < 4.5 * (number * probability * 0.75) ** 0.5


def test_a_batch_on_the_device_takes_its_numbers_from_the_host():
    batch = make_batch()
    augmenter = make_augmenter(batch, **EVERYTHING)
    shuffled = dataclasses.replace(batch, indices_B=batch.indices_B.flip(0))
    expected = augmenter(shuffled, 0)
    assert torch.equal(augmenter(batch, 0, on_host=shuffled).audio_BTC, expected.audio_BTC)


class TestPolarity:
    def test_whole_events_are_turned(self):
        batch = make_batch((50,) * 200)
        sign_BTC = augment(batch, polarity_prob=0.25).audio_BTC / batch.audio_BTC
        assert (sign_BTC == sign_BTC[:, :1, :1]).all()
        assert (sign_BTC.abs() == 1).all()

    def test_of_a_clipped_recording(self):
        """-(-32768) does not exist in int16, and would stay -32768."""
        batch = make_batch((10,), dtype=torch.int16)
        batch.audio_BTC[:] = -32768
        assert (augment(batch, polarity_prob=1.0).audio_BTC == 32767).all()

    def test_statistics(self):
        batch = with_statistics(make_batch((50, 60)))
        changed = augment(batch, polarity_prob=1.0)
        assert torch.equal(changed.mean_BC, -batch.mean_BC)
        assert torch.equal(changed.sd_BC, batch.sd_BC)


class TestGain:
    def test_each_microphone_has_its_own_within_the_range(self):
        batch = make_batch((30,) * 500)
        gain_BTC = augment(batch, gain_prob=1.0, gain_db=(-6.0, 2.0)).audio_BTC / batch.audio_BTC
        gain_BC = gain_BTC.mean(1)
        torch.testing.assert_close(gain_BTC, gain_BC[:, None].expand(gain_BTC.shape))
        gain_db = 20 * gain_BC.log10()
        assert gain_db.min().item() == pytest.approx(-6.0, abs=0.05)
        assert gain_db.max().item() == pytest.approx(2.0, abs=0.05)
        assert gain_db.mean().item() == pytest.approx(-2.0, abs=0.2)
        assert (torch.corrcoef(gain_BC.T) - torch.eye(4)).abs().max() < 0.2

    def test_integers_are_rounded_and_clipped(self):
        batch = make_batch((4,), dtype=torch.int16, num_microphones=1)
        batch.audio_BTC[0, :, 0] = torch.tensor([100, -101, 32767, -32768])
        louder = augment(batch, gain_prob=1.0, gain_db=(6.0, 6.0)).audio_BTC[0, :, 0]
        assert louder.tolist() == [200, -202, 32767, -32768]

    def test_statistics(self):
        batch = make_batch((500, 400))
        batch.audio_BTC[0, :500] += 300
        changed = augment(with_statistics(batch), gain_prob=1.0)
        expected = with_statistics(changed)
        torch.testing.assert_close(changed.mean_BC, expected.mean_BC, rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(changed.sd_BC, expected.sd_BC)


by_noise = pytest.mark.parametrize("kind", ["noise", "low_frequency"])


@by_noise
class TestNoise:
    @FLOAT_AND_INT16
    @pytest.mark.parametrize("snr_db", [-3.0, 12.0])
    def test_the_level_is_relative_to_each_events_own(self, kind, dtype, snr_db):
        lengths = (4000, 900, 333, 2500) * 8
        batch = make_batch(lengths, dtype=dtype)
        batch.audio_BTC[1] //= 10
        batch.audio_BTC[2, :, 0] = 0  # a dead microphone hears nothing of the event
        noisy = augment(batch, **{f"{kind}_prob": 1.0, f"{kind}_snr_db": (snr_db, snr_db)})
        for event, original in zip(events_of(noisy), events_of(batch), strict=True):
            noise_TC = event.double() - original.double()
            power = original.double().var(0, correction=0).mean()
            measured_db = 10 * torch.log10(power / noise_TC.square().mean())
            assert measured_db.item() == pytest.approx(snr_db, abs=0.1)
            by_microphone = noise_TC.square().mean(0)
            assert by_microphone.max() < 1.03 * by_microphone.min()

    def test_an_offset_is_no_signal(self, kind):
        batch = make_batch((3000,), scale=1.0)
        offset = dataclasses.replace(batch, audio_BTC=batch.audio_BTC + 1000)
        noisy, with_offset = (augment(b, **{f"{kind}_prob": 1.0}) for b in (batch, offset))
        torch.testing.assert_close(with_offset.audio_BTC - 1000, noisy.audio_BTC, atol=1e-2, rtol=0)

    def test_levels_cover_the_range(self, kind):
        batch = make_batch((500,) * 400)
        noisy = augment(batch, **{f"{kind}_prob": 1.0, f"{kind}_snr_db": (3.0, 15.0)})
        noise_B = (noisy.audio_BTC - batch.audio_BTC).square().mean((1, 2))
        snr_db = 10 * torch.log10(batch.audio_BTC.square().mean((1, 2)) / noise_B)
        assert snr_db.min().item() == pytest.approx(3.0, abs=0.3)
        assert snr_db.max().item() == pytest.approx(15.0, abs=0.3)
        assert snr_db.mean().item() == pytest.approx(9.0, abs=0.6)

    def test_it_does_not_wrap_around_at_full_scale(self, kind):
        batch = make_batch((2000,), dtype=torch.int16)
        batch.audio_BTC[:] = torch.tensor([32767, 32000]).repeat(1000)[:, None].to(torch.int16)
        noisy = augment(batch, **{f"{kind}_prob": 1.0, f"{kind}_snr_db": (-10.0, -10.0)})
        assert noisy.audio_BTC.min() > 20_000
        assert noisy.audio_BTC.max() == 32767

    def test_events_have_noise_of_their_own_and_so_have_epochs(self, kind):
        batch = make_batch((1000,) * 2)
        batch.audio_BTC[1] = batch.audio_BTC[0]
        certain = {f"{kind}_prob": 1.0}
        noise = [augment(batch, e, **certain).audio_BTC - batch.audio_BTC for e in range(2)]
        flat = torch.stack([n[i].flatten() for n in noise for i in range(2)])
        limit = 0.1 if kind == "noise" else 0.6
        assert (torch.corrcoef(flat) - torch.eye(4)).abs().max() < limit

    def test_statistics(self, kind):
        batch = with_statistics(make_batch((4000, 900)))
        changed = augment(batch, **{f"{kind}_prob": 1.0, f"{kind}_snr_db": (0.0, 0.0)})
        expected = with_statistics(changed)
        assert torch.equal(changed.mean_BC, batch.mean_BC)
        torch.testing.assert_close(changed.sd_BC, expected.sd_BC, rtol=0.1, atol=0)


def test_the_two_kinds_of_noise_are_independent():
    batch = make_batch((4000,), num_microphones=3)
    high = augment(batch, noise_prob=1.0).audio_BTC - batch.audio_BTC
    low = augment(batch, low_frequency_prob=1.0, low_frequency_cutoff_hz=1e9).audio_BTC
    flat = torch.stack([high.flatten(), (low - batch.audio_BTC).flatten()])
    assert torch.corrcoef(flat)[0, 1].abs() < 0.05


def test_low_frequency_noise_is_low():
    batch = make_batch((8192,) * 4)
    noisy = augment(batch, low_frequency_prob=1.0, low_frequency_cutoff_hz=2000.0)
    power_F = torch.fft.rfft(noisy.audio_BTC - batch.audio_BTC, dim=1).abs().square().sum((0, 2))
    frequency_hz = torch.fft.rfftfreq(8192, 1 / RATE_HZ)
    below = power_F[frequency_hz < 2000].sum() / power_F.sum()
    assert below.item() == pytest.approx(1 - np.exp(-2), abs=0.05)
    assert power_F[frequency_hz > 12_000].sum() < 1e-3 * power_F.sum()


class TestMask:
    @FLOAT_AND_INT16
    def test_one_stretch_is_silent_on_all_microphones(self, dtype):
        batch = make_batch((600,) * 1500, dtype=dtype)
        batch.audio_BTC[batch.audio_BTC == 0] = 1
        masked = augment(batch, mask_prob=1.0, mask_length=(30, 34)).audio_BTC
        silent_BT = (masked == 0).all(2)
        assert torch.equal(silent_BT, (masked == 0).any(2))
        edges = silent_BT.int().diff(dim=1, prepend=torch.zeros(1500, 1))
        assert ((edges == 1).sum(1) == 1).all()
        assert torch.equal(masked[~silent_BT], batch.audio_BTC[~silent_BT])
        counts = torch.bincount(silent_BT.sum(1), minlength=36)
        assert counts.sum() == counts[30:35].sum()
        assert (counts[30:35] / 1500).tolist() == pytest.approx([0.2] * 5, abs=0.05)

    def test_both_ends_of_an_event_can_be_masked(self):
        batch = make_batch((12,) * 300)
        silent_BT = (augment(batch, mask_prob=1.0, mask_length=(4, 4)).audio_BTC == 0).all(2)
        starts = torch.bincount(silent_BT.int().argmax(1))
        assert len(starts) == 9  # 0 to 8
        assert (starts / 300).tolist() == pytest.approx([1 / 9] * 9, abs=0.08)

    def test_half_of_an_event_is_left(self):
        lengths = (1, 2, 3, 10, 150, 251)
        batch = make_batch(lengths)
        masked = augment(batch, mask_prob=1.0, mask_length=(125, 5000))
        silent = [int((event == 0).all(1).sum()) for event in events_of(masked)]
        assert silent[:5] == [0, 1, 1, 5, 75]
        assert silent[5] == 125


class TestShift:
    def test_all_microphones_move_together(self):
        """Delays between microphones are what localizes; they stay as they are."""
        batch = make_batch((500, 300) * 100)
        shifted = augment(batch, shift_prob=1.0, shift_ms=0.8)
        shifts = (shifted.lengths_B - batch.lengths_B).tolist()
        for event, original, shift in zip(
            events_of(shifted), events_of(batch), shifts, strict=True
        ):
            assert not event[: max(0, shift)].any()
            assert torch.equal(event[max(0, shift) :], original[max(0, -shift) :])
        assert max(shifts) == pytest.approx(100, abs=3)
        assert min(shifts) == pytest.approx(-100, abs=3)
        assert np.mean(shifts) == pytest.approx(0, abs=15)
        assert shifted.audio_BTC.shape[1] == 500 + max(shifts[::2])

    def test_it_does_not_depend_on_the_rest(self):
        """Neither on what is heard nor on where it comes from."""
        batch = make_batch((300,) * 50)
        other = dataclasses.replace(
            batch, audio_BTC=batch.audio_BTC.flip(0), locations_BKD_mm=-batch.locations_BKD_mm
        )
        first, second = (augment(b, shift_prob=0.5).lengths_B for b in (batch, other))
        assert torch.equal(first, second)

    def test_half_of_an_event_is_left(self):
        shifted = augment(make_batch((10,) * 100), shift_prob=1.0, shift_ms=50.0)
        assert shifted.lengths_B.min() == 5

    def test_statistics_of_the_event_stay(self):
        batch = with_statistics(make_batch((300,) * 5))
        changed = augment(batch, shift_prob=1.0, mask_prob=1.0, dropout_prob=1.0)
        assert torch.equal(changed.mean_BC, batch.mean_BC)
        assert torch.equal(changed.sd_BC, batch.sd_BC)


class TestDropout:
    @pytest.mark.parametrize(
        ("num_microphones", "asked", "most"), [(6, 3, 3), (6, 9, 4), (3, 1, 1)]
    )
    def test_some_microphones_are_silent_and_two_are_left(self, num_microphones, asked, most):
        batch = make_batch((20,) * 1200, num_microphones)
        changed = augment(batch, dropout_prob=1.0, dropout_microphones=asked)
        silent_BC = (changed.audio_BTC == 0).all(1)
        counts = torch.bincount(silent_BC.sum(1), minlength=most + 1)
        assert counts[0] == 0
        assert (counts[1:] / 1200).tolist() == pytest.approx([1 / most] * most, abs=0.07)
        share = silent_BC.float().mean().item()
        assert silent_BC.float().mean(0).tolist() == pytest.approx(
            [share] * num_microphones, abs=0.07
        )
        kept = ~silent_BC[:, None].expand(changed.audio_BTC.shape)
        assert torch.equal(changed.audio_BTC[kept], batch.audio_BTC[kept])

    def test_noise_does_not_wake_them(self):
        batch = make_batch((200,) * 20)
        changed = augment(batch, dropout_prob=1.0, noise_prob=1.0, gain_prob=1.0)
        assert ((changed.audio_BTC == 0).all(1).sum(1) == 1).all()

    def test_none_can_be_spared_of_two(self):
        batch = make_batch(num_microphones=2)
        with pytest.raises(
            ConfigError, match=r"augmentation/dropout_prob is 0\.5, but of 2"
        ) as error:
            augment(batch, dropout_prob=0.5)
        assert "\n" not in str(error.value)
