import numpy as np
import pytest
import torch

from gerbil_tune.evaluation.calibration import gaussian_density
from gerbil_tune.evaluation.score import score
from gerbil_tune.models.density import JointDensity
from tests.unit.evaluation.densities import gaussians, grids, mixtures, truths_of, twice


def draw(num_events=4000, num_keypoints=1, num_axes=2, spread=1.0, seed=0):
    """Truths drawn from the stated Gaussians, their distance from the mean times ``spread``."""
    generator = np.random.default_rng(seed)
    factor = np.tril(generator.uniform(5, 30, (num_events, num_keypoints, num_axes, num_axes)))
    mean = generator.uniform(-200, 200, (num_events, num_keypoints, num_axes))
    unit = generator.standard_normal((*mean.shape, 1))
    truth = mean + spread * (factor @ unit)[..., 0]
    return gaussian_density(mean, factor @ factor.swapaxes(-1, -2)), truth


@pytest.mark.parametrize(("num_axes", "size"), [(2, "area_95_mm2"), (3, "volume_95_mm3")])
def test_names_are_those_that_trials_report(num_axes, size):
    assert set(score(*draw(10, num_axes=num_axes))) == {
        "error_mean_mm",
        "error_median_mm",
        "error_p90_mm",
        "nll",
        "crps_mm",
        "calibration_error",
        "coverage_50",
        "coverage_90",
        "coverage_95",
        size,
    }
    assert all(type(value) is float for value in score(*draw(10)).values())


def test_known_errors():
    truth = np.zeros((5, 1, 2))
    prediction = truth + np.array([[3.0, 4.0]]) * np.arange(5)[:, None, None]
    covariance = np.broadcast_to(64.0 * np.eye(2), (5, 1, 2, 2))
    result = score(gaussian_density(prediction, covariance), truth)
    assert result["error_mean_mm"] == pytest.approx(10.0)
    assert result["error_median_mm"] == pytest.approx(10.0)
    assert result["error_p90_mm"] == pytest.approx(18.0)
    squared = np.square(5.0 * np.arange(5)) / 64.0
    nll = np.mean(squared / 2) + np.log(2 * np.pi * 64.0)
    assert result["nll"] == pytest.approx(nll)
    assert result["coverage_95"] == pytest.approx(0.8)  # 20 mm is 2.5 sd; 95 % ends at 2.45
    assert result["coverage_90"] == pytest.approx(0.8)  # at 2.15 sd, and 15 mm is 1.9
    assert result["coverage_50"] == pytest.approx(0.4)  # at 1.18 sd, and 10 mm is 1.25
    assert result["area_95_mm2"] == pytest.approx(np.pi * 64.0 * 5.991, rel=1e-4)


@pytest.mark.parametrize(("num_keypoints", "num_axes"), [(1, 2), (3, 2), (1, 3)])
def test_true_uncertainty_is_calibrated(num_keypoints, num_axes):
    result = score(*draw(num_keypoints=num_keypoints, num_axes=num_axes))
    assert result["calibration_error"] < 0.015
    assert result["coverage_50"] == pytest.approx(0.50, abs=0.03)
    assert result["coverage_90"] == pytest.approx(0.90, abs=0.02)
    assert result["coverage_95"] == pytest.approx(0.95, abs=0.012)


@pytest.mark.parametrize("make", [mixtures, grids])
def test_true_uncertainty_of_other_densities_is_calibrated(make):
    density = make(count=2000)
    result = score(density, truths_of(density))
    assert result["calibration_error"] < 0.02
    assert result["coverage_95"] == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize("spread", [0.5, 2.0])
def test_wrong_uncertainty_is_not(spread):
    honest, wrong = score(*draw()), score(*draw(spread=spread))
    assert wrong["calibration_error"] > 0.15
    assert (wrong["coverage_95"] > 0.99) == (spread < 1)
    density, truth = draw(spread=spread)
    corrected = score(density.tempered(spread**2), truth)
    assert corrected["nll"] < wrong["nll"]
    assert corrected["crps_mm"] < wrong["crps_mm"]
    assert corrected["calibration_error"] == pytest.approx(honest["calibration_error"], abs=1e-9)


def test_float32_predictions_give_the_same():
    density, truth = draw()
    single = score(density.to(dtype=torch.float32), truth.astype(np.float32))
    assert single == pytest.approx(score(density, truth), rel=1e-3)


def test_draws_give_what_the_closed_forms_give():
    density = gaussians(count=1500)
    truth = truths_of(density)
    exact, drawn = score(density, truth), score(twice(density), truth)
    close = ("error_mean_mm", "error_median_mm", "error_p90_mm", "nll")
    assert [drawn[name] for name in close] == pytest.approx([exact[name] for name in close])
    assert drawn["crps_mm"] == pytest.approx(exact["crps_mm"], rel=0.02)
    assert drawn["coverage_95"] == pytest.approx(exact["coverage_95"], abs=0.01)
    assert drawn["area_95_mm2"] == pytest.approx(exact["area_95_mm2"], rel=0.03)


def test_likelihood_of_a_joint_density_is_that_of_all_keypoints_together():
    factor = torch.tensor([[9.0, 0, 0, 0], [0, 9, 0, 0], [8, 0, 3, 0], [0, 8, 0, 3]])
    density = JointDensity.joint_gaussian(torch.zeros(1500, 2, 2), factor.expand(1500, 4, 4))
    truth = truths_of(density)
    joint, apart = score(density, truth), score(density.marginals(), truth)
    assert joint["nll"] < apart["nll"] - 0.3
    assert joint["calibration_error"] == pytest.approx(apart["calibration_error"], abs=1e-6)
    assert joint["crps_mm"] == pytest.approx(apart["crps_mm"], rel=0.03)
