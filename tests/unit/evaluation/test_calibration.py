import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gerbil_tune.errors import GerbilTuneError
from gerbil_tune.evaluation.calibration import (
    calibration_curve,
    calibration_error,
    coverage,
    fit_covariance_scale,
    gaussian_density,
    hpd_levels,
    mahalanobis_squared,
    negative_log_likelihood_mm,
)

LEVELS = np.linspace(0.0, 1.0, 11)


def gaussian(sd_mm: float, axes: int, count: int = 4000, keypoints: int = 1, seed: int = 0):
    """Means, correlated covariances of about this size, and truths drawn from them."""
    rng = np.random.default_rng(seed)
    mean = rng.uniform(-280, 280, (count, keypoints, axes))
    factor = sd_mm * (
        np.eye(axes) + 0.4 * np.tril(rng.normal(size=(count, keypoints, axes, axes)), -1)
    )
    truth = mean + np.einsum("nkij,nkj->nki", factor, rng.normal(size=mean.shape))
    return mean, factor @ np.swapaxes(factor, -1, -2), truth


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("sd_mm", [40.0, 15.0, 6.0, 0.1])
def test_a_calibrated_gaussian_is_on_the_diagonal_whatever_its_size(
    sd_mm: float, axes: int
) -> None:
    levels = hpd_levels(mahalanobis_squared(*gaussian(sd_mm, axes)), axes)
    four_sd_of_the_curve = 4 * np.sqrt(LEVELS * (1 - LEVELS) / levels.size) + 1e-12

    assert np.all(np.abs(calibration_curve(levels) - LEVELS) <= four_sd_of_the_curve)
    assert coverage(levels) == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / levels.size))
    assert calibration_error(levels) < 0.015


def test_keypoints_are_judged_one_by_one() -> None:
    squared = mahalanobis_squared(*gaussian(10.0, 2, count=50, keypoints=3))

    assert squared.shape == (50, 3)
    assert calibration_curve(hpd_levels(squared, 2))[-1] == 1.0


def test_stating_too_little_uncertainty_lies_below_the_diagonal() -> None:
    mean, covariance, truth = gaussian(10.0, 2)
    curve = calibration_curve(hpd_levels(mahalanobis_squared(mean, covariance / 4, truth), 2))

    assert np.all(curve[1:-1] < LEVELS[1:-1])


@settings(deadline=None)
@given(st.floats(0.0, 50.0))
def test_levels_follow_the_closed_forms_of_two_and_three_dimensions(squared: float) -> None:
    root = math.sqrt(squared)
    three = math.erf(root / math.sqrt(2)) - math.sqrt(2 / math.pi) * root * math.exp(-squared / 2)

    assert hpd_levels(np.array(squared), 2) == pytest.approx(-math.expm1(-squared / 2), abs=1e-12)
    assert hpd_levels(np.array(squared), 3) == pytest.approx(three, abs=1e-12)


def test_curve_of_known_levels() -> None:
    levels = np.array([[0.05, 0.1], [0.55, 1.0]])

    expected = [0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.75, 0.75, 0.75, 0.75, 1.0]
    assert calibration_curve(levels) == pytest.approx(expected)
    assert calibration_error(levels) == pytest.approx(np.abs(np.array(expected) - LEVELS).mean())


def test_likelihood_of_a_known_gaussian() -> None:
    covariance = np.array([[[[4.0, 0.0], [0.0, 9.0]]]])
    nll = negative_log_likelihood_mm(np.zeros((1, 1, 2)), covariance, np.array([[[2.0, 3.0]]]))

    assert nll == pytest.approx(np.array([[math.log(2 * math.pi) + math.log(6.0) + 1.0]]))


def test_likelihood_is_the_one_of_scipy() -> None:
    from scipy.stats import multivariate_normal

    mean, covariance, truth = gaussian(7.0, 3, count=20)
    expected = [
        -multivariate_normal(m[0], c[0]).logpdf(t[0])
        for m, c, t in zip(mean, covariance, truth, strict=True)
    ]

    assert negative_log_likelihood_mm(mean, covariance, truth)[:, 0] == pytest.approx(expected)


@settings(deadline=None)
@given(st.floats(0.05, 20.0))
def test_fitted_scale_undoes_a_wrong_scale(factor: float) -> None:
    mean, covariance, truth = gaussian(12.0, 2, count=500)
    right = fit_covariance_scale(mean, covariance, truth)

    assert fit_covariance_scale(mean, covariance * factor, truth) == pytest.approx(right / factor)
    assert right == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize("other", [0.9, 1.1])
def test_no_other_scale_is_more_likely(other: float) -> None:
    mean, covariance, truth = gaussian(12.0, 2, count=300)
    covariance = covariance / 7
    best = fit_covariance_scale(mean, covariance, truth)

    def likelihood(scale: float) -> float:
        return float(negative_log_likelihood_mm(mean, scale * covariance, truth).mean())

    assert likelihood(best) < likelihood(other * best)


def test_a_covariance_that_is_none_is_named() -> None:
    mean, covariance, truth = gaussian(5.0, 2, count=4)
    covariance[2, 0] = [[1.0, 2.0], [2.0, 1.0]]

    with pytest.raises(GerbilTuneError, match=r"event 2, keypoint 0 .* eigenvalue -1 mm²"):
        mahalanobis_squared(mean, covariance, truth)
    with pytest.raises(GerbilTuneError, match=r"event 2, keypoint 0 .* eigenvalue -1 mm²"):
        gaussian_density(mean, covariance)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_means_and_covariances_become_a_density(dtype: type) -> None:
    mean, covariance, truth = (x.astype(dtype) for x in gaussian(5.0, 3, count=20, keypoints=2))
    density = gaussian_density(mean, covariance)
    log_density_NK = density.log_density_BK(torch.as_tensor(truth)).numpy()

    assert density.is_gaussian
    assert log_density_NK == pytest.approx(-negative_log_likelihood_mm(mean, covariance, truth))
    assert density.mean_mm_BKD.numpy() == pytest.approx(mean)


def test_no_scale_fits_exact_predictions() -> None:
    mean, covariance, _ = gaussian(5.0, 2, count=4)

    with pytest.raises(GerbilTuneError, match="must be positive and finite, but is 0"):
        fit_covariance_scale(mean, covariance, mean)
