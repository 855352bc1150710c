"""The figures of merit of Gaussian predictions, together: what trials report and bundles store.

Letters: N events, K keypoints, D axes.
"""

from typing import Any

from numpy.typing import NDArray

from gerbil_tune.evaluation.accuracy import errors_mm, summarize_errors
from gerbil_tune.evaluation.calibration import (
    calibration_error,
    coverage,
    hpd_levels,
    mahalanobis_squared,
    negative_log_likelihood_mm,
)


def score(
    predictions_mm_NKD: NDArray[Any],
    covariance_mm2_NKDD: NDArray[Any],
    locations_mm_NKD: NDArray[Any],
) -> dict[str, float]:
    """Score predictions.

    Args:
        predictions_mm_NKD: Means, (N, K, D), mm.
        covariance_mm2_NKDD: Covariances, (N, K, D, D), mm².
        locations_mm_NKD: True locations, (N, K, D), mm.

    Returns:
        error_mean_mm, error_median_mm, error_p90_mm, nll (nats, density per mm^D), calibration_error and
        coverage_95 (fraction of truths in their 95 % region).
    """
    summary = summarize_errors(errors_mm(predictions_mm_NKD, locations_mm_NKD))
    distance_NK = mahalanobis_squared(predictions_mm_NKD, covariance_mm2_NKDD, locations_mm_NKD)
    levels_NK = hpd_levels(distance_NK, locations_mm_NKD.shape[-1])
    nll_NK = negative_log_likelihood_mm(predictions_mm_NKD, covariance_mm2_NKDD, locations_mm_NKD)
    return {
        "error_mean_mm": summary.mean_mm,
        "error_median_mm": summary.median_mm,
        "error_p90_mm": summary.p90_mm,
        "nll": float(nll_NK.mean()),
        "calibration_error": calibration_error(levels_NK),
        "coverage_95": coverage(levels_NK, 0.95),
    }
