"""A mixture of Gaussians for each keypoint.

Letters: B batch, O raw outputs, K keypoints, M components, D axes, S entries of a triangle.
"""

import math

import torch
from torch import Tensor

from gerbil_tune.config.heads import MixtureConfig
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.architecture import OutputShape
from gerbil_tune.models.arena import arena_edges_mm
from gerbil_tune.models.density import LocationDensity
from gerbil_tune.models.heads.head import Head
from gerbil_tune.models.heads.triangle import LowerTriangle

_FIRST_BACKGROUND = 0.05  # its weight at first


class MixtureHead(Head):
    """Several places with full covariances, and how likely each is (Bishop 1994, Mixture density networks).

    For each keypoint the raw numbers are M blocks of D means and a lower triangle, as of the full Gaussian,
    then M logits, and one more of the background if there is one: a uniform density over the arena.
    """

    box_mm_2D: Tensor

    def __init__(self, config: MixtureConfig, setup: RecordingSetup) -> None:
        super().__init__()
        self.num_keypoints = len(setup.keypoints)
        self.num_axes = setup.num_axes
        self.num_components = config.num_components
        self.has_background = config.background
        self.triangle = LowerTriangle(setup.num_axes, config.min_sd_mm)
        box_mm_2D = torch.tensor(arena_edges_mm(setup)).T
        self.register_buffer("box_mm_2D", box_mm_2D, persistent=False)
        self.block = setup.num_axes + self.triangle.num_entries
        self.per_keypoint = config.num_components * (self.block + 1) + config.background
        self.output_shape = OutputShape(self.num_keypoints * self.per_keypoint)

    def forward(self, raw_BO: Tensor, mm_per_unit_D: Tensor) -> LocationDensity:
        """Read raw outputs; see ``Head``."""
        raw_BKO = raw_BO.float().reshape(-1, self.num_keypoints, self.per_keypoint)
        num_block_outputs = self.num_components * self.block
        blocks_BKMO = raw_BKO[..., :num_block_outputs].reshape(
            *raw_BKO.shape[:2], self.num_components, self.block
        )
        log_weights = raw_BKO[..., num_block_outputs:].log_softmax(-1)
        return LocationDensity(
            log_weights[..., : self.num_components],
            blocks_BKMO[..., : self.num_axes] * mm_per_unit_D,
            self.triangle(blocks_BKMO[..., self.num_axes :], mm_per_unit_D),
            log_weights[..., -1] if self.has_background else None,
            self.box_mm_2D if self.has_background else None,
        )

    def _first_outputs(self, first_sd_units_D: Tensor) -> Tensor:
        """As of all heads; components stand on a ring, for alike they would learn alike for ever."""
        means_MD = _ring(self.num_components, self.num_axes) * first_sd_units_D
        triangle_S = self.triangle.first_outputs(first_sd_units_D)
        blocks = torch.cat([means_MD, triangle_S.expand(self.num_components, -1)], dim=1)
        logits = torch.zeros(self.num_components + self.has_background)
        if self.has_background:
            odds = _FIRST_BACKGROUND / (1.0 - _FIRST_BACKGROUND)
            logits[-1] = math.log(odds * self.num_components)
        return torch.cat([blocks.flatten(), logits]).repeat(self.num_keypoints)


def _ring(count: int, num_axes: int) -> Tensor:
    """Places evenly on the unit circle of the first two axes, (count, num_axes); one alone at its centre."""
    places = torch.zeros(count, num_axes)
    if count > 1:
        angle_M = 2 * math.pi * torch.arange(count) / count
        places[:, 0] = angle_M.cos()
        places[:, 1] = angle_M.sin()
    return places
