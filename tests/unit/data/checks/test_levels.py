import numpy as np
import pytest

from gerbil_tune.data.checks.audio_scan import scan_audio
from gerbil_tune.data.checks.levels import (
    compare_with_event_db,
    compare_with_median_db,
    find_dead,
    find_event_levels_db,
    find_levels_db,
)
from gerbil_tune.data.events import open_events

EVENTS, LENGTH, MICROPHONES = 10, 5000, 3


def tone(amplitude=1.0):
    return amplitude * np.sin(2 * np.pi * 7_013.0 / 125_000 * np.arange(LENGTH) + 0.3)


@pytest.fixture
def audio():
    """Events (N, T, C) of 0, -20 and -40 dB re a sine of 1 in the three microphones."""
    return np.tile(np.stack([tone(), tone(0.1), tone(0.01)], axis=1), (EVENTS, 1, 1))


@pytest.fixture
def scanned(make_event_file):
    def scan(audio, dtype="float64"):
        path = make_event_file(
            lengths=[audio.shape[1]] * len(audio),
            num_microphones=audio.shape[2],
            audio=audio.reshape(-1, audio.shape[2]),
            dtype=dtype,
        )
        return scan_audio(open_events(path))

    return scan


@pytest.mark.parametrize("dtype", ["float64", "int16", "int32"])
def test_of_a_sine(scanned, audio, dtype):
    """A sine of amplitude A: 10 log10(A^2 / 2)."""
    levels = find_levels_db(scanned(audio[:1] * 20_000, dtype))
    expected = 20 * np.log10(20_000) + 10 * np.log10(0.5) + np.array([[0, -20, -40]])
    np.testing.assert_allclose(levels, expected, atol=0.05)


def test_the_mean_does_not_count(scanned, audio):
    levels = find_levels_db(scanned(np.concatenate([audio[:1], audio[:1] + 0.7])))
    np.testing.assert_allclose(levels[1], levels[0], atol=1e-9)


@pytest.mark.parametrize("value", [0.0, 0.1, -3.7])
def test_of_a_constant_is_minus_infinity(scanned, audio, value):
    audio[4, :, 1] = value
    scan = scanned(audio)
    assert np.argwhere(np.isneginf(find_levels_db(scan))).tolist() == [[4, 1]]
    assert np.argwhere(np.isneginf(compare_with_event_db(scan))).tolist() == [[4, 1]]


def test_of_what_is_not_finite_is_unknown(scanned, audio):
    audio[4, 7, 1] = np.nan
    scan = scanned(audio)
    assert np.isnan(find_levels_db(scan)).all(axis=1).tolist() == [i == 4 for i in range(EVENTS)]
    assert np.isnan(compare_with_median_db(scan)).sum() == 1
    assert np.isnan(compare_with_event_db(scan)).sum() == MICROPHONES


def test_of_an_event_is_that_of_its_median_microphone(scanned, audio):
    levels = find_event_levels_db(scanned(audio))
    np.testing.assert_allclose(levels, 20 * np.log10(0.1) - 10 * np.log10(2), atol=0.02)
    # Of 2 it is the louder one.
    np.testing.assert_allclose(find_event_levels_db(scanned(audio[..., 1:])), levels)


def test_events_and_channels_are_compared(scanned, audio):
    audio[3] *= 0.1
    audio[5] = 0
    scan = scanned(audio)
    expected = np.where(np.arange(EVENTS) == 3, -20.0, 0.0)
    expected[5] = -np.inf
    np.testing.assert_allclose(compare_with_median_db(scan), expected, atol=1e-6)
    relative = compare_with_event_db(scan)
    assert np.isnan(relative[5]).all()
    np.testing.assert_allclose(relative[[0, 3]], [[20, 0, -20]] * 2, atol=0.02)


def test_channels_are_dead_in_some_events_or_in_most(scanned, audio):
    audio[:6, :, 0] = 0.3
    audio[:5, :, 2] *= 1e-4
    audio[9] = 0  # silent: says nothing of single microphones
    is_dead_NC, always_C = find_dead(scanned(audio[:, :, [0, 1, 1, 2]]), 50.0)
    assert is_dead_NC.sum(axis=0).tolist() == [6, 0, 0, 5]
    # Of 9 events with sound.
    assert always_C.tolist() == [True, False, False, True]
    is_dead_NC, always_C = find_dead(scanned(audio[:, :, [0, 1, 1, 2]]), 120.0)
    assert is_dead_NC.sum(axis=0).tolist() == [6, 0, 0, 0]
    assert always_C.tolist() == [True, False, False, False]


def test_most_channels_of_an_event_are_dead(scanned, audio):
    audio[2, :, 1:] = 0
    is_dead_NC, _ = find_dead(scanned(audio), 50.0)
    assert is_dead_NC[2].tolist() == [False, True, True]
