import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from gerbil_tune.data.checks.block_summary import merge, summarize


@pytest.mark.parametrize("dtype", ["int16", "int32", "float32", "float64", ">i2", ">f4"])
@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (64, 4), (1000, 4), (777, 24), (40, 300)])
def test_agrees_with_numpy(dtype, shape):
    audio = (np.random.default_rng(0).normal(50, 1000, shape)).astype(dtype)
    summary = summarize(audio)
    wide = audio.astype(np.float64)
    assert summary.num_samples == shape[0]
    np.testing.assert_array_equal(summary.low_C, wide.min(axis=0))
    np.testing.assert_array_equal(summary.high_C, wide.max(axis=0))
    np.testing.assert_array_equal(summary.num_low_C, (wide == wide.min(axis=0)).sum(axis=0))
    np.testing.assert_array_equal(summary.num_high_C, (wide == wide.max(axis=0)).sum(axis=0))
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
    np.testing.assert_array_equal(halves.low_C, whole.low_C)
    np.testing.assert_array_equal(halves.high_C, whole.high_C)
    np.testing.assert_array_equal(halves.num_low_C, whole.num_low_C)
    np.testing.assert_array_equal(halves.num_high_C, whole.num_high_C)
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
    assert not summary.is_finite


def test_samples_at_the_extremes_are_counted_in_coarse_noise():
    audio = np.round(np.random.default_rng(0).normal(0, 2, (5000, 3))).astype(np.int16)
    summary = summarize(audio)
    assert summary.num_high_C.tolist() == (audio == audio.max(axis=0)).sum(axis=0).tolist()
    assert summary.num_high_C.max() > 1


def test_a_constant_channel():
    audio = np.random.default_rng(0).normal(size=(100, 2))
    audio[:, 1] = 3
    summary = summarize(audio)
    assert summary.constant_C.tolist() == [False, True]
    assert summary.num_high_C.tolist() == [1, 100]
