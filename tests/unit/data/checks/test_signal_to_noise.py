import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gerbil_tune.data.checks import audio_scan
from gerbil_tune.data.checks.audio_scan import scan_audio
from gerbil_tune.data.checks.signal_to_noise import Frames, estimate_snr_db
from gerbil_tune.data.events import open_events


def tone(num_samples, amplitude=1.0):
    return amplitude * np.sin(2 * np.pi * 7_013.0 / 125_000 * np.arange(num_samples) + 0.3)


@pytest.fixture
def estimate(make_event_file):
    """Estimates for events given as (T, C) or (T,) arrays."""

    def estimate(*channels, frame_samples=100):
        audio = [
            np.asarray(one) if np.ndim(one) == 2 else np.asarray(one)[:, None] for one in channels
        ]
        path = make_event_file(
            lengths=[len(one) for one in audio],
            num_microphones=audio[0].shape[1],
            audio=np.concatenate(audio),
            dtype="float64",
            locations=None,
        )
        return scan_audio(open_events(path), frames=Frames(frame_samples)).snr_N_db

    return estimate


@pytest.mark.parametrize("snr_db", [6.0, 20.0])
def test_a_tone_in_white_noise(estimate, snr_db):
    """Power of signal and noise over that of the noise; the extremes of the frames add some tenths."""
    noise = np.random.default_rng(1).normal(0, 0.01, (20_000, 4))
    noise[8000:12_000] += tone(4000, 0.01 * np.sqrt(2 * 10 ** (snr_db / 10)))[:, None]
    found = estimate(noise, frame_samples=500)[0]
    assert found == pytest.approx(10 * np.log10(1 + 10 ** (snr_db / 10)), abs=0.8)


def test_white_noise_is_small(estimate):
    noise = np.random.default_rng(2).normal(size=(20_000, 4))
    assert 0 < estimate(noise, frame_samples=500)[0] < 1.0


def test_gains_and_offsets_do_not_matter(estimate):
    noise = np.random.default_rng(3).normal(size=(5000, 3))
    noise[1000:2000] *= 5
    snr = estimate(noise, noise * [1, 100, 1e-3] + [3, -2, 0])
    assert snr[1] == pytest.approx(snr[0], abs=1e-6)


def test_digital_silence_around_a_call_is_infinite(estimate):
    call = np.zeros(2000)
    call[500:900] = tone(400)
    assert np.isposinf(estimate(call)[0])


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_a_dead_microphone_is_left_out(estimate, value):
    noise = np.random.default_rng(4).normal(size=(3000, 1))
    both = np.concatenate([noise, np.full_like(noise, value)], axis=1)
    assert estimate(both)[0] == pytest.approx(estimate(noise)[0])


def test_what_cannot_be_estimated_is_unknown(estimate):
    broken = tone(1000)
    broken[777] = np.nan
    assert np.isnan(estimate(tone(399), np.full(3000, 0.1), broken)).all()
    assert not np.isnan(estimate(tone(400))).any()


def test_it_is_not_estimated_unless_it_is_asked_for(make_event_file):
    assert np.isnan(scan_audio(open_events(make_event_file())).snr_N_db).all()


def test_long_events_are_read_in_blocks_of_whole_frames(estimate, monkeypatch):
    audio = np.random.default_rng(5).normal(size=(4000, 2)) * np.linspace(0.1, 1, 4000)[:, None]
    whole = estimate(audio, audio[:333], frame_samples=64)
    monkeypatch.setattr(audio_scan, "_BLOCK_VALUES", 300)
    assert estimate(audio, audio[:333], frame_samples=64) == pytest.approx(whole, abs=1e-12)


@given(st.lists(st.floats(1e-3, 1e3), min_size=4, max_size=30), st.floats(0.01, 0.99))
def test_it_is_never_negative(powers, part):
    assert estimate_snr_db(np.array([powers]), part) >= -1e-9
