"""The energy score: how far the truth is from a stated density, in millimetres.

It is the continuous ranked probability score of several axes. Unlike the likelihood it stays finite and in mm
however narrow the density is, and for a point it is the distance (Gneiting & Raftery 2007, Strictly proper
scoring rules, section 4.2).

Letters: N events, K keypoints, D axes, S draws.
"""

import numpy as np
import torch

from gerbil_tune.evaluation.blocks import Floats, Locations, event_blocks, noise_for, places
from gerbil_tune.models.density import LocationDensity
from gerbil_tune.models.event_noise import EventNoise


def energy_scores_mm(
    density: LocationDensity,
    locations_mm_NKD: Locations,
    *,
    num_draws: int = 1000,
    noise: EventNoise | None = None,
) -> Floats:
    """Energy score E|X - y| - E|X - X'| / 2 of each event and keypoint.

    y is the truth, X and X' are independent draws from the density. Each draw is paired with the next, which
    leaves both means without bias; so a single score may fall somewhat below 0.

    Args:
        density: Of N events.
        locations_mm_NKD: True locations, (N, K, D), mm.
        num_draws: S, at least 2.
        noise: Of the draws; default: by the place of each event, the same each time.

    Returns:
        (N, K), mm; lower is better.
    """
    truth_NKD = places(locations_mm_NKD, density)
    noise = noise or noise_for(density)
    scores_NK = np.empty(truth_NKD.shape[:2])
    for rows, block in event_blocks(density, num_draws):
        draws_SNKD = block.sample(num_draws, noise.rows(rows))
        miss_NK = _mean_length(draws_SNKD - truth_NKD[rows])
        spread_NK = _mean_length(draws_SNKD - draws_SNKD.roll(1, 0))
        scores_NK[rows] = (miss_NK - spread_NK / 2).cpu().numpy()
    return scores_NK


def _mean_length(offsets_SNKD: torch.Tensor) -> torch.Tensor:
    """Over the draws."""
    mean_NK: torch.Tensor = torch.linalg.vector_norm(offsets_SNKD, dim=-1).mean(0)
    return mean_NK
