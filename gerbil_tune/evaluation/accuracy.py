"""Distances between predicted and true locations, in millimetres.

Letters: N events, K keypoints, D axes.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class AccuracySummary:
    """How large the errors of many events are, in millimetres."""

    mean_mm: float
    median_mm: float
    p90_mm: float


def errors_mm(
    predictions_mm_NKD: NDArray[Any], locations_mm_NKD: NDArray[Any]
) -> NDArray[np.float64]:
    """Euclidean distance of each event, averaged over its keypoints.

    Args:
        predictions_mm_NKD: Predicted locations, (N, K, D), mm.
        locations_mm_NKD: True locations, (N, K, D), mm.

    Returns:
        (N,) float64, mm.
    """
    difference_NKD = np.asarray(predictions_mm_NKD, np.float64) - locations_mm_NKD
    distances_NK: NDArray[np.float64] = np.linalg.norm(difference_NKD, axis=-1)
    mean_N: NDArray[np.float64] = distances_NK.mean(axis=-1)
    return mean_N


def summarize_errors(errors_mm_N: NDArray[Any]) -> AccuracySummary:
    """Mean, median and 90th percentile of errors (N,) in mm; NaN where there is no event."""
    if len(errors_mm_N) == 0:
        return AccuracySummary(float("nan"), float("nan"), float("nan"))
    median, p90 = np.quantile(errors_mm_N, [0.5, 0.9])
    return AccuracySummary(float(np.mean(errors_mm_N)), float(median), float(p90))
