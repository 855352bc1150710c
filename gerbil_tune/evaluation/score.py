"""The figures of merit of predictions, together: what trials report and bundles store.

Letters: N events, K keypoints, D axes.
"""

import numpy as np

from gerbil_tune.evaluation.accuracy import errors_mm, summarize_errors
from gerbil_tune.evaluation.blocks import Locations, negative_log_likelihoods, places
from gerbil_tune.evaluation.calibration import calibration_error, coverage
from gerbil_tune.evaluation.crps import energy_scores_mm
from gerbil_tune.evaluation.regions import highest_density_regions
from gerbil_tune.models.density import LocationDensity

_FEW_COMPONENTS = 16
_MOST_REGION_DRAWS = 256
_FEWEST_REGION_DRAWS = 64
_CRPS_DRAWS = 128


def score(density: LocationDensity, locations_mm_NKD: Locations) -> dict[str, float]:
    """Score predictions; soon done, for it follows every epoch.

    Levels of a density that is no Gaussian are of 256 draws an event, or 64 of one with over 16 components.
    That adds noise to a single level and none on average where the density is true.

    Args:
        density: Of N events.
        locations_mm_NKD: True locations, (N, K, D), mm.

    Returns:
        error_mean_mm, error_median_mm, error_p90_mm; nll (nats, density per mm^D); crps_mm;
        calibration_error; coverage_50, coverage_90, coverage_95 (fraction of truths in the region of that
        probability); area_95_mm2, or volume_95_mm3 of three axes (median over events and keypoints).
    """
    truth_NKD = places(locations_mm_NKD, density).cpu().numpy()
    summary = summarize_errors(errors_mm(density.mean_mm_BKD.cpu().numpy(), truth_NKD))
    is_simple = density.log_weights_BKM.shape[2] <= _FEW_COMPONENTS
    regions = highest_density_regions(
        density,
        truth_NKD,
        probabilities=(0.95,),
        num_draws=_MOST_REGION_DRAWS if is_simple else _FEWEST_REGION_DRAWS,
    )
    size_name = {2: "area_95_mm2", 3: "volume_95_mm3"}[density.num_axes]
    return {
        "error_mean_mm": summary.mean_mm,
        "error_median_mm": summary.median_mm,
        "error_p90_mm": summary.p90_mm,
        "nll": float(negative_log_likelihoods(density, truth_NKD).mean()),
        "crps_mm": float(energy_scores_mm(density, truth_NKD, num_draws=_CRPS_DRAWS).mean()),
        "calibration_error": calibration_error(regions.levels_NK),
        "coverage_50": coverage(regions.levels_NK, 0.5),
        "coverage_90": coverage(regions.levels_NK, 0.9),
        "coverage_95": coverage(regions.levels_NK, 0.95),
        size_name: float(np.median(regions.areas_NKR)),
    }
