"""Densities of many events a few at a time, in double precision: memory stays bounded on any data.

Letters: N events, K keypoints, M components, D axes, S draws.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gerbil_tune.models.density import LocationDensity
from gerbil_tune.models.event_noise import EventNoise

Floats = NDArray[np.float64]
Locations = NDArray[Any] | Tensor
"""(N, K, D), mm."""

_VALUES_AT_A_TIME = 2**17
"""A megabyte: what fits into a processor's cache is done several times faster."""
_MANY_COMPONENTS = 64
_NEGLIGIBLE_LOG_WEIGHT = -21.0
"""A weight below 1e-9: a thousand such components are a millionth of the mass."""


def event_blocks(
    density: LocationDensity, num_draws: int = 1
) -> Iterator[tuple[slice, LocationDensity]]:
    """Cut the events into blocks small enough to look at so many places of each; float64.

    Args:
        density: Of N events.
        num_draws: Places of each event that are looked at together.

    Yields:
        The events of a block, and their densities.
    """
    num_events, num_keypoints, num_components = density.log_weights_BKM.shape
    values_per_event = num_draws * num_keypoints * num_components * density.num_axes
    size = max(1, _VALUES_AT_A_TIME // max(1, values_per_event))
    for start in range(0, num_events, size):
        rows = slice(start, start + size)
        yield rows, density.rows(rows).to(dtype=torch.float64)


def places(locations_mm_NKD: Locations, density: LocationDensity) -> Tensor:
    """Locations in float64, where the density is."""
    device = density.log_weights_BKM.device
    return torch.as_tensor(locations_mm_NKD).to(device, torch.float64)


def without_negligible(block: LocationDensity) -> LocationDensity:
    """Leave out what an event gives no weight: most cells of a grid.

    Draws of the block have the same log density without it, but for a few in a million. Each event loses its
    own components, so that it does not matter which events are beside it.
    """
    if block.is_gaussian:
        return block
    has_weight_BKM = block.log_weights_BKM > _NEGLIGIBLE_LOG_WEIGHT
    index_M = has_weight_BKM.flatten(0, 1).any(0).nonzero().squeeze(1)
    own_BKM = block.log_weights_BKM.masked_fill(~has_weight_BKM, -math.inf)
    return replace(
        block,
        log_weights_BKM=own_BKM[:, :, index_M],
        means_mm_BKMD=block.means_mm_BKMD[:, :, index_M],
        scale_tril_mm_BKMDD=block.scale_tril_mm_BKMDD[:, :, index_M],
    )


def draw_log_densities(block: LocationDensity, draws_SNKD: Tensor) -> Tensor:
    """Log density at places that were drawn from the block or from one with the same centres; (S, N, K).

    Where the components share their covariance, as the cells of a grid do, all distances are one matrix
    product; its rounding needs the double precision of a block.
    """
    heavy = without_negligible(block)
    shares_tril = block.scale_tril_mm_BKMDD.stride(2) == 0
    if not shares_tril or block.is_gaussian or block.log_background_BK is not None:
        return heavy.log_density_BK(draws_SNKD)
    return _shared_covariance_log_densities(heavy, block.scale_tril_mm_BKMDD[:, :, 0], draws_SNKD)


def _shared_covariance_log_densities(
    density: LocationDensity, tril_NKDD: Tensor, draws_SNKD: Tensor
) -> Tensor:
    centres_NKDM = torch.linalg.solve_triangular(tril_NKDD, density.means_mm_BKMD.mT, upper=False)
    draws_NKDS = torch.linalg.solve_triangular(
        tril_NKDD, draws_SNKD.permute(1, 2, 3, 0), upper=False
    )
    heights_NKM = density.log_weights_BKM - centres_NKDM.square().sum(2) / 2
    exponents_NKSM = draws_NKDS.mT @ centres_NKDM
    exponents_NKSM += heights_NKM[:, :, None]
    log_det_NK = tril_NKDD.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    constant_NK = log_det_NK + density.num_axes / 2 * math.log(2 * math.pi)
    squared_NKS = draws_NKDS.square().sum(2)
    log_density_NKS: Tensor = (
        exponents_NKSM.logsumexp(-1) - squared_NKS / 2 - constant_NK[..., None]
    )
    return log_density_NKS.movedim(-1, 0)


def negative_log_likelihoods(density: LocationDensity, locations_mm_NKD: Locations) -> Floats:
    """Negative log density of the truth, (N, K), nats of a density per mm^D."""
    truth_NKD = places(locations_mm_NKD, density)
    nll_NK = np.empty(truth_NKD.shape[:2])
    for rows, block in event_blocks(density):
        nll_NK[rows] = -block.log_density_BK(truth_NKD[rows]).cpu().numpy()
    return nll_NK


def noise_for(density: LocationDensity) -> EventNoise:
    """Random numbers by the place of each event, the same ones each time."""
    return EventNoise.counted(len(density.log_weights_BKM))


def usual_draws(density: LocationDensity) -> int:
    """Draws an event for levels and sizes: 1,000, but 256 from many components, such as grids."""
    return 1000 if density.log_weights_BKM.shape[2] <= _MANY_COMPONENTS else 256
