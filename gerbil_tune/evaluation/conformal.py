"""Regions that cover what they promise whatever the model: split conformal prediction.

The threshold of a level c is a quantile of the conformal scores of n events that had no part in training: the
ceil((n + 1) c)-th smallest. A further event of the same kind then scores at most that much with a probability
of at least c, and of at most c + 1 / (n + 1), whether the model is right or wrong (Vovk, Gammerman & Shafer
2005; Lei et al. 2018; Angelopoulos & Bates 2021, arXiv:2107.07511). With thresholds for each zone of the
arena, by the predicted location, this holds within each zone (Mondrian: Vovk et al. 2003). Where n is too
small for a level the threshold is infinite and the region is everything.

The score is ``LocationDensity.score_BK`` of the density after the temperature. The thresholds of Gaussians
make up for any temperature, so they may be fitted on the same events; events by which training has chosen its
weights are not quite new, which these regions do not make up for.

Letters: N events, K keypoints, D axes, R regions (levels), Z zones, S draws.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gerbil_tune.evaluation.blocks import (
    Floats,
    Locations,
    draw_log_densities,
    event_blocks,
    noise_for,
    places,
    usual_draws,
)
from gerbil_tune.evaluation.regions import ellipsoid_volumes
from gerbil_tune.models.calibrated import (
    LEVELS,
    NUM_ZONES,
    ZONES_PER_AXIS,
    Calibration,
    ConformalThresholds,
)
from gerbil_tune.models.density import LocationDensity
from gerbil_tune.models.event_noise import EventNoise

FEWEST_EVENTS_PER_ZONE = 50
_PROPOSAL_TEMPERATURE = 2.0
"""Draws of a wider density reach the border of a large region, too."""


def fit_conformal(
    density: LocationDensity,
    locations_mm_NKD: Locations,
    arena_mm: Sequence[float],
    *,
    levels: tuple[float, ...] = LEVELS,
) -> ConformalThresholds:
    """Find thresholds for each keypoint, over the whole arena and in each zone with enough events.

    Args:
        density: After the temperature, of N events that were not trained on.
        locations_mm_NKD: True locations, (N, K, D), mm.
        arena_mm: Full widths x and y of the arena, and perhaps more.
        levels: Coverage to promise, rising.
    """
    scores_NK = conformal_scores(density, locations_mm_NKD)
    zones_NK = zones_of(density.mean_mm_BKD, arena_mm).cpu().numpy()
    keypoints = range(scores_NK.shape[1])
    return ConformalThresholds(
        levels=levels,
        overall=tuple(_quantiles(scores_NK[:, keypoint], levels) for keypoint in keypoints),
        zones=tuple(
            tuple(
                _zone_quantiles(scores_NK[zones_NK[:, keypoint] == zone, keypoint], levels)
                for keypoint in keypoints
            )
            for zone in range(NUM_ZONES)
        ),
        num_events=len(scores_NK),
    )


def conformal_scores(density: LocationDensity, locations_mm_NKD: Locations) -> Floats:
    """Score of locations, (N, K), no unit; at most the threshold in the region of a level."""
    truth_NKD = places(locations_mm_NKD, density)
    scores_NK = np.empty(truth_NKD.shape[:2])
    for rows, block in event_blocks(density):
        scores_NK[rows] = block.score_BK(truth_NKD[rows]).cpu().numpy()
    return scores_NK


def conformal_thresholds(
    calibration: Calibration, density: LocationDensity, arena_mm: Sequence[float]
) -> Tensor:
    """Up to which ``density.score_BK`` a place is in the regions of each prediction, by its zone.

    Args:
        calibration: Of the model.
        density: After the temperature, of N events.
        arena_mm: Full widths of the arena that the model is for.

    Returns:
        (N, K, R) of the density's type and device: infinite where the region is everything, NaN for each of
        ``LEVELS`` without conformal thresholds.
    """
    mean_NKD = density.mean_mm_BKD
    conformal = calibration.conformal
    if conformal is None:
        return mean_NKD.new_full((*mean_NKD.shape[:2], len(LEVELS)), math.nan)
    rows = [
        conformal.overall[keypoint] if own is None else own
        for zone in conformal.zones
        for keypoint, own in enumerate(zone)
    ]
    num_keypoints = len(conformal.overall)
    table_ZKR = mean_NKD.new_tensor(rows).reshape(NUM_ZONES, num_keypoints, -1)
    keypoints_K = torch.arange(num_keypoints, device=mean_NKD.device)
    thresholds_NKR: Tensor = table_ZKR[zones_of(mean_NKD, arena_mm), keypoints_K]
    return thresholds_NKR


def region_sizes(
    density: LocationDensity,
    thresholds_NKR: Tensor,
    *,
    num_draws: int | None = None,
    noise: EventNoise | None = None,
) -> Tensor:
    """Size of conformal regions, in closed form of Gaussians and by draws of other densities.

    With g a wider density, the draws X of which reach beyond the border of the region, the size is
    E[1{score(X) <= threshold} / g(X)]. A region so large that even these draws rarely reach its border comes
    out too small.

    Args:
        density: As given to ``conformal_thresholds``.
        thresholds_NKR: From ``conformal_thresholds``.
        num_draws: S; default ``blocks.usual_draws``.
        noise: Of the draws; default: by the place of each event, the same each time.

    Returns:
        (N, K, R), mm^D: an area of two axes, a volume of three; infinite or NaN where the threshold is.
    """
    if density.is_gaussian:
        return ellipsoid_volumes(density, thresholds_NKR)
    num_draws = num_draws or usual_draws(density)
    noise = noise or noise_for(density)
    sizes_NKR = torch.empty_like(thresholds_NKR)
    for rows, block in event_blocks(density, num_draws):
        wider = block.tempered(_PROPOSAL_TEMPERATURE)
        draws_SNKD = wider.sample(num_draws, noise.rows(rows))
        weights_SNK = (-draw_log_densities(wider, draws_SNKD)).exp() / num_draws
        scores_SNK = 2 * (block.peak_log_density_BK - draw_log_densities(block, draws_SNKD))
        for region, threshold_NK in enumerate(thresholds_NKR[rows].unbind(-1)):
            inside_SNK = weights_SNK * (scores_SNK <= threshold_NK)
            sizes_NKR[rows, :, region] = inside_SNK.sum(0).to(sizes_NKR.dtype)
    return torch.where(thresholds_NKR.isfinite(), sizes_NKR, thresholds_NKR)


def zones_of(locations_mm_NKD: Tensor, arena_mm: Sequence[float]) -> Tensor:
    """Zone of the arena that each location is in, or is next to: rows from low y, columns from low x.

    Args:
        locations_mm_NKD: (N, K, D), mm from the arena's centre.
        arena_mm: Full widths x and y of the arena, and perhaps more.

    Returns:
        (N, K) int64, row times ``ZONES_PER_AXIS`` plus column.
    """
    widths_2 = locations_mm_NKD.new_tensor(arena_mm[:2])
    cells_NK2 = ((locations_mm_NKD[..., :2] / widths_2 + 0.5) * ZONES_PER_AXIS).floor()
    cells_NK2 = (
        cells_NK2.nan_to_num()
    )  # a prediction that is no number is in no zone, but needs one
    column_NK, row_NK = cells_NK2.clamp(0, ZONES_PER_AXIS - 1).long().unbind(-1)
    return row_NK * ZONES_PER_AXIS + column_NK


def _zone_quantiles(scores: Floats, levels: tuple[float, ...]) -> tuple[float, ...] | None:
    return _quantiles(scores, levels) if len(scores) >= FEWEST_EVENTS_PER_ZONE else None


def _quantiles(scores: Floats, levels: tuple[float, ...]) -> tuple[float, ...]:
    """The ceil((n + 1) c)-th smallest of n scores for each level c; infinite where there are too few."""
    ordered = [*np.sort(scores).tolist(), math.inf]
    # Rounded: (n + 1) c may come out a trifle above a whole number.
    ranks = [math.ceil(round((len(scores) + 1) * level, 9)) for level in levels]
    return tuple(ordered[rank - 1] for rank in ranks)
