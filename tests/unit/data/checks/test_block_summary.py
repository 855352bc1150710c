import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from gerbil_tune.data.checks.block_summary import merge, summarize


def tops_of(summary):
    return {(top.channel, top.sign): top for top in summary.flat_tops}


@pytest.mark.parametrize("dtype", ["int16", "int32", "float32", "float64", ">i2", ">f4"])
@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (64, 4), (1000, 4), (777, 24), (40, 300)])
def test_agrees_with_numpy(dtype, shape):
    audio = (np.random.default_rng(0).normal(50, 1000, shape)).astype(dtype)
    summary = summarize(audio)
    wide = audio.astype(np.float64)
    assert summary.num_samples == shape[0]
    assert summary.num_bytes == audio.nbytes
    np.testing.assert_array_equal(summary.low_C, wide.min(axis=0))
    np.testing.assert_array_equal(summary.high_C, wide.max(axis=0))
    np.testing.assert_allclose(summary.mean_C, wide.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(summary.sd_C, wide.std(axis=0), rtol=1e-12, atol=1e-12)


@given(
    arrays.arrays(np.float32, (50, 3), elements=st.floats(-1e6, 1e6, width=32)),
    st.integers(1, 49),
)
@settings(deadline=None)
def test_two_halves_are_the_whole(audio, cut):
    whole = summarize(audio)
    halves = merge(summarize(audio[:cut]), summarize(audio[cut:]))
    assert halves.num_samples == 50
    assert halves.num_bytes == whole.num_bytes
    np.testing.assert_array_equal(halves.low_C, whole.low_C)
    np.testing.assert_array_equal(halves.high_C, whole.high_C)
    np.testing.assert_allclose(halves.mean_C, whole.mean_C, rtol=1e-9, atol=1e-6)
    np.testing.assert_allclose(halves.squares_C, whole.squares_C, rtol=1e-6, atol=1e-3)


def test_a_large_offset_costs_no_precision():
    audio = np.random.default_rng(0).normal(0, 1, (5000, 2)) + 1e8
    summary = summarize(audio)
    np.testing.assert_allclose(summary.sd_C, (audio - 1e8).std(axis=0), rtol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_shows_in_the_extremes(value):
    audio = np.random.default_rng(0).normal(size=(500, 3))
    audio[123, 1] = value
    with np.errstate(all="ignore"):
        summary = summarize(audio)
    finite = np.isfinite(summary.low_C) & np.isfinite(summary.high_C)
    assert finite.tolist() == [True, False, True]


def test_runs_at_the_extremes_are_counted():
    audio = np.random.default_rng(0).normal(0, 100, (1000, 2)).astype(np.float32)
    audio[100:103, 1] = audio[500:505, 1] = 1000
    audio[[10, 20, 30, 31], 0] = 1000  # not in a row
    audio[700:702, 0] = -2000
    audio[800:804, 1] = -2000
    tops = tops_of(summarize(audio))
    assert set(tops) == {(1, 1), (1, -1)}
    assert (tops[1, 1].value, tops[1, 1].runs, tops[1, 1].samples) == (1000, 2, 8)
    assert (tops[1, -1].value, tops[1, -1].runs, tops[1, -1].samples) == (-2000, 1, 4)
    assert tops[1, 1].is_steep


def test_runs_at_the_ends_of_a_block_are_counted():
    audio = np.random.default_rng(0).normal(0, 100, (1000, 1))
    audio[:3], audio[-3:] = 1000, 1000
    assert tops_of(summarize(audio))[0, 1].runs == 2


def test_the_crest_of_a_rounded_slow_wave_is_not_steep():
    audio = np.round(1000 * np.sin(np.arange(5000) / 400))[:, None]
    tops = tops_of(summarize(audio))
    assert tops[0, 1].runs >= 1
    assert not tops[0, 1].is_steep
    assert not tops[0, -1].is_steep


def test_a_constant_channel_has_no_flat_top():
    audio = np.random.default_rng(0).normal(size=(100, 2))
    audio[:, 1] = 3
    assert summarize(audio).flat_tops == ()


def test_flat_tops_of_a_lower_block_are_forgotten():
    low, high = (np.random.default_rng(seed).normal(size=(100, 1)) for seed in (0, 1))
    low[10:14], high[50:56] = 10, 20
    merged = merge(summarize(low), summarize(high))
    assert [(top.value, top.samples) for top in merged.flat_tops] == [(20.0, 6)]
    again = merge(merged, summarize(high))
    assert [(top.runs, top.samples) for top in again.flat_tops] == [(2, 12)]
