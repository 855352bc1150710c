import numpy as np
import pytest

from gerbil_tune.evaluation.region_errors import region_errors, region_figure
from gerbil_tune.evaluation.results import EvaluationResult, MethodResult, median_size


def evaluation(sizes):
    sizes = np.asarray(sizes, np.float32)[:, None]
    truth = np.zeros((len(sizes), 1, 2))
    method = MethodResult("net", truth, region_size_95_NK=sizes)
    return EvaluationResult("d.h5", (500.0, 500.0), ("nose",), truth, (method,))


def test_the_rank_correlation_is_of_order_alone():
    sizes = np.arange(1, 101)
    assert region_errors(evaluation(sizes), 0, sizes**3).rank_correlation == pytest.approx(1)
    assert region_errors(evaluation(sizes), 0, -sizes).rank_correlation == pytest.approx(-1)
    found = region_errors(evaluation(sizes), 0, sizes)
    np.testing.assert_array_equal(found.running_size, found.running_error_mm)
    assert len(found.running_size) == 10


def test_regions_without_bounds_are_counted_apart():
    found = region_errors(evaluation([1, 2, np.inf, np.nan]), 0, np.array([1.0, 2, 3, 4]))
    assert (found.num_infinite, found.size_M.tolist()) == (1, [1, 2])


def test_sizes_that_are_all_alike_have_no_order():
    found = region_errors(evaluation(np.full(30, 7.0)), 0, np.arange(30.0))
    assert np.isnan(found.rank_correlation)


def test_a_method_without_regions_has_none():
    truth = np.zeros((3, 1, 2))
    result = EvaluationResult("d", (1.0, 1.0), ("nose",), truth, (MethodResult("a", truth),))
    assert region_errors(result, 0, np.zeros(3)) is None


def test_many_events_are_thinned_the_same_each_time():
    sizes = np.random.default_rng(0).gamma(2, 20, 5000)
    found = region_errors(evaluation(sizes), 0, sizes)
    first, second = (region_figure([found], {"net": "#123456"}, 2) for _ in range(2))
    assert len(first.data[0].x) == 3000
    np.testing.assert_array_equal(first.data[0].x, second.data[0].x)


@pytest.mark.parametrize(
    ("sizes", "median"),
    [([1, 3, 2], 2), ([1, 2, 3, 4], 2.5), ([1, np.inf], np.inf), ([1, 2, np.inf], 2)],
)
def test_the_median_size_may_be_infinite(sizes, median):
    assert median_size(np.array(sizes, float)) == median
