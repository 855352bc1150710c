"""Highest-density regions: which of them reaches the truth, and how large they are.

The region of probability c is the smallest that holds this mass: all places whose density is at least some
threshold. Of a single Gaussian they are ellipsoids and all is in closed form. Of another density they are
found by draws from it. Draws fall where the density is, however narrow it is, which the cells of a grid do
not. (Hyndman 1996, Computing and graphing highest density regions, section 3.2: the threshold is a quantile
of the density at draws.)

Letters: N events, K keypoints, D axes, R regions (probabilities), S draws.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
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
from gerbil_tune.evaluation.calibration import drawn_levels, hpd_levels
from gerbil_tune.models.density import LocationDensity
from gerbil_tune.models.event_noise import EventNoise

PROBABILITIES = (0.5, 0.9, 0.95)


@dataclass(frozen=True, eq=False, slots=True)
class Regions:
    """The highest-density regions of N events, each keypoint by itself.

    Attributes:
        probabilities: Mass of the R regions.
        levels_NK: Mass of the region that just reaches the truth; see ``calibration.hdr_levels``.
        areas_NKR: Size in mm^D: an area of two axes, a volume of three.
        furthest_mm_NKR: Largest distance from the mean to a place in the region, mm.
    """

    probabilities: tuple[float, ...]
    levels_NK: Floats
    areas_NKR: Floats
    furthest_mm_NKR: Floats

    @property
    def hits_NKR(self) -> NDArray[np.bool_]:
        """Whether the truth is in the region."""
        hits: NDArray[np.bool_] = self.levels_NK[..., None] <= np.asarray(self.probabilities)
        return hits


def highest_density_regions(
    density: LocationDensity,
    locations_mm_NKD: Locations,
    *,
    probabilities: tuple[float, ...] = PROBABILITIES,
    num_draws: int | None = None,
    noise: EventNoise | None = None,
) -> Regions:
    """Find the regions of each keypoint, in closed form of Gaussians and by draws of other densities.

    By 1,000 draws the area of 95 % is within some 5 %. A distance is that of the farthest draw in the region,
    so somewhat short.

    Args:
        density: Of N events.
        locations_mm_NKD: True locations, (N, K, D), mm.
        probabilities: Mass of the regions, each between 0 and 1.
        num_draws: S; default ``blocks.usual_draws``.
        noise: Of the draws; default: by the place of each event, the same each time.
    """
    truth_NKD = places(locations_mm_NKD, density)
    levels_NK = np.empty(truth_NKD.shape[:2])
    areas_NKR, furthest_mm_NKR = np.empty((2, *levels_NK.shape, len(probabilities)))
    noise = noise or noise_for(density)
    num_draws = 1 if density.is_gaussian else num_draws or usual_draws(density)
    for rows, block in event_blocks(density, num_draws):
        found = (
            _gaussian_regions(block, truth_NKD[rows], probabilities)
            if density.is_gaussian
            else _drawn_regions(block, truth_NKD[rows], probabilities, num_draws, noise.rows(rows))
        )
        levels_NK[rows], areas_NKR[rows], furthest_mm_NKR[rows] = found
    return Regions(probabilities, levels_NK, areas_NKR, furthest_mm_NKR)


def ellipsoid_volumes(gaussians: LocationDensity, squared_radii: Tensor) -> Tensor:
    """Size of the regions of Gaussians up to a squared Mahalanobis distance.

    It is the volume of the unit ball times the square roots of the covariance's determinant and of the
    squared radius to the power D.

    Args:
        gaussians: Of N events; ``is_gaussian``.
        squared_radii: (N, K, R) or a shape that broadcasts to it, at least 0; infinite gives infinite.

    Returns:
        (N, K, R), mm^D.
    """
    half_axes = gaussians.num_axes / 2
    unit_ball = math.pi**half_axes / math.gamma(half_axes + 1)
    diagonal_NKD = gaussians.scale_tril_mm_BKMDD[:, :, 0].diagonal(dim1=-2, dim2=-1)
    volumes_NKR: Tensor = unit_ball * diagonal_NKD.prod(-1, keepdim=True) * squared_radii**half_axes
    return volumes_NKR


def _gaussian_regions(
    block: LocationDensity, truth_NKD: Tensor, probabilities: tuple[float, ...]
) -> tuple[Floats, Floats, Floats]:
    """Levels, areas and distances in closed form: the squared Mahalanobis distance is chi-square."""
    from scipy.special import gammaincinv

    levels_NK = hpd_levels(block.score_BK(truth_NKD).cpu().numpy(), block.num_axes)
    squared_radii = 2 * gammaincinv(block.num_axes / 2, np.asarray(probabilities))
    squared_radii_R = torch.as_tensor(squared_radii).to(truth_NKD.device)
    longest_NK = torch.linalg.matrix_norm(block.scale_tril_mm_BKMDD[:, :, 0], ord=2)
    furthest_NKR = longest_NK[..., None] * squared_radii_R.sqrt()
    areas_NKR = ellipsoid_volumes(block, squared_radii_R)
    return levels_NK, areas_NKR.cpu().numpy(), furthest_NKR.cpu().numpy()


def _drawn_regions(
    block: LocationDensity,
    truth_NKD: Tensor,
    probabilities: tuple[float, ...],
    num_draws: int,
    noise: EventNoise,
) -> tuple[Floats, Floats, Floats]:
    """Levels, areas and distances by draws.

    With p the density, t the threshold and X a draw, the area is E[1{p(X) >= t} / p(X)].
    """
    draws_SNKD = block.sample(num_draws, noise)
    log_density_SNK = draw_log_densities(block, draws_SNKD)
    levels_NK = drawn_levels(log_density_SNK, block.log_density_BK(truth_NKD), noise)
    ordered_SNK, order_SNK = log_density_SNK.sort(0)
    distance_SNK = torch.linalg.vector_norm(draws_SNKD - block.mean_mm_BKD, dim=-1)
    distance_SNK = distance_SNK.gather(0, order_SNK)
    # Of each region the draw of the lowest density: all from it on are inside.
    first_R = [math.floor((1 - probability) * num_draws) for probability in probabilities]
    areas_RNK = [(-ordered_SNK[first:]).exp().sum(0) / num_draws for first in first_R]
    furthest_RNK = [distance_SNK[first:].amax(0) for first in first_R]
    return (
        levels_NK.cpu().numpy(),
        torch.stack(areas_RNK, dim=-1).cpu().numpy(),
        torch.stack(furthest_RNK, dim=-1).cpu().numpy(),
    )
