"""Whether a stated uncertainty is true: levels of the truth, and the calibration curve.

Gaussians have closed forms. Levels of other densities are found by draws from them, which fall where the
density is, however narrow; sums over the cells of a grid fail where it comes near to the size of a cell.

Letters: N events, K keypoints, D axes, S draws.
"""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gerbil_tune.errors import GerbilTuneError
from gerbil_tune.evaluation.blocks import (
    Floats,
    Locations,
    draw_log_densities,
    event_blocks,
    noise_for,
    places,
    usual_draws,
)
from gerbil_tune.models.density import LocationDensity
from gerbil_tune.models.event_noise import EventNoise


def gaussian_density(
    predictions_mm_NKD: NDArray[Any], covariance_mm2_NKDD: NDArray[Any]
) -> LocationDensity:
    """What means and covariances state, as a density in float64.

    Args:
        predictions_mm_NKD: Means, (N, K, D), mm.
        covariance_mm2_NKDD: Covariances, (N, K, D, D), mm².

    Raises:
        GerbilTuneError: If a covariance is not positive definite.
    """
    mean_NKD = torch.as_tensor(np.asarray(predictions_mm_NKD, np.float64))
    factor_NKDD = torch.from_numpy(_cholesky(covariance_mm2_NKDD))
    return LocationDensity.gaussian(mean_NKD, factor_NKDD)


def mahalanobis_squared(
    predictions_mm_NKD: NDArray[Any],
    covariance_mm2_NKDD: NDArray[Any],
    locations_mm_NKD: NDArray[Any],
) -> Floats:
    """Squared distance of the truth from the prediction in units of the stated uncertainty.

    Args:
        predictions_mm_NKD: Means, (N, K, D), mm.
        covariance_mm2_NKDD: Covariances, (N, K, D, D), mm².
        locations_mm_NKD: True locations, (N, K, D), mm.

    Returns:
        (N, K) float64, no unit. For true Gaussians it follows chi-square with D degrees of freedom.

    Raises:
        GerbilTuneError: If a covariance is not positive definite.
    """
    factor_NKDD = _cholesky(covariance_mm2_NKDD)
    return _whitened_squared(predictions_mm_NKD, locations_mm_NKD, factor_NKDD)


def hdr_levels(
    density: LocationDensity,
    locations_mm_NKD: Locations,
    *,
    num_draws: int | None = None,
    noise: EventNoise | None = None,
) -> Floats:
    """Mass of the highest-density region that just reaches the truth, of each keypoint by itself.

    Of densities that are true the levels are uniform on [0, 1]: exactly so with any number of draws.

    Args:
        density: Of N events; Gaussians take closed forms, others draws.
        locations_mm_NKD: True locations, (N, K, D), mm.
        num_draws: S; default ``blocks.usual_draws``.
        noise: Of the draws; default: by the place of each event, the same each time.

    Returns:
        (N, K) float64, in [0, 1].
    """
    truth_NKD = places(locations_mm_NKD, density)
    levels_NK = np.empty(truth_NKD.shape[:2])
    if density.is_gaussian:
        for rows, block in event_blocks(density):
            squared_NK = block.score_BK(truth_NKD[rows]).cpu().numpy()
            levels_NK[rows] = hpd_levels(squared_NK, density.num_axes)
        return levels_NK
    num_draws = num_draws or usual_draws(density)
    noise = noise or noise_for(density)
    for rows, block in event_blocks(density, num_draws):
        own = noise.rows(rows)
        drawn_SNK = draw_log_densities(block, block.sample(num_draws, own))
        ranks_NK = drawn_levels(drawn_SNK, block.log_density_BK(truth_NKD[rows]), own)
        levels_NK[rows] = ranks_NK.cpu().numpy()
    return levels_NK


def drawn_levels(
    log_density_SNK: Tensor, truth_log_density_NK: Tensor, noise: EventNoise
) -> Tensor:
    """Rank of the truth's density among those of draws, as a level.

    The rank plus a uniform number, over S + 1, is exactly uniform on [0, 1] where the truth is one more draw.

    Args:
        log_density_SNK: At S draws.
        truth_log_density_NK: At the truth; equal densities come in random order.
        noise: Of the N events.

    Returns:
        (N, K), in [0, 1].
    """
    higher_NK = (log_density_SNK > truth_log_density_NK).sum(0)
    tied_NK = (log_density_SNK == truth_log_density_NK).sum(0)
    uniform_NK = noise.uniform(higher_NK.shape[1:], log_density_SNK)
    return (higher_NK + uniform_NK * (tied_NK + 1)) / (len(log_density_SNK) + 1)


def hpd_levels(mahalanobis_squared_NK: NDArray[Any], num_axes: int) -> Floats:
    """Mass of the highest-density region that just reaches the truth, for each prediction.

    The regions of a Gaussian are ellipsoids of constant Mahalanobis distance; the mass inside is the
    distribution function of chi-square with D degrees of freedom. Of a calibrated method the levels
    are uniform on [0, 1].

    Args:
        mahalanobis_squared_NK: From ``mahalanobis_squared``, any shape.
        num_axes: D.

    Returns:
        float64 of the same shape, in [0, 1].
    """
    from scipy.special import gammainc

    levels: Floats = gammainc(num_axes / 2, np.asarray(mahalanobis_squared_NK, np.float64) / 2)
    return levels


