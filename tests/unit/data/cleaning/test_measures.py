import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gerbil_tune.data.cleaning import measures as event_measures
from gerbil_tune.data.cleaning.measures import estimate_snr_db, measure_audio
from gerbil_tune.data.events import open_events

RATE_HZ = 125_000


def tone(num_samples, amplitude=1.0, hertz=7_013.0, phase=0.3):
    return amplitude * np.sin(2 * np.pi * hertz / RATE_HZ * np.arange(num_samples) + phase)


@pytest.fixture
def measure(make_event_file):
    """Measures of events given as (T, C) or (T,) arrays."""

    def measure(*channels, dtype="float64", frame_samples=100, **options):
        audio = [
            np.asarray(one) if np.ndim(one) == 2 else np.asarray(one)[:, None] for one in channels
        ]
        path = make_event_file(
            lengths=[len(one) for one in audio],
            num_microphones=audio[0].shape[1],
            audio=np.concatenate(audio),
            dtype=dtype,
            locations=None,
        )
        return measure_audio(open_events(path), frame_samples=frame_samples, **options)

    return measure


class TestLevel:
    @pytest.mark.parametrize(
        ("dtype", "full_scale"), [("float64", 1.0), ("int16", 2**15 - 1), ("int32", 2**31 - 1)]
    )
    def test_of_a_sine(self, measure, dtype, full_scale):
        """A sine of half the full scale: 10 log10(0.25 / 2)."""
        level = measure(tone(12_500, full_scale / 2), dtype=dtype).level_NC_db
        assert level == pytest.approx(10 * np.log10(0.125), abs=0.01)

    def test_does_not_see_the_mean(self, measure):
        levels = measure(tone(5000, 0.1), tone(5000, 0.1) + 0.7).level_NC_db
        assert levels[1] == pytest.approx(levels[0], abs=1e-9)

    @pytest.mark.parametrize("value", [0.0, 0.1, -3.7])
    def test_of_a_constant_is_minus_infinity(self, measure, value):
        assert np.isneginf(measure(np.full(1000, value)).level_NC_db).all()

    def test_each_microphone_has_its_own(self, measure):
        levels = measure(np.stack([tone(5000, 1.0), tone(5000, 0.01)], axis=1)).level_NC_db
        assert levels[0, 0] - levels[0, 1] == pytest.approx(40, abs=0.01)

    def test_of_an_empty_event_is_unknown(self, measure):
        measures = measure(tone(500), np.zeros((0, 1)), tone(500))
        assert np.isnan(measures.level_NC_db).ravel().tolist() == [False, True, False]
        assert measures.is_finite_N.all()


class TestFinite:
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_one_value_is_enough(self, measure, value):
        broken = tone(1000)
        broken[777] = value
        measures = measure(tone(1000), broken)
        assert measures.is_finite_N.tolist() == [True, False]
        assert np.isnan(measures.snr_N_db).tolist() == [False, True]
        assert np.isnan(measures.clipped_NC).ravel().tolist() == [False, True]


class TestClipping:
    @pytest.mark.parametrize("limit", [0.95, 0.8, 0.5])
    @pytest.mark.parametrize("hertz", [50.0, 7_013.0, 41_007.0])
    def test_of_a_sine(self, measure, limit, hertz):
        """Above the limit is the part 1 - 2 asin(limit) / pi of a sine."""
        share = measure(np.clip(tone(50_000, hertz=hertz), -limit, limit)).clipped_NC[0, 0]
        assert share == pytest.approx(1 - 2 * np.arcsin(limit) / np.pi, abs=0.005)

    @pytest.mark.parametrize("dtype", ["int16", "int32"])
    def test_at_the_end_of_the_integers(self, measure, dtype):
        limits = np.iinfo(dtype)
        loud = np.clip(tone(20_000, 1.2 * limits.max), limits.min, limits.max)
        assert measure(loud, dtype=dtype).clipped_NC[0, 0] > 0.3

    def test_below_the_end_of_the_integers(self, measure):
        noisy = tone(20_000, 3000) + np.random.default_rng(0).normal(0, 100, 20_000)
        assert measure(np.clip(noisy, -2000, 2000), dtype="int16").clipped_NC[0, 0] > 0.3

    def test_on_one_side_only(self, measure):
        share = measure(np.minimum(tone(20_000), 0.5)).clipped_NC[0, 0]
        assert share == pytest.approx(0.5 - np.arcsin(0.5) / np.pi, abs=0.005)

    @pytest.mark.parametrize("amplitude", [1, 2, 5, 20, 100, 1000, 30_000])
    def test_the_crest_of_a_rounded_sine_is_none(self, measure, amplitude):
        share = measure(np.round(tone(20_000, amplitude)), dtype="int16").clipped_NC
        assert share.max() <= 1e-3 or amplitude < 3  # a sine of one step is a square wave
        as_floats = np.round(tone(20_000, max(amplitude, 3))) / 2**15
        assert measure(as_floats, dtype="float32").clipped_NC.max() <= 1e-3

    @pytest.mark.parametrize("scale", [3, 30, 3000])
    def test_rounded_noise_is_none(self, measure, scale):
        noise = np.random.default_rng(0).normal(0, scale, (20_000, 4))
        assert measure(np.round(noise), dtype="int16").clipped_NC.max() <= 1e-3

    @pytest.mark.parametrize("value", [0, 5])
    def test_a_constant_is_none(self, measure, value):
        assert measure(np.full(1000, value), dtype="int16").clipped_NC.max() == 0


