"""Densities as maps of the arena: their values at the centres of cells.

Letters: N events, K keypoints, D axes, Y and X cells along the axes, P cells.
"""

import math
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from gerbil_tune.errors import ConfigError
from gerbil_tune.evaluation.blocks import Floats, draw_log_densities, event_blocks
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.density import JointDensity, LocationDensity

_MOST_CELLS = 10**6


def cell_centres_mm(setup: RecordingSetup, step_mm: float) -> tuple[Floats, Floats]:
    """Centres of the cells along x and y, from low to high; cells fill the arena and are a step wide at most.

    Raises:
        ConfigError: If the step is not above 0, or so small that there would be over a million cells.
    """
    counts = (
        [math.ceil(width / step_mm - 1e-9) for width in setup.arena_mm[:2]] if step_mm > 0 else [0]
    )
    if not 0 < math.prod(counts) <= _MOST_CELLS:
        smallest = math.sqrt(math.prod(setup.arena_mm[:2]) / _MOST_CELLS)
        raise ConfigError(
            f"a map of cells of {step_mm:g} mm has no size, or over a million cells; in this arena a step "
            f"must be at least {smallest:.2g} mm, and 10 mm is usual"
        )
    x_mm, y_mm = (
        (np.arange(count, dtype=np.float64) + 0.5) * (width / count) - width / 2
        for count, width in zip(counts, setup.arena_mm[:2], strict=True)
    )
    return x_mm, y_mm


def density_maps(density: LocationDensity, x_mm: Floats, y_mm: Floats) -> NDArray[np.float32]:
    """Density of each keypoint at the centres of cells; of three axes, whatever the height.

    Args:
        density: Of N events.
        x_mm: Centres along x, (X,).
        y_mm: Centres along y, (Y,).

    Returns:
        (N, K, Y, X), per mm².
    """
    flat = _in_the_plane(density)
    num_events, num_keypoints = flat.log_weights_BKM.shape[:2]
    y_YX, x_YX = np.meshgrid(y_mm, x_mm, indexing="ij")
    centres_P2 = torch.from_numpy(np.stack([x_YX.ravel(), y_YX.ravel()], axis=-1))
    maps_NKP = np.empty((num_events, num_keypoints, len(centres_P2)), np.float32)
    for rows, block in event_blocks(flat, len(centres_P2)):
        shape = len(centres_P2), len(block.log_weights_BKM), num_keypoints, 2
        places_PNK2 = centres_P2[:, None, None].expand(shape)
        log_density_PNK = draw_log_densities(block, places_PNK2)
        maps_NKP[rows] = log_density_PNK.exp().movedim(0, -1).numpy()
    return maps_NKP.reshape(num_events, num_keypoints, len(y_mm), len(x_mm))


def _in_the_plane(density: LocationDensity) -> LocationDensity:
    """The density of x and y alone, of each keypoint by itself."""
    apart = density.marginals() if isinstance(density, JointDensity) else density
    if apart.num_axes == 2:
        return apart
    return replace(
        apart,
        means_mm_BKMD=apart.means_mm_BKMD[..., :2],
        # The factor is lower triangular, so its corner is that of the corner of the covariance.
        scale_tril_mm_BKMDD=apart.scale_tril_mm_BKMDD[..., :2, :2],
        box_mm_2D=None if apart.box_mm_2D is None else apart.box_mm_2D[:, :2],
    )
