"""From what a model states of events with known locations to what makes it true.

Letters: N events, K keypoints, D axes.
"""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gerbil_tune.evaluation.assignment import fit_caller_rule
from gerbil_tune.evaluation.blocks import negative_log_likelihoods
from gerbil_tune.evaluation.bootstrap import bootstrap_intervals, event_figures
from gerbil_tune.evaluation.calibration import hdr_levels
from gerbil_tune.evaluation.conformal import fit_conformal
from gerbil_tune.evaluation.results import MethodResult
from gerbil_tune.evaluation.score import score
from gerbil_tune.evaluation.temperature import fit_temperature
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.calibrated import Calibration
from gerbil_tune.models.density import LocationDensity


def calibrate(
    density: LocationDensity, truth_mm_NKD: Tensor, setup: RecordingSetup
) -> tuple[Calibration, dict[str, float]]:
    """Find what makes stated uncertainties true of these events, and the metrics of the result.

    Args:
        density: As the network states it, of N events that were not trained on.
        truth_mm_NKD: True locations, (N, K, D) mm.
        setup: The recording site.

    Returns:
        The calibration, and the metrics of ``score`` by their names after ``val_``.

    Raises:
        GerbilTuneError: If no temperature fits.
    """
    temperature = fit_temperature(density, truth_mm_NKD)
    calibrated = density.tempered(temperature)
    conformal = fit_conformal(calibrated, truth_mm_NKD, setup.arena_mm)
    metrics = {f"val_{name}": value for name, value in score(calibrated, truth_mm_NKD).items()}
    callers = fit_caller_rule(calibrated, truth_mm_NKD.cpu().numpy(), setup)
    return Calibration(temperature, conformal, callers), metrics


def metric_intervals(
    calibrated: LocationDensity, truth_mm_NKD: Tensor, groups_N: NDArray[np.int64] | None = None
) -> dict[str, list[float]]:
    """How sure the metrics of ``calibrate`` are: 95 % bootstrap intervals.

    Args:
        calibrated: After the temperature, of N events.
        truth_mm_NKD: True locations, (N, K, D) mm.
        groups_N: Groups of events that are not independent, or None.

    Returns:
        Low and high end of val_error_median_mm, val_error_p90_mm, val_error_mean_mm, val_nll and
        val_coverage_95.
    """
    truth = truth_mm_NKD.numpy()
    method = MethodResult(
        "calibrated",
        calibrated.mean_mm_BKD.numpy(),
        nll_NK=negative_log_likelihoods(calibrated, truth),
        level_NK=hdr_levels(calibrated, truth),
    )
    found = bootstrap_intervals(event_figures(method, truth), groups_N)
    return {f"val_{name}": [interval.low, interval.high] for name, interval in found.items()}
