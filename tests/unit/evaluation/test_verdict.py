"""When a model may take the place of another."""

import numpy as np
import pytest

from gerbil_tune.evaluation.paired import paired_bootstrap
from gerbil_tune.evaluation.verdict import judge

GENERATOR = np.random.default_rng(0)
ERRORS = GENERATOR.exponential(30.0, 500)
COVERED = (GENERATOR.random(500) < 0.95).astype(float)


def figures(factor: float = 1.0, covered: float = 1.0) -> dict[str, np.ndarray]:
    noise = np.random.default_rng(1).normal(0.0, 1.0, 500)
    return {"error_mm": factor * ERRORS + np.abs(noise), "covered_95": COVERED * covered}


@pytest.mark.parametrize(
    ("candidate", "worse", "better"),
    [
        (figures(), (), ()),
        (figures(1.2), ("median error", "mean error"), ()),
        (figures(0.8), (), ("median error", "mean error")),
        (figures(covered=0.8), ("coverage",), ()),
        (figures(0.8, covered=0.8), ("coverage",), ("median error", "mean error")),
    ],
)
def test_what_is_beyond_chance_counts(candidate, worse, better):
    verdict = judge(paired_bootstrap(candidate, figures(), num_draws=500))
    assert (verdict.worse, verdict.better) == (worse, better)


def test_it_is_said_in_a_sentence():
    both = judge(paired_bootstrap(figures(0.8, covered=0.8), figures(), num_draws=500))
    assert both.sentence("new", "old") == (
        "beyond chance, new is worse in coverage and better in median error and mean error than old"
    )
    same = judge(paired_bootstrap(figures(), figures(), num_draws=100))
    assert same.sentence("new", "old") == "new and old differ by no more than chance"


def test_too_wide_regions_are_not_held_against_a_model():
    wide = {**figures(), "covered_95": np.ones(500)}
    assert judge(paired_bootstrap(wide, figures(), num_draws=500)).worse == ()