def calibration_curve(levels: NDArray[Any], num_bins: int = 10) -> Floats:
    """Fraction of truths inside the regions of mass 0, 1/num_bins, ..., 1.

    Args:
        levels: From ``hdr_levels`` or ``hpd_levels``, any shape.
        num_bins: Steps of the curve.

    Returns:
        (num_bins + 1,) float64; the diagonal for a calibrated method. It begins at 0: an empty region
        holds no truth.
    """
    ordered = np.sort(np.asarray(levels, np.float64), axis=None)
    steps = np.linspace(0.0, 1.0, num_bins + 1)
    inside: Floats = np.searchsorted(ordered, steps, side="right") / max(ordered.size, 1)
    inside[0] = 0.0
    return inside


def calibration_error(levels: NDArray[Any], num_bins: int = 10) -> float:
    """Mean distance of the calibration curve from the diagonal, in [0, 0.5)."""
    curve = calibration_curve(levels, num_bins)
    return float(np.abs(curve - np.linspace(0.0, 1.0, num_bins + 1)).mean())


def coverage(levels: NDArray[Any], probability: float = 0.95) -> float:
    """Fraction of truths inside the regions that state this probability."""
    return float(np.mean(np.asarray(levels) <= probability))


def negative_log_likelihood_mm(
    predictions_mm_NKD: NDArray[Any],
    covariance_mm2_NKDD: NDArray[Any],
    locations_mm_NKD: NDArray[Any],
) -> Floats:
    """Negative log density of the truth under the stated Gaussian.

    Args:
        predictions_mm_NKD: Means, (N, K, D), mm.
        covariance_mm2_NKDD: Covariances, (N, K, D, D), mm².
        locations_mm_NKD: True locations, (N, K, D), mm.

    Returns:
        (N, K) float64, nats, of a density per mm^D.

    Raises:
        GerbilTuneError: If a covariance is not positive definite.
    """
    factor_NKDD = _cholesky(covariance_mm2_NKDD)
    squared_NK = _whitened_squared(predictions_mm_NKD, locations_mm_NKD, factor_NKDD)
    half_log_det_NK = np.log(np.diagonal(factor_NKDD, axis1=-2, axis2=-1)).sum(axis=-1)
    num_axes = factor_NKDD.shape[-1]
    nll_NK: Floats = 0.5 * squared_NK + half_log_det_NK + 0.5 * num_axes * math.log(2 * math.pi)
    return nll_NK


def fit_covariance_scale(
    predictions_mm_NKD: NDArray[Any],
    covariance_mm2_NKDD: NDArray[Any],
    locations_mm_NKD: NDArray[Any],
) -> float:
    """The factor on all covariances that maximizes the likelihood of these events.

    With squared Mahalanobis distance d² and D axes the negative log-likelihood of a factor s is
    mean(d²) / (2 s) + D log(s) / 2 plus a constant, with its minimum at s = mean(d²) / D.

    Args:
        predictions_mm_NKD: Means of events that were not trained on, (N, K, D), mm.
        covariance_mm2_NKDD: Covariances, (N, K, D, D), mm².
        locations_mm_NKD: True locations, (N, K, D), mm.

    Returns:
        The factor, over 0; above 1 where the stated uncertainty is too small.

    Raises:
        GerbilTuneError: If there is no event, a covariance is not positive definite, or every
            prediction is exact, which leaves no factor to fit.
    """
    squared_NK = mahalanobis_squared(predictions_mm_NKD, covariance_mm2_NKDD, locations_mm_NKD)
    scale = float(squared_NK.mean()) / covariance_mm2_NKDD.shape[-1] if squared_NK.size else 0.0
    if not (math.isfinite(scale) and scale > 0.0):
        raise GerbilTuneError(
            "the factor on the covariances is the mean squared error in units of the stated "
            f"uncertainty, which must be positive and finite, but is {scale} over {len(squared_NK)} "
            "events; give validation events with finite locations and predictions"
        )
    return scale


def _cholesky(covariance_mm2_NKDD: NDArray[Any]) -> Floats:
    covariance = np.asarray(covariance_mm2_NKDD, np.float64)
    try:
        factor_NKDD: Floats = np.linalg.cholesky(covariance).astype(np.float64, copy=False)
    except np.linalg.LinAlgError:
        smallest_NK = np.linalg.eigvalsh(np.nan_to_num(covariance)).min(axis=-1)
        event, keypoint = np.unravel_index(int(smallest_NK.argmin()), smallest_NK.shape)
        raise GerbilTuneError(
            f"a covariance must be positive definite, but that of event {event}, keypoint {keypoint} "
            f"has the smallest eigenvalue {smallest_NK.min():.3g} mm²; the method that stated it is wrong"
        ) from None
    return factor_NKDD


def _whitened_squared(
    predictions_mm_NKD: NDArray[Any], locations_mm_NKD: NDArray[Any], factor_NKDD: Floats
) -> Floats:
    difference_NKD = np.asarray(locations_mm_NKD, np.float64) - predictions_mm_NKD
    whitened_NKD1 = np.linalg.solve(factor_NKDD, difference_NKD[..., None])
    squared_NK: Floats = np.square(whitened_NKD1[..., 0]).sum(axis=-1)
    return squared_NK
