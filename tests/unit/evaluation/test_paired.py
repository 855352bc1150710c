import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gerbil_tune.errors import DatasetError
from gerbil_tune.evaluation.bootstrap import FEWEST_GROUPS
from gerbil_tune.evaluation.paired import (
    PairedComparison,
    against_others,
    compare_methods,
    paired_bootstrap,
)
from gerbil_tune.evaluation.results import EvaluationResult, MethodResult
from tests.unit.evaluation.methods import gaussian_method

NAMES = ["error_median_mm", "error_p90_mm", "error_mean_mm", "nll"]


def figures(error_mm, nll=None):
    error_mm = np.asarray(error_mm, float)
    return {"error_mm": error_mm, "nll": error_mm / 10 if nll is None else np.asarray(nll, float)}


def width(difference):
    return difference.high - difference.low


def test_mean_has_the_interval_of_the_central_limit():
    generator = np.random.default_rng(1)
    b = generator.gamma(4, 5, 4000)
    d = generator.normal(-0.5, 3, 4000)
    found = paired_bootstrap(figures(b + d), figures(b)).differences["error_mean_mm"]
    standard_error = d.std() / np.sqrt(len(d))
    assert found.value == pytest.approx(d.mean())
    assert found.low == pytest.approx(d.mean() - 1.96 * standard_error, abs=0.15 * standard_error)
    assert found.high == pytest.approx(d.mean() + 1.96 * standard_error, abs=0.15 * standard_error)
    assert found.is_certain
    assert found.probability_better > 0.999


def test_median_of_independent_normals_has_its_known_standard_error():
    """Var of a sample median is pi/2 sigma^2/n; the difference of two independent ones has twice that."""
    generator = np.random.default_rng(2)
    a, b = generator.normal(100, 10, (2, 5000))
    found = paired_bootstrap(figures(a), figures(b)).differences["error_median_mm"]
    standard_error = np.sqrt(np.pi / 2 * 100 / 5000 * 2)
    assert width(found) == pytest.approx(2 * 1.96 * standard_error, rel=0.15)


def test_what_is_hard_for_both_cancels():
    generator = np.random.default_rng(3)
    hard = generator.gamma(1, 50, 1000)
    paired = paired_bootstrap(figures(hard + 1), figures(hard)).differences
    shuffled = paired_bootstrap(figures(hard + 1), figures(generator.permutation(hard))).differences
    for name in ("error_mean_mm", "error_median_mm"):
        assert paired[name].is_certain
        assert paired[name].low == pytest.approx(1.0)
        assert paired[name].high == pytest.approx(1.0)
        assert not shuffled[name].is_certain


def test_equal_models_are_equal():
    found = paired_bootstrap(figures([3.0, 1.0, 2.0]), figures([3.0, 1.0, 2.0]))
    for difference in found.differences.values():
        assert (difference.value, difference.low, difference.high) == (0, 0, 0)
        assert difference.probability_better == 0.5
        assert not difference.is_certain


def test_exchanging_the_models_changes_the_sign():
    generator = np.random.default_rng(4)
    a, b = figures(generator.gamma(2, 9, 60)), figures(generator.gamma(2, 10, 60))
    there, back = paired_bootstrap(a, b).differences, paired_bootstrap(b, a).differences
    for name in NAMES:
        assert there[name].value == pytest.approx(-back[name].value)
        assert there[name].low == pytest.approx(-back[name].high)
        assert there[name].probability_better == pytest.approx(1 - back[name].probability_better)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_draws_are_scored_as_numpy_scores_them(data):
    """The interval of confidence 0 is the median of the draws: of one draw, that draw."""
    n = data.draw(st.integers(1, 12))
    values = st.lists(st.integers(0, 5), min_size=n, max_size=n)
    a, b = (np.array(data.draw(values), float) for _ in range(2))
    groups = np.array(data.draw(values)) if data.draw(st.booleans()) else None
    seed = data.draw(st.integers(0, 100))
    found = paired_bootstrap(figures(a), figures(b), groups, num_draws=1, seed=seed)
    units = np.arange(n)
    if found.num_groups is not None:
        units = np.unique(groups, return_inverse=True)[1]
    drawn = np.random.default_rng(seed).integers(0, units.max() + 1, units.max() + 1)
    rows = np.concatenate([np.flatnonzero(units == unit) for unit in drawn])
    for name, statistic in (
        ("error_median_mm", np.median),
        ("error_p90_mm", lambda x: np.quantile(x, 0.9)),
        ("error_mean_mm", np.mean),
    ):
        expected = statistic(a[rows]) - statistic(b[rows])
        assert found.differences[name].low == pytest.approx(expected, abs=1e-9)
        assert found.differences[name].value == pytest.approx(statistic(a) - statistic(b), abs=1e-9)


