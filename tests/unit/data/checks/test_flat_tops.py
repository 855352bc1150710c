import functools
import itertools

import numpy as np
import pytest

from gerbil_tune.data.checks.block_summary import merge, summarize
from gerbil_tune.data.checks.flat_tops import find_flat_tops

NUM_SAMPLES = 20_000
RATE_HZ = 125_000


def tone(amplitude=1.0, hertz=7_013.0, phase=0.3, num_samples=NUM_SAMPLES):
    return amplitude * np.sin(2 * np.pi * hertz / RATE_HZ * np.arange(num_samples) + phase)


def tops_of(*blocks):
    """Flat tops of an event given in blocks (T, C) or (T,), by channel and sign."""
    blocks = [block[:, None] if block.ndim == 1 else block for block in blocks]
    tops = find_flat_tops(blocks, functools.reduce(merge, map(summarize, blocks)))
    found = {(top.channel, top.sign): top for top in tops}
    assert len(found) == len(tops)
    return found


def test_runs_at_the_extremes_are_counted():
    audio = np.random.default_rng(0).normal(0, 100, (1000, 2)).astype(np.float32)
    audio[100:103, 1] = audio[500:505, 1] = 1000
    audio[[10, 20, 30, 31], 0] = 1000  # not in a row
    audio[700:702, 0] = -2000
    audio[800:804, 1] = -2000
    tops = tops_of(audio)
    assert set(tops) == {(1, 1), (1, -1)}
    assert (tops[1, 1].value, tops[1, 1].runs, tops[1, 1].samples) == (1000, 2, 8)
    assert (tops[1, -1].value, tops[1, -1].runs, tops[1, -1].samples) == (-2000, 1, 4)
    assert tops[1, 1].is_steep
    assert not tops[1, 1].comes_back


def test_runs_at_the_ends_of_an_event_are_counted():
    audio = np.random.default_rng(0).normal(0, 100, 1000)
    audio[:3], audio[-3:] = 1000, 1000
    assert tops_of(audio)[0, 1].runs == 2


def test_the_crest_of_a_rounded_slow_wave_is_not_steep():
    tops = tops_of(np.round(1000 * np.sin(np.arange(5000) / 400)))
    assert tops[0, 1].runs >= 1
    assert not tops[0, 1].is_steep
    assert not tops[0, -1].is_steep


def test_a_constant_channel_has_no_flat_top():
    audio = np.random.default_rng(0).normal(size=(100, 2))
    audio[:, 1] = 3
    assert tops_of(audio) == {}


def test_what_is_not_finite_is_not_looked_at():
    audio = np.random.default_rng(0).normal(size=(100, 2))
    audio[:3, 0], audio[50, 1] = 9, np.inf
    with np.errstate(invalid="ignore"):
        assert tops_of(audio) == {}


def test_flat_tops_of_a_lower_block_are_none():
    low, high = (np.random.default_rng(seed).normal(size=100) for seed in (0, 1))
    low[10:14], high[50:56] = 10, 20
    assert [(top.value, top.samples) for top in tops_of(low, high).values()] == [(20.0, 6)]
    again = tops_of(low, high, high)
    assert [(top.runs, top.samples) for top in again.values()] == [(2, 12)]


@pytest.mark.parametrize("times", [4, 5])
def test_a_value_comes_back_from_5_times_on(times):
    audio = np.random.default_rng(0).normal(size=1000)
    audio[100 * np.arange(times)] = 7.0
    tops = tops_of(audio)
    assert set(tops) == ({(0, 1)} if times == 5 else set())


@pytest.mark.parametrize("hertz", [7_013.0, 41_007.0])
def test_an_ultrasonic_tone_that_is_cut_off_comes_back(hertz):
    tops = tops_of(np.clip(tone(hertz=hertz), -0.9, 0.9))
    assert all(top.comes_back for top in tops.values())
    assert len(tops) == 2
    # At 41 kHz, 3 samples are a period.
    assert all((top.runs == 0) == (hertz > 40_000) for top in tops.values())


def test_it_does_not_matter_how_an_event_is_cut_into_blocks():
    audio = np.round(np.clip(tone(3000), -2500, 2500)).astype(np.int16)
    whole = tops_of(audio)
    parts = tops_of(*np.array_split(audio, 7))
    for key, top in whole.items():
        assert (parts[key].samples, parts[key].comes_back) == (top.samples, True)


class TestNoFlatTop:
    """What takes its extreme often, and is not cut off."""

    @pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16])
    @pytest.mark.parametrize(
        ("period", "phase"),
        # At a phase of 0, periods of 4 and 6 take the extremes and 0 only, as what is cut off may.
        [
            *((period, 0.3) for period in (4, 6)),
            *itertools.product((5, 7, 8, 10, 20, 25), (0, 0.3)),
        ],
    )
    def test_a_tone_of_whole_samples_a_period(self, dtype, period, phase):
        audio = tone(20_000.0, RATE_HZ / period, phase).astype(dtype)
        assert not any(top.comes_back for top in tops_of(audio).values())

    @pytest.mark.parametrize("amplitude", [1, 2, 5, 8, 20.5, 100, 1000, 30_000])
    @pytest.mark.parametrize("hertz", [50.0, 3_001.0, 7_013.0, 41_007.0])
    @pytest.mark.parametrize("scale", [1, 2.0**-15])
    def test_a_rounded_tone(self, amplitude, hertz, scale):
        audio = np.round(tone(amplitude, hertz)) * scale
        tops = tops_of(audio.astype(np.int16 if scale == 1 else np.float32)).values()
        assert not any(top.comes_back or top.is_steep for top in tops)

    def test_hum_with_flat_crests(self):
        """A third harmonic of -1/9 makes the crest level to the third order."""
        hum = tone(1.0, 50.0, 0) + tone(1.0, 150.0, 0) / 9
        tops = tops_of(np.round(1000 * hum)).values()
        assert not any(top.comes_back or top.is_steep for top in tops)

    @pytest.mark.parametrize("sd", [0.3, 1, 3, 10, 30, 3000])
    def test_rounded_noise(self, sd):
        audio = np.random.default_rng(0).normal(0, sd, (NUM_SAMPLES, 8))
        tops = tops_of(np.round(audio).astype(np.int16)).values()
        assert not any(top.comes_back or top.is_steep for top in tops)

    @pytest.mark.parametrize("dtype", [np.float32, np.int16])
    def test_samples_that_are_repeated(self, dtype):
        audio = np.repeat(np.random.default_rng(0).normal(0, 300, (2500, 4)), 4, axis=0)
        assert not any(top.comes_back for top in tops_of(audio.astype(dtype)).values())

    @pytest.mark.parametrize("levels", [(-1000, 1000), (-1, 0, 1), (0, 5000)])
    def test_pulses_of_a_few_levels(self, levels):
        audio = np.random.default_rng(0).choice(levels, NUM_SAMPLES).astype(np.int16)
        assert not any(top.comes_back for top in tops_of(audio).values())
