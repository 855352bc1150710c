"""Methods of an evaluation, of Gaussians that are given as numbers."""

from typing import Any

import numpy as np

from gerbil_tune.evaluation.calibration import gaussian_density
from gerbil_tune.evaluation.predictions import describe
from gerbil_tune.evaluation.results import MethodResult
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.calibrated import Calibration

SETUP = RecordingSetup(4, 125_000.0, (572.0, 356.0))


def gaussian_method(name: str, mean: Any, covariance: Any, truth: Any) -> MethodResult:
    """What a model that states these Gaussians is in an evaluation."""
    density = gaussian_density(np.asarray(mean), np.array(covariance))
    return MethodResult.of_model(name, describe(density, Calibration(), SETUP, np.asarray(truth)))
