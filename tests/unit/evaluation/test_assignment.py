"""Which animal called: probabilities, and the error rate that is promised."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from gerbil_tune.errors import ConfigError
from gerbil_tune.evaluation.assignment import (
    NOBODY,
    assign,
    caller_probabilities,
    fit_caller_rule,
    log_densities_at_animals,
    log_uniform_density,
    promised_error_rate,
)
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.density import JointDensity, LocationDensity

ARENA_MM = (572.0, 356.0)
SETUP = RecordingSetup(4, 125_000.0, ARENA_MM)
UNIFORM = log_uniform_density(ARENA_MM, 1, 2)


def calls(count: int, seed: int, *, sd_mm: float = 25.0, outliers: float = 0.0):
    """Calls anywhere, and a density about each that knows nothing of its own outliers."""
    rng = np.random.default_rng(seed)
    half = np.array(ARENA_MM) / 2
    truth = rng.uniform(-half, half, (count, 1, 2))
    means = truth + rng.normal(0, sd_mm, (count, 1, 2))
    lost = rng.random(count) < outliers
    means[lost] = rng.uniform(-half, half, (int(lost.sum()), 1, 2))
    factor = sd_mm * torch.eye(2).double().expand(count, 1, 2, 2)
    return LocationDensity.gaussian(torch.from_numpy(means), factor), truth


def among_others(truth, seed: int, *, animals: int = 2, apart_mm: float | None = None):
    """Tracks in which the caller is at a random place; the others anywhere, or at one distance from it."""
    rng = np.random.default_rng(seed)
    half = np.array(ARENA_MM) / 2
    count = len(truth)
    tracks = rng.uniform(-half, half, (count, animals, 1, 2))
    if apart_mm is not None:
        angle = rng.uniform(0, 2 * math.pi, (count, animals, 1))
        tracks = truth[:, None] + apart_mm * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    callers = rng.integers(0, animals, count)
    tracks[np.arange(count), callers] = truth
    return tracks, callers


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
    density, truth = calls(4000, 0)
    rule = fit_caller_rule(density, truth, SETUP)
    assert rule is not None
    assert rule.power in (0.85, 1.0, 1.2)
    assert rule.background <= 1e-3
    tracks, callers = among_others(truth, 1)
    found = log_densities_at_animals(density, tracks)
    probability = caller_probabilities(found, UNIFORM, power=1.0, background=0.0)
    np.testing.assert_allclose(probability.sum(1), 1.0)
    for low, high in ((0.5, 0.7), (0.7, 0.9), (0.9, 0.99)):
        inside = (probability.max(1) >= low) & (probability.max(1) < high)
        right = probability.argmax(1) == callers
        stated = probability.max(1)[inside].mean()
        assert right[inside].mean() == pytest.approx(stated, abs=4 * math.sqrt(0.25 / inside.sum()))


@pytest.fixture(scope="module", params=[0.0, 0.1])
def fitted(request):
    """Share of outliers, and the rule fitted beside them."""
    return request.param, fit_caller_rule(*calls(4000, 1, outliers=request.param), SETUP)


@pytest.mark.parametrize("apart_mm", [None, 25.0, 60.0, 150.0])
def test_the_error_rate_is_kept_however_near_the_animals_are(fitted, apart_mm) -> None:
    outliers, rule = fitted
    density, truth = calls(4000, 2, outliers=outliers)
    tracks, callers = among_others(truth, 3, apart_mm=apart_mm)
    found = log_densities_at_animals(density, tracks)
    for error_rate in (0.02, 0.05, 0.1):
        _, named = assign(found, tracks, UNIFORM, rule, error_rate)
        is_named = named != NOBODY
        wrong = (named != callers)[is_named].mean() if is_named.any() else 0.0
        assert wrong <= error_rate + 2 * math.sqrt(error_rate / max(is_named.sum(), 1))
        if apart_mm in (None, 150.0) and outliers < error_rate:
            assert is_named.mean() > 0.7


def test_of_four_animals_the_error_rate_is_kept_too() -> None:
    rule = fit_caller_rule(*calls(4000, 1, outliers=0.01), SETUP)
    assert rule is not None
    density, truth = calls(4000, 2, outliers=0.01)
    tracks, callers = among_others(truth, 3, animals=4)
    found = log_densities_at_animals(density, tracks)
    probability, named = assign(found, tracks, UNIFORM, rule, 0.06)
    assert probability.shape == (4000, 4)
    is_named = named != NOBODY
    assert is_named.mean() > 0.6
    assert (named != callers)[is_named].mean() <= 0.06
    assert promised_error_rate(rule, 0.07, 4) == pytest.approx(0.06)


def test_an_animal_that_was_not_seen_may_be_anywhere() -> None:
    density, truth = calls(2000, 0)
    rule = fit_caller_rule(density, truth, SETUP)
    assert rule is not None
    tracks, callers = among_others(truth, 1)
    tracks[np.arange(2000), np.random.default_rng(2).integers(0, 2, 2000)] = np.nan
    found = log_densities_at_animals(density, tracks)
    _, named = assign(found, tracks, UNIFORM, rule, 0.05)
    is_named = named != NOBODY
    assert is_named.mean() > 0.5
    assert (named != callers)[is_named].mean() <= 0.06
    nobody = np.full_like(tracks, np.nan)
    found = log_densities_at_animals(density, nobody)
    even, named = assign(found, nobody, UNIFORM, rule, 0.05)
    np.testing.assert_allclose(even, 0.5)
    assert (named == NOBODY).all()
    lenient = replace(rule, thresholds=((0.0,) * len(rule.thresholds[0]),) * len(rule.thresholds))
    assert (assign(found, nobody, UNIFORM, lenient, 0.05)[1] == NOBODY).all()


def test_where_nothing_can_be_told_nobody_is_named() -> None:
    density, truth = calls(500, 0, outliers=1.0)
    rule = fit_caller_rule(density, truth, SETUP)
    assert rule is not None
    tracks, _ = among_others(truth, 1)
    found = log_densities_at_animals(density, tracks)
    assert (assign(found, tracks, UNIFORM, rule, 0.05)[1] == NOBODY).mean() > 0.95
    assert promised_error_rate(rule, 1e-4, 2) is None


def test_an_animal_by_itself_is_the_caller() -> None:
    density, truth = calls(200, 0)
    rule = fit_caller_rule(density, truth, SETUP)
    assert rule is not None
    found = log_densities_at_animals(density, truth[:, None])
    probability, named = assign(found, truth[:, None], UNIFORM, rule, 0.05)
    assert (probability == 1).all()
    assert (named == 0).all()


def test_several_keypoints_and_three_axes_have_a_rule() -> None:
    setup = RecordingSetup(
        4, 125_000.0, (572.0, 356.0, 300.0), keypoints=("nose", "tail"), num_axes=3
    )
    rng = np.random.default_rng(0)
    truth = rng.uniform(-100, 100, (300, 2, 3))
    factor = 20 * torch.eye(3).double().expand(300, 2, 3, 3)
    means = torch.from_numpy(truth + rng.normal(0, 20, truth.shape))
    rule = fit_caller_rule(LocationDensity.gaussian(means, factor), truth, setup)
    assert rule is not None
    assert min(rule.thresholds[-1]) < math.inf


def test_few_calls_give_no_rule() -> None:
    assert fit_caller_rule(*calls(99, 0), SETUP) is None


def test_the_arena_needs_a_width_for_each_axis() -> None:
    assert log_uniform_density((10.0, 20.0), 3, 2) == pytest.approx(-3 * math.log(200.0))
    with pytest.raises(ConfigError, match="give all widths"):
        log_uniform_density((10.0, 20.0), 1, 3)
