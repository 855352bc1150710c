import numpy as np
import pytest

from gerbil_tune.evaluation.score import score


def draw(num_events=4000, num_keypoints=1, num_axes=2, spread=1.0, seed=0):
    """Truths drawn from the stated Gaussians, their distance from the mean times ``spread``."""
    generator = np.random.default_rng(seed)
    factor = np.tril(generator.uniform(5, 30, (num_events, num_keypoints, num_axes, num_axes)))
    mean = generator.uniform(-200, 200, (num_events, num_keypoints, num_axes))
    unit = generator.standard_normal((*mean.shape, 1))
    truth = mean + spread * (factor @ unit)[..., 0]
    return mean, factor @ factor.swapaxes(-1, -2), truth


def test_names_are_those_that_trials_report():
    assert set(score(*draw(10))) == {
        "error_mean_mm",
        "error_median_mm",
        "error_p90_mm",
        "nll",
        "calibration_error",
        "coverage_95",
    }
    assert all(type(value) is float for value in score(*draw(10)).values())


def test_known_errors():
    truth = np.zeros((5, 1, 2))
    prediction = truth + np.array([[3.0, 4.0]]) * np.arange(5)[:, None, None]
    covariance = np.broadcast_to(64.0 * np.eye(2), (5, 1, 2, 2))
    result = score(prediction, covariance, truth)
    assert result["error_mean_mm"] == pytest.approx(10.0)
    assert result["error_median_mm"] == pytest.approx(10.0)
    assert result["error_p90_mm"] == pytest.approx(18.0)
    squared = np.square(5.0 * np.arange(5)) / 64.0
    nll = np.mean(squared / 2) + np.log(2 * np.pi * 64.0)
    assert result["nll"] == pytest.approx(nll)
    assert result["coverage_95"] == pytest.approx(0.8)  # 20 mm is 2.5 sd; 95 % ends at 2.45


@pytest.mark.parametrize(("num_keypoints", "num_axes"), [(1, 2), (3, 2), (1, 3)])
def test_true_uncertainty_is_calibrated(num_keypoints, num_axes):
    result = score(*draw(num_keypoints=num_keypoints, num_axes=num_axes))
    assert result["calibration_error"] < 0.015
    assert result["coverage_95"] == pytest.approx(0.95, abs=0.012)


@pytest.mark.parametrize("spread", [0.5, 2.0])
def test_wrong_uncertainty_is_not(spread):
    honest, wrong = score(*draw()), score(*draw(spread=spread))
    assert wrong["calibration_error"] > 0.15
    assert (wrong["coverage_95"] > 0.99) == (spread < 1)
    mean, covariance, truth = draw(spread=spread)
    corrected = score(mean, covariance * spread**2, truth)
    assert corrected["nll"] < wrong["nll"]
    assert corrected["calibration_error"] == pytest.approx(honest["calibration_error"], abs=1e-9)


def test_float32_predictions_give_the_same():
    mean, covariance, truth = draw()
    single = score(*(values.astype(np.float32) for values in (mean, covariance, truth)))
    assert single == pytest.approx(score(mean, covariance, truth), rel=1e-3)
