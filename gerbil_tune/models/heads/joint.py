"""One Gaussian over all keypoints together.

Letters: B batch, O raw outputs, K keypoints, D axes, E all axes of all keypoints.
"""

import torch
from torch import Tensor

from gerbil_tune.config.heads import GaussianJointConfig
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.architecture import OutputShape
from gerbil_tune.models.density import JointDensity
from gerbil_tune.models.heads.head import Head
from gerbil_tune.models.heads.triangle import LowerTriangle


class GaussianJointHead(Head):
    """Means of all keypoints and one covariance, which tells how their errors go together.

    The raw numbers are E means, keypoint by keypoint, then one lower triangle over all E axes; of two
    keypoints this is the order of vocalocator's GAUSSIAN_4D_ORIENTED and GAUSSIAN_6D_ORIENTED.
    """

    def __init__(self, config: GaussianJointConfig, setup: RecordingSetup) -> None:
        super().__init__()
        self.num_keypoints = len(setup.keypoints)
        self.num_axes = setup.num_axes
        self.num_means = self.num_keypoints * self.num_axes
        self.triangle = LowerTriangle(self.num_means, config.min_sd_mm)
        self.output_shape = OutputShape(self.num_means + self.triangle.num_entries)

    def forward(self, raw_BO: Tensor, mm_per_unit_D: Tensor) -> JointDensity:
        """Read raw outputs; see ``Head``."""
        raw_BO = raw_BO.float()
        mean_BKD = raw_BO[:, : self.num_means].reshape(-1, self.num_keypoints, self.num_axes)
        tril_BEE = self.triangle(
            raw_BO[:, self.num_means :], mm_per_unit_D.repeat(self.num_keypoints)
        )
        return JointDensity.joint_gaussian(mean_BKD * mm_per_unit_D, tril_BEE)

    def _first_outputs(self, first_sd_units_D: Tensor) -> Tensor:
        first_sd_units_E = first_sd_units_D.repeat(self.num_keypoints)
        triangle_S = self.triangle.first_outputs(first_sd_units_E)
        return torch.cat([torch.zeros_like(first_sd_units_E), triangle_S])