class TestSnr:
    @pytest.mark.parametrize("snr_db", [6.0, 20.0])
    def test_of_a_tone_in_white_noise(self, measure, snr_db):
        """Power of signal and noise over that of the noise; the extremes of the frames add some tenths."""
        noise = np.random.default_rng(1).normal(0, 0.01, (20_000, 4))
        noise[8000:12_000] += tone(4000, 0.01 * np.sqrt(2 * 10 ** (snr_db / 10)))[:, None]
        found = measure(noise, frame_samples=500).snr_N_db[0]
        assert found == pytest.approx(10 * np.log10(1 + 10 ** (snr_db / 10)), abs=0.8)

    def test_of_white_noise_is_small(self, measure):
        noise = np.random.default_rng(2).normal(size=(20_000, 4))
        assert 0 < measure(noise, frame_samples=500).snr_N_db[0] < 1.0

    def test_gains_and_offsets_do_not_matter(self, measure):
        noise = np.random.default_rng(3).normal(size=(5000, 3))
        noise[1000:2000] *= 5
        snr = measure(noise, noise * [1, 100, 1e-3] + [3, -2, 0]).snr_N_db
        assert snr[1] == pytest.approx(snr[0], abs=1e-6)

    def test_of_digital_silence_around_a_call_is_infinite(self, measure):
        call = np.zeros(2000)
        call[500:900] = tone(400)
        assert np.isposinf(measure(call).snr_N_db[0])

    def test_a_dead_microphone_is_left_out(self, measure):
        noise = np.random.default_rng(4).normal(size=(3000, 1))
        both = np.concatenate([noise, np.zeros_like(noise)], axis=1)
        assert measure(both).snr_N_db[0] == pytest.approx(measure(noise).snr_N_db[0])

    def test_is_unknown_for_few_frames_and_for_silence(self, measure):
        assert np.isnan(measure(tone(399), np.zeros(3000)).snr_N_db).all()
        assert not np.isnan(measure(tone(400)).snr_N_db).any()

    @given(st.lists(st.floats(1e-3, 1e3), min_size=4, max_size=30), st.floats(0.01, 0.99))
    def test_is_never_negative(self, powers, part):
        assert estimate_snr_db(np.array([powers]), part) >= -1e-9


class TestDigest:
    def test_is_that_of_the_numbers(self, measure):
        noise = np.random.default_rng(0).normal(size=(500, 2))
        other = noise.copy()
        other[250, 1] += 1e-9
        digests = measure(noise, noise, other, noise[:499]).digest_N
        assert digests[0] == digests[1]
        assert len(set(digests)) == 3

    def test_does_not_depend_on_the_dtype_of_the_file(self, make_event_file):
        audio = np.random.default_rng(0).integers(-99, 99, (500, 4))
        paths = [
            make_event_file(f"{dtype}.h5", audio=audio, lengths=[200, 300], dtype=dtype)
            for dtype in ("int16", "int32")
        ]
        digests = measure_audio(open_events(paths), frame_samples=100).digest_N
        assert digests[:2] == digests[2:]
        assert digests[0] != digests[1]


def test_long_events_are_measured_in_blocks(measure, monkeypatch):
    """The same numbers whether an event is one block or many."""
    generator = np.random.default_rng(5)
    audio = generator.normal(size=(4000, 2)) * np.linspace(0.1, 1, 4000)[:, None]
    audio = np.clip(audio, -1.2, 1.2)
    whole = measure(audio, audio[:333], frame_samples=64)
    monkeypatch.setattr(event_measures, "_BLOCK_VALUES", 300)
    parts = measure(audio, audio[:333], frame_samples=64)
    assert parts.level_NC_db == pytest.approx(whole.level_NC_db)
    assert parts.snr_N_db == pytest.approx(whole.snr_N_db)
    assert parts.clipped_NC == pytest.approx(whole.clipped_NC)
    assert whole.clipped_NC[0].min() > 0.01
    assert parts.digest_N == whole.digest_N


def test_progress_counts_every_event(measure):
    counts = []
    measure(*[tone(50)] * 71, advance=counts.append)
    assert sum(counts) == 71


def test_an_error_ends_the_pass(make_event_file):
    path = make_event_file(num_events=5)
    events = open_events(path)
    path.unlink()
    from gerbil_tune.errors import DatasetError

    with pytest.raises(DatasetError, match="cannot be mapped"):
        measure_audio(events, frame_samples=10)
