"""Mean and standard deviation of events, against NumPy in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gerbil_tune.data.files.statistics import event_statistics


@settings(deadline=None)
@given(
    num_samples=st.sampled_from([1, 2, 1000, 65536, 65537, 140000]),
    num_channels=st.sampled_from([1, 4, 24]),
    offset=st.sampled_from([0.0, 1.0, 3e4]),
    dtype=st.sampled_from(["int16", "float32", "float64"]),
)
def test_against_numpy(num_samples, num_channels, offset, dtype):
    generator = np.random.default_rng(num_samples)
    audio = (generator.standard_normal((num_samples, num_channels)) * 100 + offset).clip(-3e4, 3e4)
    audio = audio.astype(dtype)
    mean, sd = event_statistics(audio)
    assert mean.dtype == sd.dtype == np.float32
    np.testing.assert_allclose(mean, audio.astype(np.float64).mean(0), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(sd, audio.astype(np.float64).std(0), rtol=1e-5, atol=1e-3)


def test_constant_events_have_no_deviation_at_all():
    mean, sd = event_statistics(np.full((1000, 2), 0.1, np.float32))
    assert mean.tolist() == [np.float32(0.1)] * 2
    assert sd.tolist() == [0.0, 0.0]


def test_empty_events_are_zeros():
    mean, sd = event_statistics(np.zeros((0, 3), np.int16))
    assert mean.tolist() == sd.tolist() == [0.0] * 3


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_numbers_show(value):
    _, sd = event_statistics(np.array([[1.0, 2.0], [value, 3.0]], np.float32))
    assert not np.isfinite(sd[0])
    assert np.isfinite(sd[1])
