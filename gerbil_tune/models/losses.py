"""What training minimizes, in millimetres whatever a network unit is.

Letters: B batch, K keypoints, D axes, N places of a lattice.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from gerbil_tune.config.losses import LossConfig
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.arena import arena_edges_mm, cell_centres_mm
from gerbil_tune.models.density import JointDensity, LocationDensity

_LATTICE = (5, 5, 3)  # places on x, y and z


def make_loss(
    config: LossConfig, setup: RecordingSetup
) -> Callable[[LocationDensity, Tensor], Tensor]:
    """Build the loss that ``config.kind`` names.

    Returns:
        A module, called with a density and locations (B, K, D) in mm: the loss of each event, (B,), the mean
        over keypoints.
    """
    if config.kind == "nll":
        return NegativeLogLikelihood(config, setup)
    return PointLoss(setup, math.inf if config.kind == "squared" else config.huber_mm)


class NegativeLogLikelihood(nn.Module):
    """Minus the log density at the label, nats per mm^D, and what the config adds to it.

    Label noise ε stands for labels that may be anywhere: -log((1 - ε) p(y) + ε / arena). The second term is
    the same outside the arena; the less likely a label is, the less it pulls. Of a joint density it is all
    keypoints of an event together that may be anywhere.

    Label smoothing e replaces a label by a lattice of places over the arena in a part of the loss (Szegedy et
    al. 2016, Rethinking the Inception architecture, section 7, for classes); of a joint density each keypoint
    by itself.
    """

    lattice_mm_N11D: Tensor

    def __init__(self, config: LossConfig, setup: RecordingSetup) -> None:
        super().__init__()
        self.config = config
        edges_mm = arena_edges_mm(setup)
        self.log_arena = sum(math.log(high - low) for low, high in edges_mm)
        lattice_mm_ND = cell_centres_mm(edges_mm, _LATTICE[: setup.num_axes])
        self.register_buffer("lattice_mm_N11D", lattice_mm_ND[:, None, None], persistent=False)

    def forward(self, density: LocationDensity, locations_mm_BKD: Tensor) -> Tensor:
        """Return the loss of each event, (B,)."""
        config = self.config
        loss_BK = self._at(locations_mm_BKD, density)
        if config.label_smoothing > 0:
            each = density.marginals() if isinstance(density, JointDensity) else density
            anywhere_BK = self._at(self.lattice_mm_N11D, each).mean(0)
            loss_BK = torch.lerp(loss_BK, anywhere_BK, config.label_smoothing)
        if config.covariance_prior > 0:
            penalty_BK = wishart_penalty(
                density.covariance_mm2_BKDD, mean_variance_mm2=config.covariance_prior_sd_mm**2
            )
            loss_BK = loss_BK + config.covariance_prior * penalty_BK
        return loss_BK.mean(1)

    def _at(self, locations_mm_BKD: Tensor, density: LocationDensity) -> Tensor:
        log_density_BK = density.log_density_BK(locations_mm_BKD)
        noise = self.config.label_noise
        if not noise:
            return -log_density_BK
        # A joint density gives each keypoint an equal share of the whole.
        together = log_density_BK.shape[-1] if isinstance(density, JointDensity) else 1
        anywhere = log_density_BK.new_tensor(math.log(noise) - together * self.log_arena)
        right_BK = math.log1p(-noise) + together * log_density_BK
        return -torch.logaddexp(right_BK, anywhere) / together


class PointLoss(nn.Module):
    """Error of the mean: squared up to a distance, then linear (Huber 1964, doi:10.1214/aoms/1177703732).

    It is r² / 2 of the distance r up to ``huber_mm``, then huber_mm (r - huber_mm / 2), over the square of a
    quarter of the arena's smallest width. So it has no unit, begins near 1 whatever the arena's size, and
    squared it is minus the log-likelihood of a Gaussian of that standard deviation, without its constant.
    """

    def __init__(self, setup: RecordingSetup, huber_mm: float) -> None:
        super().__init__()
        self.reference_mm = min(setup.arena_mm) / 4
        self.huber_mm = huber_mm

    def forward(self, density: LocationDensity, locations_mm_BKD: Tensor) -> Tensor:
        """Return the loss of each event, (B,)."""
        offset_BKD = (density.mean_mm_BKD - locations_mm_BKD) / self.reference_mm
        if math.isinf(self.huber_mm):
            return offset_BKD.square().sum(-1).mean(1) / 2
        distance_BK = torch.linalg.vector_norm(offset_BKD, dim=-1)
        loss_BK = nn.functional.huber_loss(
            distance_BK,
            torch.zeros_like(distance_BK),
            reduction="none",
            delta=self.huber_mm / self.reference_mm,
        )
        return loss_BK.mean(1)


def wishart_penalty(covariance_mm2_DD: Tensor, *, mean_variance_mm2: float) -> Tensor:
    """Minus the log density of covariances under a Wishart prior, without its constant.

    The prior has the mean v I and n = D + 2 degrees of freedom, the fewest that rule out singular covariances
    (Chung et al. 2015, Weakly informative prior for point estimation of covariance matrices in hierarchical
    models). With the scale V = v / n I its log density is (n - D - 1) / 2 log|S| - tr(V⁻¹ S) / 2
    and a constant (Wishart 1928, doi:10.1093/biomet/20A.1-2.32). The penalty is least at S = v / n I.

    Args:
        covariance_mm2_DD: (..., D, D) positive definite.
        mean_variance_mm2: v.

    Returns:
        (...), nats.
    """
    degrees = covariance_mm2_DD.shape[-1] + 2
    trace = covariance_mm2_DD.diagonal(dim1=-2, dim2=-1).sum(-1)
    penalty: Tensor = (
        degrees / mean_variance_mm2 * trace - torch.linalg.slogdet(covariance_mm2_DD).logabsdet
    ) / 2
    return penalty
