"""How much wider or narrower densities must be to fit events that were not trained on: the temperature.

(Guo et al. 2017, On calibration of modern neural networks, for classifiers; here it is that of
``LocationDensity.tempered``.)

Letters: N events, K keypoints, D axes.
"""

import math

import numpy as np

from gerbil_tune.errors import GerbilTuneError
from gerbil_tune.evaluation.blocks import (
    Locations,
    event_blocks,
    negative_log_likelihoods,
    places,
)
from gerbil_tune.models.density import LocationDensity

_LOG_BOUND = 5.0
_TOLERANCE = 1e-3


def fit_temperature(density: LocationDensity, locations_mm_NKD: Locations) -> float:
    """The temperature that maximizes the likelihood of these events.

    Of Gaussians it is mean(d²) / D, with squared Mahalanobis distance d² and D axes, as in
    ``calibration.fit_covariance_scale``. Of other densities the negative log-likelihood is minimized over
    temperatures from exp(-5) to exp(5).

    Args:
        density: As the network states it, of N events that were not trained on.
        locations_mm_NKD: True locations, (N, K, D), mm.

    Returns:
        The temperature, over 0; above 1 where the stated uncertainty is too small.

    Raises:
        GerbilTuneError: If there is no event, a location or a density is not finite, or every prediction of
            a Gaussian is exact, which leaves no temperature to fit.
    """
    fit = _gaussian_temperature if density.is_gaussian else _likeliest_temperature
    num_events = len(density.log_weights_BKM)
    temperature = fit(density, locations_mm_NKD) if num_events else math.nan
    if not (math.isfinite(temperature) and temperature > 0.0):
        raise GerbilTuneError(
            "the temperature that fits the validation events must be positive and finite, but is "
            f"{temperature} over {num_events} events; give validation events with finite locations and "
            "predictions that are not all exact"
        )
    return temperature


def _gaussian_temperature(density: LocationDensity, locations_mm_NKD: Locations) -> float:
    truth_NKD = places(locations_mm_NKD, density)
    total = sum(
        # Not score_BK, which looks at the keypoints of a joint density one by one.
        float(2 * (block.peak_log_density_BK - block.log_density_BK(truth_NKD[rows])).sum())
        for rows, block in event_blocks(density)
    )
    return total / truth_NKD.numel()


def _likeliest_temperature(density: LocationDensity, locations_mm_NKD: Locations) -> float:
    """By a coarse scan, for there may be several minima, and a bounded search around its best."""
    from scipy.optimize import minimize_scalar

    def nll(log_temperature: float) -> float:
        tempered = density.tempered(math.exp(log_temperature))
        return float(negative_log_likelihoods(tempered, locations_mm_NKD).mean())

    scanned = np.linspace(-_LOG_BOUND, _LOG_BOUND, 11)
    values = [nll(log_temperature) for log_temperature in scanned]
    if not np.isfinite(values).all():
        return math.nan
    best = int(np.argmin(values))
    bounds = scanned[max(0, best - 1)], scanned[min(len(scanned) - 1, best + 1)]
    found = minimize_scalar(nll, bounds=bounds, method="bounded", options={"xatol": _TOLERANCE})
    return math.exp(found.x)
