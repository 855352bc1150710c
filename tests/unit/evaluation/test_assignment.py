"""Which animal called: probabilities, and the error rate that is promised."""

import math

import numpy as np
import pytest
import torch

from gerbil_tune.errors import ConfigError
from gerbil_tune.evaluation.assignment import (
    NOBODY,
    assign,
    caller_probabilities,
    fit_assignment,
    log_densities_at_animals,
    log_uniform_density,
)
from gerbil_tune.models.density import JointDensity, LocationDensity

ARENA_MM = (572.0, 356.0)
UNIFORM = log_uniform_density(ARENA_MM, 1, 2)


def dyads(count: int, seed: int, *, sd_mm: float = 40.0, outliers: float = 0.0):
    """Two animals anywhere, one of which calls; a density about the caller that ignores its own outliers."""
    rng = np.random.default_rng(seed)
    half = np.array(ARENA_MM) / 2
    tracks = rng.uniform(-half, half, (count, 2, 1, 2))
    callers = rng.integers(0, 2, count)
    means = tracks[np.arange(count), callers] + rng.normal(0, sd_mm, (count, 1, 2))
    lost = rng.random(count) < outliers
    means[lost] = rng.uniform(-half, half, (int(lost.sum()), 1, 2))
    factor = sd_mm * torch.eye(2).double().expand(count, 1, 2, 2)
    return LocationDensity.gaussian(torch.from_numpy(means), factor), tracks, callers


def test_log_densities_are_those_of_the_keypoints_together() -> None:
    tracks = np.random.default_rng(0).normal(0, 50, (3, 4, 2, 2))
    factor = torch.diag(torch.tensor([10.0, 20.0, 30.0, 40.0])).double()
    joint = JointDensity.joint_gaussian(torch.zeros(3, 2, 2).double(), factor.expand(3, 4, 4))
    alone = torch.distributions.MultivariateNormal(torch.zeros(4).double(), scale_tril=factor)
    expected = alone.log_prob(torch.from_numpy(tracks).flatten(2))
    np.testing.assert_allclose(log_densities_at_animals(joint, tracks), expected, rtol=1e-9)
    apart = log_densities_at_animals(joint.marginals(), tracks)
    np.testing.assert_allclose(apart, expected, rtol=1e-9)


def test_true_densities_need_no_correction_and_their_probabilities_are_true() -> None:
    density, tracks, callers = dyads(4000, 0)
    found = log_densities_at_animals(density, tracks)
    rule = fit_assignment(found, callers, UNIFORM)
    assert rule.power in (0.85, 1.0, 1.2)
    assert rule.background <= 1e-3
    probability = caller_probabilities(found, UNIFORM, power=1.0, background=0.0)
    np.testing.assert_allclose(probability.sum(1), 1.0)
    for low, high in ((0.5, 0.7), (0.7, 0.9), (0.9, 0.99)):
        inside = (probability.max(1) >= low) & (probability.max(1) < high)
        right = probability.argmax(1) == callers
        stated = probability.max(1)[inside].mean()
        assert right[inside].mean() == pytest.approx(stated, abs=4 * math.sqrt(0.25 / inside.sum()))


@pytest.mark.parametrize("outliers", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("error_rate", [0.02, 0.05, 0.1])
def test_the_error_rate_is_kept_on_other_calls(outliers: float, error_rate: float) -> None:
    fitted, checked = (dyads(3000, seed, outliers=outliers) for seed in (1, 2))
    found = [log_densities_at_animals(density, tracks) for density, tracks, _ in (fitted, checked)]
    rule = fit_assignment(found[0], fitted[2], UNIFORM, error_rate=error_rate)
    _, callers = assign(found[1], UNIFORM, rule)
    named = callers != NOBODY
    wrong = (callers != checked[2])[named].mean() if named.any() else 0.0
    assert wrong <= error_rate + 2 * math.sqrt(error_rate / max(named.sum(), 1))
    if outliers < error_rate:
        assert named.mean() > 0.7


def test_an_animal_that_was_not_seen_may_be_anywhere() -> None:
    density, tracks, _ = dyads(1, 0)
    mean = density.mean_mm_BKD.numpy()
    seen = np.stack([mean, mean + 1e3], axis=1)
    lost = seen.copy()
    lost[:, 1] = np.nan
    both, one = (
        caller_probabilities(
            log_densities_at_animals(density, each), UNIFORM, power=1.0, background=0.01
        )
        for each in (seen, lost)
    )
    assert both[0, 0] > one[0, 0] > 0.9
    nobody = np.full_like(tracks, np.nan)
    found = log_densities_at_animals(density, nobody)
    even = caller_probabilities(found, UNIFORM, power=1.0, background=0.01)
    np.testing.assert_allclose(even, 0.5)


def test_where_nothing_can_be_told_nobody_is_named() -> None:
    rng = np.random.default_rng(0)
    found, callers = rng.normal(size=(500, 2)), rng.integers(0, 2, 500)
    rule = fit_assignment(found, callers, UNIFORM)
    assert (assign(found, UNIFORM, rule)[1] == NOBODY).mean() > 0.95


@pytest.mark.parametrize(
    ("count", "error_rate", "says"),
    [
        (99, 0.05, "at least 100 calls"),
        (200, 0.0, "between 0 and 1"),
        (200, 1.5, "between 0 and 1"),
    ],
)
def test_what_cannot_be_fitted_is_said(count: int, error_rate: float, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        fit_assignment(np.zeros((count, 2)), np.zeros(count, int), UNIFORM, error_rate=error_rate)


def test_the_arena_needs_a_width_for_each_axis() -> None:
    assert log_uniform_density((10.0, 20.0), 3, 2) == pytest.approx(-3 * math.log(200.0))
    with pytest.raises(ConfigError, match="give all widths"):
        log_uniform_density((10.0, 20.0), 1, 3)
