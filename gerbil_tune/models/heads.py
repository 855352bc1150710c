"""From raw network outputs to a distribution over locations in millimetres.

Letters: B batch, O raw outputs, K keypoints, D axes.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gerbil_tune.config.schema import GaussianFullConfig

_ROUNDING = 1e-6  # of float32, several times over
_FIRST_SPREAD = 0.3  # of a usual initial weight, for a first standard deviation of one unit


@dataclass(slots=True)
class GaussianPrediction:
    """One Gaussian a keypoint, in millimetres.

    Attributes:
        mean_mm_BKD: (B, K, D) float32.
        scale_tril_mm_BKDD: (B, K, D, D) float32, lower Cholesky factor of the covariance.
    """

    mean_mm_BKD: Tensor
    scale_tril_mm_BKDD: Tensor

    @property
    def covariance_mm2_BKDD(self) -> Tensor:
        """(B, K, D, D) float32, positive definite also where rounding would make it singular."""
        covariance = self.scale_tril_mm_BKDD @ self.scale_tril_mm_BKDD.mT
        return covariance + _ROUNDING * torch.diag_embed(covariance.diagonal(dim1=-2, dim2=-1))

    def log_density_BK(self, locations_mm_BKD: Tensor) -> Tensor:
        """Natural logarithm of the density per mm^D at each location, (B, K)."""
        offset_BKD1 = (locations_mm_BKD - self.mean_mm_BKD)[..., None]
        whitened = torch.linalg.solve_triangular(self.scale_tril_mm_BKDD, offset_BKD1, upper=False)
        log_det = self.scale_tril_mm_BKDD.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        num_axes = locations_mm_BKD.shape[-1]
        constant = num_axes / 2 * math.log(2 * math.pi)
        log_density: Tensor = -0.5 * whitened.square().sum((-2, -1)) - log_det - constant
        return log_density


class GaussianFullHead(nn.Module):
    """Mean and full covariance of each keypoint, keypoints independent.

    For each keypoint the raw numbers are D means, then the lower triangle row by row (00, 10, 11, ...) whose
    diagonal goes through softplus; both in network units, that ``mm_per_unit_D`` turns into millimetres.
    The order is that of the predecessors' GAUSSIAN_FULL_COV. Nothing is clamped, so gradients point back
    to the arena from outside it.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, config: GaussianFullConfig, *, num_keypoints: int, num_axes: int) -> None:
        super().__init__()
        self.num_keypoints = num_keypoints
        self.num_axes = num_axes
        self.min_sd_mm = config.min_sd_mm
        rows, columns = torch.tril_indices(num_axes, num_axes)
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("columns", columns, persistent=False)
        self.outputs_per_keypoint = num_axes + len(rows)
        self.num_outputs = num_keypoints * self.outputs_per_keypoint

    def forward(self, raw_BO: Tensor, mm_per_unit_D: Tensor) -> GaussianPrediction:
        """Read raw outputs.

        Args:
            raw_BO: (B, num_outputs) float32.
            mm_per_unit_D: (D,) float32, millimetres for one network unit.
        """
        raw_BKO = raw_BO.float().reshape(-1, self.num_keypoints, self.outputs_per_keypoint)
        mean_BKD, triangle = raw_BKO[..., : self.num_axes], raw_BKO[..., self.num_axes :]
        tril = raw_BKO.new_zeros(*raw_BKO.shape[:2], self.num_axes, self.num_axes)
        tril[..., self.rows, self.columns] = triangle
        diagonal_BKD = tril.diagonal(dim1=-2, dim2=-1)
        off_diagonal = tril - torch.diag_embed(diagonal_BKD)
        positive = nn.functional.softplus(diagonal_BKD) * mm_per_unit_D + self.min_sd_mm
        scale_tril = off_diagonal * mm_per_unit_D[:, None] + torch.diag_embed(positive)
        return GaussianPrediction(mean_BKD * mm_per_unit_D, scale_tril)

    def initialize_readout(self, readout: nn.Linear, first_sd_units_D: Tensor) -> None:
        """Start at the arena's centre with a wide Gaussian: the first steps then learn, not recover.

        Args:
            readout: The layer that produces the raw outputs; its weights are scaled down.
            first_sd_units_D: (D,) standard deviation to start from, in network units.
        """
        with torch.no_grad():
            # By the first standard deviation: near the centre in mm, however large a network unit is.
            readout.weight.mul_(_FIRST_SPREAD * first_sd_units_D.min().clamp_max(1.0))
            bias = torch.zeros(self.num_keypoints, self.outputs_per_keypoint)
            inverse_softplus_D = first_sd_units_D + torch.log(-torch.expm1(-first_sd_units_D))
            on_diagonal = (self.rows == self.columns).nonzero().squeeze(1)
            bias[:, self.num_axes + on_diagonal] = inverse_softplus_D
            readout.bias.copy_(bias.flatten())
