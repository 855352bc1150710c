"""How sure a model is of a location: the probability that the truth is near.

Letters: N events, K keypoints, D axes, S draws.
"""

import math

import torch
from torch import Tensor

from gerbil_tune.evaluation.blocks import event_blocks, noise_for, usual_draws
from gerbil_tune.models.density import LocationDensity
from gerbil_tune.models.event_noise import EventNoise

RADIUS_MM = 50.0
"""What near means: half the length of a gerbil's body."""
_NUM_DIRECTIONS = 64


def probability_within(
    density: LocationDensity,
    radius_mm: float = RADIUS_MM,
    *,
    num_draws: int | None = None,
    noise: EventNoise | None = None,
) -> Tensor:
    """Probability that the truth is no further from the mean than a radius.

    A draw from a Gaussian in two axes is s L v, with the Cholesky factor L of the covariance, a direction v
    and a Rayleigh-distributed length s. The mass beyond the radius r is so the mean of exp(-r² / (2 |L v|²))
    over all directions. Of other densities it is the share of draws.

    Args:
        density: Calibrated, of N events.
        radius_mm: r, mm.
        num_draws: S; default ``blocks.usual_draws``.
        noise: Of the draws; default: by the place of each event, the same each time.

    Returns:
        (N, K) float32, from 0 to 1.
    """
    shape = density.log_weights_BKM.shape[:2]
    probability_NK = torch.empty(shape, dtype=torch.float32)
    num_draws = num_draws or usual_draws(density)
    noise = noise or noise_for(density)
    is_closed = density.is_gaussian and density.num_axes == 2
    for rows, block in event_blocks(density, _NUM_DIRECTIONS if is_closed else num_draws):
        if is_closed:
            found_NK = _of_gaussians(block, radius_mm)
        else:
            draws_SNKD = block.sample(num_draws, noise.rows(rows))
            distance_SNK = torch.linalg.vector_norm(draws_SNKD - block.mean_mm_BKD, dim=-1)
            found_NK = (distance_SNK <= radius_mm).double().mean(0)
        probability_NK[rows] = found_NK.to("cpu", torch.float32)
    return probability_NK


def _of_gaussians(block: LocationDensity, radius_mm: float) -> Tensor:
    """The mean over evenly spaced directions, which converges fast for a periodic function."""
    angles = torch.arange(_NUM_DIRECTIONS, dtype=torch.float64) * (2 * math.pi / _NUM_DIRECTIONS)
    directions_2A = torch.stack([angles.cos(), angles.sin()]).to(block.means_mm_BKMD.device)
    squared_NKA = (block.scale_tril_mm_BKMDD[:, :, 0] @ directions_2A).square().sum(-2)
    beyond_NKA = (-(radius_mm**2) / (2 * squared_NKA)).exp()
    probability_NK: Tensor = 1 - beyond_NKA.mean(-1)
    return probability_NK
