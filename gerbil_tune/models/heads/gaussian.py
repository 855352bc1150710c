"""Heads that state one Gaussian for each keypoint, keypoints independent.

For each keypoint the raw numbers are D means, then what the spread needs; both in network units, that
``mm_per_unit_D`` turns into millimetres. The orders are those of the predecessors. Nothing is clamped, so
gradients point back to the arena from outside it.

Letters: B batch, O raw outputs, K keypoints, D axes, S numbers for the spread.
"""

from abc import abstractmethod

import torch
from torch import Tensor, nn

from gerbil_tune.config.heads import (
    GaussianDiagonalConfig,
    GaussianFixedConfig,
    GaussianFullConfig,
    GaussianSphericalConfig,
    PointConfig,
)
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.architecture import OutputShape
from gerbil_tune.models.density import LocationDensity
from gerbil_tune.models.heads.head import Head, inverse_softplus
from gerbil_tune.models.heads.triangle import LowerTriangle


class _GaussianHead(Head):
    """What they share; a subclass says what follows the means."""

    def __init__(self, setup: RecordingSetup, *, num_spread: int) -> None:
        super().__init__()
        self.num_keypoints = len(setup.keypoints)
        self.num_axes = setup.num_axes
        self.per_keypoint = setup.num_axes + num_spread
        self.output_shape = OutputShape(self.num_keypoints * self.per_keypoint)

    def forward(self, raw_BO: Tensor, mm_per_unit_D: Tensor) -> LocationDensity:
        """Read raw outputs; see ``Head``."""
        raw_BKO = raw_BO.float().reshape(-1, self.num_keypoints, self.per_keypoint)
        mean_BKD = raw_BKO[..., : self.num_axes] * mm_per_unit_D
        tril_BKDD = self._scale_tril_mm(raw_BKO[..., self.num_axes :], mm_per_unit_D)
        return LocationDensity.gaussian(mean_BKD, tril_BKDD)

    def _first_outputs(self, first_sd_units_D: Tensor) -> Tensor:
        spread_S = self._first_spread(first_sd_units_D)
        raw_O = torch.cat([torch.zeros_like(first_sd_units_D), spread_S])
        return raw_O.repeat(self.num_keypoints)

    @abstractmethod
    def _scale_tril_mm(self, raw_BKS: Tensor, mm_per_unit_D: Tensor) -> Tensor:
        """Lower Cholesky factors, (B, K, D, D) mm."""

    @abstractmethod
    def _first_spread(self, first_sd_units_D: Tensor) -> Tensor:
        """Raw numbers (S,) of this standard deviation."""


class GaussianFixedHead(_GaussianHead):
    """Means; the standard deviation is a constant in millimetres, whatever a network unit is."""

    def __init__(self, config: GaussianFixedConfig, setup: RecordingSetup) -> None:
        super().__init__(setup, num_spread=0)
        self.sd_mm = config.sd_mm

    def _scale_tril_mm(self, raw_BKS: Tensor, mm_per_unit_D: Tensor) -> Tensor:
        sd_DD = self.sd_mm * torch.eye(self.num_axes, device=mm_per_unit_D.device)
        return sd_DD.expand(*raw_BKS.shape[:2], -1, -1)

    def _first_spread(self, first_sd_units_D: Tensor) -> Tensor:
        return first_sd_units_D.new_empty(0)


class PointHead(GaussianFixedHead):
    """Means alone, for losses without a likelihood.

    It states a standard deviation of a quarter of the arena's smallest width for all events, which the
    temperature found on validation events makes true.
    """

    def __init__(self, config: PointConfig, setup: RecordingSetup) -> None:
        super().__init__(GaussianFixedConfig(sd_mm=min(setup.arena_mm) / 4), setup)


class GaussianSphericalHead(_GaussianHead):
    """Means and one standard deviation, through softplus; circular in network units."""

    def __init__(self, config: GaussianSphericalConfig, setup: RecordingSetup) -> None:
        super().__init__(setup, num_spread=1)
        self.min_sd_mm = config.min_sd_mm

    def _scale_tril_mm(self, raw_BKS: Tensor, mm_per_unit_D: Tensor) -> Tensor:
        sd_BKD = nn.functional.softplus(raw_BKS) * mm_per_unit_D + self.min_sd_mm
        return torch.diag_embed(sd_BKD)

    def _first_spread(self, first_sd_units_D: Tensor) -> Tensor:
        return inverse_softplus(first_sd_units_D.mean(0, keepdim=True))


class GaussianDiagonalHead(_GaussianHead):
    """Means and the standard deviation of each axis, through softplus."""

    def __init__(self, config: GaussianDiagonalConfig, setup: RecordingSetup) -> None:
        super().__init__(setup, num_spread=setup.num_axes)
        self.min_sd_mm = config.min_sd_mm

    def _scale_tril_mm(self, raw_BKS: Tensor, mm_per_unit_D: Tensor) -> Tensor:
        sd_BKD = nn.functional.softplus(raw_BKS) * mm_per_unit_D + self.min_sd_mm
        return torch.diag_embed(sd_BKD)

    def _first_spread(self, first_sd_units_D: Tensor) -> Tensor:
        return inverse_softplus(first_sd_units_D)


class GaussianFullHead(_GaussianHead):
    """Means and the lower triangle of the covariance's Cholesky factor."""

    def __init__(self, config: GaussianFullConfig, setup: RecordingSetup) -> None:
        triangle = LowerTriangle(setup.num_axes, config.min_sd_mm)
        super().__init__(setup, num_spread=triangle.num_entries)
        self.triangle = triangle

    def _scale_tril_mm(self, raw_BKS: Tensor, mm_per_unit_D: Tensor) -> Tensor:
        tril_BKDD: Tensor = self.triangle(raw_BKS, mm_per_unit_D)
        return tril_BKDD

    def _first_spread(self, first_sd_units_D: Tensor) -> Tensor:
        return self.triangle.first_outputs(first_sd_units_D)