def test_copies_of_an_event_are_no_more_evidence():
    generator = np.random.default_rng(5)
    a, b = generator.gamma(3, 10, 150), generator.gamma(3, 10, 150)
    once = paired_bootstrap(figures(a), figures(b))
    nine = [np.repeat(values, 9) for values in (a, b, np.arange(150) * 7 - 3)]
    grouped = paired_bootstrap(figures(nine[0]), figures(nine[1]), nine[2])
    alone = paired_bootstrap(figures(nine[0]), figures(nine[1]))
    assert (once.num_groups, grouped.num_groups, alone.num_groups) == (None, 150, None)
    assert grouped.num_events == 1350
    for name in ("error_mean_mm", "nll"):
        assert grouped.differences[name].low == pytest.approx(once.differences[name].low)
        assert width(alone.differences[name]) == pytest.approx(
            width(once.differences[name]) / 3, rel=0.15
        )


def test_too_few_groups_are_not_drawn():
    a, b = figures(np.arange(60.0)), figures(np.arange(60.0)[::-1])
    few = np.arange(60) % (FEWEST_GROUPS - 1)
    assert paired_bootstrap(a, b, few) == paired_bootstrap(a, b)
    assert paired_bootstrap(a, b, np.arange(60) % FEWEST_GROUPS).num_groups == FEWEST_GROUPS


def test_intervals_cover_the_truth_as_often_as_they_say():
    generator = np.random.default_rng(6)
    inside = 0
    for _ in range(120):
        b = generator.gamma(4, 5, 80)
        a = b + generator.normal(1.0, 4.0, 80)
        found = paired_bootstrap(figures(a), figures(b), num_draws=300, confidence=0.9)
        inside += (
            found.differences["error_mean_mm"].low <= 1.0 <= found.differences["error_mean_mm"].high
        )
    assert 0.82 <= inside / 120 <= 0.97


def test_the_seed_decides():
    a, b = figures(np.arange(30.0) ** 1.5), figures(np.arange(30.0) * 2)
    assert paired_bootstrap(a, b) == paired_bootstrap(a, b)
    assert paired_bootstrap(a, b, seed=1) != paired_bootstrap(a, b)


@pytest.mark.parametrize(("a", "b"), [([], []), ([1.0], [1.0, 2.0])])
def test_other_events_cannot_be_compared(a, b):
    with pytest.raises(DatasetError, match="compared on the same events"):
        paired_bootstrap(figures(a), figures(b))


@pytest.fixture
def evaluation():
    generator = np.random.default_rng(7)
    truth = generator.normal(0, 100, (200, 2, 2))
    covariance = np.broadcast_to(np.eye(2) * 100, (200, 2, 2, 2))
    methods = [
        gaussian_method(name, truth + generator.normal(0, spread, truth.shape), covariance, truth)
        for name, spread in (("good", 10), ("bad", 20))
    ]
    chance = MethodResult("chance", np.zeros_like(truth))
    return EvaluationResult("d.h5", (500.0, 500.0), ("nose", "ear"), truth, (*methods, chance))


def test_differences_are_those_of_the_table(evaluation):
    found = compare_methods(evaluation, "good", "bad")
    good, bad = (evaluation.figures(method) for method in evaluation.methods[:2])
    assert list(found.differences) == [*NAMES, "shortfall_95"]
    for name in NAMES:
        assert found.differences[name].value == pytest.approx(good[name] - bad[name])
        assert found.differences[name].high < 0
    short_good, short_bad = (max(0.0, 0.95 - each["coverage_95"]) for each in (good, bad))
    shortfall = found.differences["shortfall_95"]
    assert shortfall.value == pytest.approx(short_good - short_bad)
    assert shortfall.high < -0.2


def test_a_method_without_uncertainty_has_no_likelihood(evaluation):
    assert list(compare_methods(evaluation, "good", "chance").differences) == NAMES[:3]


def test_sentences(evaluation):
    groups = np.arange(200) // 10
    (bad, chance) = against_others(evaluation, "good", ["good", "bad", "chance"], groups)
    assert bad.startswith(
        "good minus bad on 200 events, drawn by 20 groups (with 95% intervals and the probability P that "
        "good is better): median error -"
    )
    assert " mm (-" in bad
    assert "P 1.00)" in bad
    assert "NLL" in bad
    assert "NLL" not in chance
    assert "1,000 events (with 90%" in PairedComparison({}, 1_000, None, 0.9).sentence("a", "b")
