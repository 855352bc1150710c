"""From what a model states of events with known locations to what makes it true.

Letters: N events, K keypoints, D axes.
"""

from torch import Tensor

from gerbil_tune.evaluation.conformal import fit_conformal
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
    return Calibration(temperature, conformal), metrics
