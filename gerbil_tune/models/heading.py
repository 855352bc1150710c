"""Which way an animal faces, from the joint Gaussian of two of its keypoints.

Letters: B batch, D axes.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gerbil_tune.models.density import JointDensity

_FAR_TAIL = -50.0  # where an asymptotic series is better than a difference of nearly equal numbers


@dataclass(frozen=True, slots=True)
class Heading:
    """The direction, in the plane of the floor, of a vector that is Gaussian.

    Attributes:
        vector_mm_B2: Mean of the vector, x and y.
        covariance_mm2_B22: Its covariance.
    """

    vector_mm_B2: Tensor
    covariance_mm2_B22: Tensor

    @property
    def angle_rad_B(self) -> Tensor:
        """Direction of the mean vector, from the x axis towards y, (B,) in [-pi, pi]."""
        return torch.atan2(self.vector_mm_B2[:, 1], self.vector_mm_B2[:, 0])

    def log_density_B(self, angle_rad_B: Tensor) -> Tensor:
        """Log density per radian at an angle: the projected normal distribution, float64.

        With u the direction, A = uᵀ S⁻¹ u, t = uᵀ S⁻¹ m / sqrt(A) and the standard normal's φ and Φ it is

            exp(-mᵀ S⁻¹ m / 2) / (2 pi A sqrt|S|) · (1 + t Φ(t) / φ(t))

        (Mardia & Jupp 2000, Directional statistics, section 3.5.6; Wang & Gelfand 2013,
        doi:10.1016/j.stamet.2012.07.005).

        Args:
            angle_rad_B: (B,) or a shape that broadcasts to it, such as (angles, B).
        """
        angle = angle_rad_B.double()
        direction_2 = torch.stack([angle.cos(), angle.sin()], dim=-1)
        covariance_B22 = self.covariance_mm2_B22.double()
        mean_B2 = self.vector_mm_B2.double()
        precision_B22 = torch.linalg.inv(covariance_B22)
        weighted_2 = (direction_2[..., None, :] @ precision_B22)[..., 0, :]
        squared = (weighted_2 * direction_2).sum(-1)
        t = (weighted_2 * mean_B2).sum(-1) / squared.sqrt()
        distance_B = ((mean_B2[:, None, :] @ precision_B22)[:, 0] * mean_B2).sum(-1)
        log_det_B = torch.linalg.slogdet(covariance_B22).logabsdet
        constant_B = -distance_B / 2 - log_det_B / 2 - math.log(2 * math.pi)
        log_density: Tensor = constant_B - squared.log() + _log_growth(t)
        return log_density


def heading(density: JointDensity, *, front: int = 0, back: int = 1) -> Heading:
    """Direction from the keypoint ``back`` to the keypoint ``front``.

    Their difference is Gaussian, because they are so together.
    """
    mean_BKD = density.means_mm_BKMD[:, :, 0]
    tril_BEE = density.joint_scale_tril_mm_BEE
    rows_BKDE = tril_BEE.reshape(*mean_BKD.shape, tril_BEE.shape[2])
    difference_B2E = (rows_BKDE[:, front] - rows_BKDE[:, back])[:, :2]
    return Heading(
        (mean_BKD[:, front] - mean_BKD[:, back])[:, :2], difference_B2E @ difference_B2E.mT
    )


def _log_growth(t: Tensor) -> Tensor:
    """log(1 + t Φ(t) / φ(t)), of float64, without overflow or cancellation."""
    above = t.clamp_min(0.0)
    # Multiplied by exp(t² / 2), which stays outside of the logarithm.
    grown = torch.exp(-above.square() / 2) + above * math.sqrt(2 * math.pi) * torch.special.ndtr(
        above
    )
    below = t.clamp(_FAR_TAIL, 0.0)
    ratio = math.sqrt(math.pi / 2) * torch.special.erfcx(-below / math.sqrt(2))
    inverse = 1 / t.clamp_max(_FAR_TAIL).square()
    far = inverse * (1 - 3 * inverse * (1 - 5 * inverse))
    negative = torch.where(t < _FAR_TAIL, far, 1 + below * ratio)
    return torch.where(t > 0, above.square() / 2 + grown.log(), negative.log())
