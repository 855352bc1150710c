"""Intervals of figures of merit, and what events add to them."""

import numpy as np
import pytest

from gerbil_tune.evaluation.bootstrap import bootstrap_intervals, event_figures
from gerbil_tune.evaluation.results import MethodResult


def test_the_mean_has_the_interval_of_the_central_limit() -> None:
    errors_N = np.random.default_rng(0).exponential(30.0, 4000)
    found = bootstrap_intervals({"error_mm": errors_N})["error_mean_mm"]
    half = 1.96 * errors_N.std() / np.sqrt(len(errors_N))
    assert found.value == pytest.approx(errors_N.mean())
    assert (found.low, found.high) == pytest.approx(
        (found.value - half, found.value + half), rel=0.01
    )


def test_copies_of_an_event_are_worth_one() -> None:
    errors_N = np.random.default_rng(1).exponential(30.0, 300)
    alone = bootstrap_intervals({"error_mm": errors_N})["error_mean_mm"]
    copies = np.repeat(errors_N, 9)
    grouped = bootstrap_intervals({"error_mm": copies}, np.repeat(np.arange(300), 9))[
        "error_mean_mm"
    ]
    single = bootstrap_intervals({"error_mm": copies})["error_mean_mm"]
    width = alone.high - alone.low
    assert grouped.high - grouped.low == pytest.approx(width, rel=0.1)
    assert single.high - single.low == pytest.approx(width / 3, rel=0.1)


def test_coverage_is_a_share_with_the_interval_of_the_binomial() -> None:
    level_NK = np.linspace(0, 1, 1000)[:, None]
    truth = np.zeros((1000, 1, 2))
    method = MethodResult("m", truth, nll_NK=np.zeros((1000, 1)), level_NK=level_NK)
    figures = event_figures(method, truth)
    assert sorted(figures) == ["covered_95", "error_mm", "nll"]
    found = bootstrap_intervals(figures)["coverage_95"]
    assert found.value == pytest.approx(0.95)
    assert found.high - found.low == pytest.approx(2 * 1.96 * np.sqrt(0.95 * 0.05 / 1000), rel=0.1)


def test_a_point_has_an_error_alone() -> None:
    truth = np.zeros((3, 2, 2))
    assert list(event_figures(MethodResult("point", truth), truth)) == ["error_mm"]
