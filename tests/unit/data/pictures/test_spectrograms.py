import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gerbil_tune.data.pictures.spectrograms import (
    centred,
    colour_range_db,
    level_db,
    level_text,
    spectrograms_db,
    window_length,
)

RATE_HZ = 125_000.0


def tone(frequency_hz, num_samples, amplitude=1.0):
    return amplitude * np.sin(2 * np.pi * frequency_hz * np.arange(num_samples) / RATE_HZ)


def test_a_tone_is_in_its_row_all_the_time():
    power_db = spectrograms_db(tone(20_000, 8192)[:, None], 512, 40)

    assert power_db.shape == (1, 257, 40)
    rows = power_db[0].argmax(axis=0)
    np.testing.assert_array_equal(rows[1:-1], round(20_000 / RATE_HZ * 512))


def test_twice_the_amplitude_is_six_decibels_more():
    audio = np.stack([tone(9000, 4096), tone(9000, 4096, 2.0)], axis=1)
    quiet, loud = spectrograms_db(audio, 256, 20).max(axis=(1, 2))

    assert loud - quiet == pytest.approx(20 * math.log10(2), abs=1e-4)


@pytest.mark.parametrize("num_samples", [20_000, 500_000])
def test_a_click_is_in_its_column(num_samples):
    audio = np.zeros((num_samples, 1))
    middle = round(0.71 * num_samples)
    audio[middle : middle + 2, 0] = 1.0, -1.0
    power_db = spectrograms_db(audio, 256, 50)[0].max(axis=0)

    assert power_db.argmax() == 35
    assert power_db[:30].max() == pytest.approx(-300, abs=1)


def test_rows_are_the_loudest_of_their_frequencies():
    audio = np.random.default_rng(0).standard_normal((4000, 2))
    full = spectrograms_db(audio, 128, 30)
    half = spectrograms_db(audio, 128, 30, 13)

    np.testing.assert_allclose(half, full.reshape(2, 13, 5, 30).max(axis=2), atol=1e-5)
    assert spectrograms_db(audio, 128, 30, 200).shape == (2, 200, 30)


def test_silence_is_background():
    power_db = spectrograms_db(np.full((1000, 2), 7, np.int16), 64, 10)
    low_db, top_db = colour_range_db(power_db)

    assert low_db < top_db
    assert power_db.max() <= low_db


@given(st.floats(-200, 200), st.floats(0, 200), st.floats(0, 1))
def test_colours_span_25_to_70_decibels(top, span, share):
    power_db = np.where(np.linspace(0, 1, 101) < share, top - span, top)
    low_db, top_db = colour_range_db(power_db)

    assert top_db == power_db.max()
    assert top_db - low_db + 1e-6 >= 25
    assert top_db - low_db <= 70 + 1e-6


@given(st.none() | st.floats(10.0, 1e6), st.integers(0, 10**7))
def test_windows_are_powers_of_two_and_short_for_the_event(rate_hz, num_samples):
    window = window_length(rate_hz, num_samples)

    assert window >= 32
    assert window == 2 ** round(math.log2(window))
    assert window <= max(num_samples / 4, 32)


@pytest.mark.parametrize(("rate_hz", "window"), [(125e3, 512), (250e3, 1024), (None, 512)])
def test_windows_are_of_four_milliseconds(rate_hz, window):
    assert window_length(rate_hz, 100_000) == window


@pytest.mark.parametrize(
    ("audio", "level"),
    [
        (np.tile([1.0, -1.0], 50)[:, None], 0.0),
        (np.tile([1.0, -1.0], 50)[:, None] + 99, 0.0),
        (np.stack([np.tile([1.0, -1.0], 50), np.zeros(100)], axis=1), -3.0103),
        (np.tile([2**14, -(2**14)], 50).astype(np.int16)[:, None], -6.0206),
        (np.tile([2**30, -(2**30)], 50).astype(np.int32)[:, None], -6.0206),
        (np.ones((100, 2)), -math.inf),
        (np.zeros((0, 2)), -math.inf),
        (np.array([[1.0], [np.nan]]), math.nan),
        (np.array([[1.0], [np.inf]]), math.nan),
        (np.array([[1e300], [-1e300]]), math.nan),
    ],
)
def test_levels(audio, level):
    assert level_db(audio) == pytest.approx(level, abs=1e-3, nan_ok=True)


@pytest.mark.parametrize(
    ("level", "dtype", "text"),
    [
        (-31.46, "float32", "\N{MINUS SIGN}31.5 dB re 1"),
        (-3.0, "int16", "\N{MINUS SIGN}3.0 dB re full scale"),
        (12.0, "float64", "12.0 dB re 1"),
        (-math.inf, "int16", "silent"),
        (math.nan, "float32", "not finite"),
    ],
)
def test_levels_in_words(level, dtype, text):
    assert level_text(level, np.dtype(dtype)) == text


def test_what_is_not_finite_is_nothing():
    values = centred(np.array([np.nan, np.inf, -np.inf, 4.0, -1.0, 1e300]))

    assert np.isfinite(values).all()
    np.testing.assert_allclose(centred(np.array([np.nan, 3.0, -3.0])), [0.0, 3.0, -3.0])
