"""What a model states about locations: a mixture of Gaussians for each keypoint, in millimetres.

A point, a Gaussian, a mixture and a grid of cells are all of this form, so all that comes after a model reads
one class. Sums over components are written axis by axis: the centres of a grid are the same for all events
and stay an expanded view, never a copy for each event.

Letters: B batch, K keypoints, M components, D axes, E all axes of all keypoints (K times D), S draws,
C candidates.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor

from gerbil_tune.models.cholesky import axis_offsets, log_det, lower_factor, mahalanobis_squared
from gerbil_tune.models.event_noise import EventNoise
from gerbil_tune.models.expanded import apply_shared, concatenate_components, distinct, take_rows

_ROUNDING = 1e-6  # of float32, several times over
_LOG_2PI = math.log(2 * math.pi)
_PEAK_CANDIDATES = 16


@dataclass(frozen=True, slots=True)
class LocationDensity:
    """A mixture of Gaussians for each keypoint, perhaps over a uniform background; floating point, mm.

    Attributes:
        log_weights_BKM: Natural logarithms of the weights; with the background's they add up to one.
        means_mm_BKMD: Of the components; may be an expanded view.
        scale_tril_mm_BKMDD: Lower Cholesky factors of their covariances, diagonal over 0; likewise.
        log_background_BK: Log weight of the uniform density over the box, or None for no background.
        box_mm_2D: (2, D), low and high corner of the box, or None.
    """

    log_weights_BKM: Tensor
    means_mm_BKMD: Tensor
    scale_tril_mm_BKMDD: Tensor
    log_background_BK: Tensor | None = None
    box_mm_2D: Tensor | None = None

    @staticmethod
    def gaussian(mean_mm_BKD: Tensor, scale_tril_mm_BKDD: Tensor) -> "LocationDensity":
        """One Gaussian for each keypoint, of mean (B, K, D) and lower Cholesky factor (B, K, D, D)."""
        log_weights_BKM = mean_mm_BKD.new_zeros(()).expand(*mean_mm_BKD.shape[:2], 1)
        return LocationDensity(
            log_weights_BKM, mean_mm_BKD[:, :, None], scale_tril_mm_BKDD[:, :, None]
        )

    @staticmethod
    def mixture_of(densities: Sequence["LocationDensity"]) -> "LocationDensity":
        """Mix densities of the same events with equal weights; of joint densities, the marginals.

        Args:
            densities: At least one, of the same batch and keypoints; backgrounds are over the same box.
        """
        share = -math.log(len(densities))
        backgrounds = [d.log_background_BK for d in densities if d.log_background_BK is not None]
        boxes = [d.box_mm_2D for d in densities if d.box_mm_2D is not None]
        return LocationDensity(
            torch.cat([d.log_weights_BKM for d in densities], dim=2) + share,
            concatenate_components([d.means_mm_BKMD for d in densities]),
            concatenate_components([d.scale_tril_mm_BKMDD for d in densities]),
            torch.stack(backgrounds).logsumexp(0) + share if backgrounds else None,
            boxes[0] if boxes else None,
        )

    @property
    def is_gaussian(self) -> bool:
        """Whether each keypoint has one Gaussian and nothing else, so that closed forms apply."""
        return self.log_weights_BKM.shape[2] == 1 and self.log_background_BK is None

    @property
    def num_axes(self) -> int:
        """D."""
        return self.means_mm_BKMD.shape[-1]

    @property
    def mean_mm_BKD(self) -> Tensor:
        """Mean of the whole mixture, (B, K, D)."""
        weights_BKM = self.log_weights_BKM.exp()
        axes = [(weights_BKM * mean_BKM).sum(-1) for mean_BKM in self.means_mm_BKMD.unbind(-1)]
        mean_BKD = torch.stack(axes, dim=-1)
        if (background := self._background()) is None:
            return mean_BKD
        return mean_BKD + background.log_weight_BK.exp()[..., None] * background.centre_D

    @property
    def covariance_mm2_BKDD(self) -> Tensor:
        """Covariance of the whole mixture, positive definite also where rounding would make it singular.

        It is the mean covariance of the components and the covariance of their means; (B, K, D, D).
        """
        mean_BKD = self.mean_mm_BKD
        covariance_BKDD = self._components_about(mean_BKD)
        if (background := self._background()) is not None:
            apart_BKD = background.centre_D - mean_BKD
            within_DD = torch.diag(background.widths_D.square() / 12)
            about_BKDD = within_DD + apart_BKD[..., :, None] * apart_BKD[..., None, :]
            weight_BK11 = background.log_weight_BK.exp()[..., None, None]
            covariance_BKDD = covariance_BKDD + weight_BK11 * about_BKDD
        diagonal_BKD = covariance_BKDD.diagonal(dim1=-2, dim2=-1)
        return covariance_BKDD + _ROUNDING * torch.diag_embed(diagonal_BKD)

    def _components_about(self, mean_BKD: Tensor) -> Tensor:
        """Weighted second moments of the components about a point, (B, K, D, D)."""
        weights_BKM = self.log_weights_BKM.exp()
        apart = axis_offsets(self.means_mm_BKMD, mean_BKD[..., None, :])
        tril = [row.unbind(-1) for row in self.scale_tril_mm_BKMDD.unbind(-2)]
        entries: dict[tuple[int, int], Tensor] = {}
        for i in range(self.num_axes):
            for j in range(i + 1):
                within_BKM = sum(
                    (tril[i][k] * tril[j][k] for k in range(1, j + 1)), tril[i][0] * tril[j][0]
                )
                moment_BK = (weights_BKM * (within_BKM + apart[i] * apart[j])).sum(-1)
                entries[i, j] = entries[j, i] = moment_BK
        axes = range(self.num_axes)
        return torch.stack([torch.stack([entries[i, j] for j in axes], -1) for i in axes], -2)

    def log_density_BK(self, locations_mm_BKD: Tensor) -> Tensor:
        """Natural logarithm of the density per mm^D.

        Args:
            locations_mm_BKD: (B, K, D) mm, or a shape that broadcasts to it; more dimensions may lead, and
                then lead the result too.

        Returns:
            (B, K) nats.
        """
        # Of places that are the same for all events, and components likewise, it is found once.
        means_BKMD, tril_BKMDD = (
            distinct(self.means_mm_BKMD, 2),
            distinct(self.scale_tril_mm_BKMDD, 3),
        )
        offsets = axis_offsets(locations_mm_BKD[..., None, :], means_BKMD)
        squared_BKM = mahalanobis_squared(offsets, tril_BKMDD)
        constant = self.num_axes / 2 * _LOG_2PI
        heights_BKM = self.log_weights_BKM - log_det(self.scale_tril_mm_BKMDD) - constant
        log_density_BK = (heights_BKM - 0.5 * squared_BKM).logsumexp(-1)
        if (background := self._background()) is None:
            return log_density_BK
        low_D, high_D = background.box_2D
        is_inside = ((locations_mm_BKD >= low_D) & (locations_mm_BKD <= high_D)).all(-1)
        return torch.logaddexp(
            log_density_BK, torch.where(is_inside, background.log_density_BK, -torch.inf)
        )

    def _background(self) -> "_Background | None":
        if self.log_background_BK is None or self.box_mm_2D is None:
            return None
        return _Background(self.log_background_BK, self.box_mm_2D)

    @property
    def peak_log_density_BK(self) -> Tensor:
        """Log density at its mode, nearly: the highest at the means of the highest components; (B, K)."""
        heights_BKM = self.log_weights_BKM - log_det(self.scale_tril_mm_BKMDD)
        index_BKC = heights_BKM.topk(min(_PEAK_CANDIDATES, heights_BKM.shape[2])).indices
        axes = [mean_BKM.gather(-1, index_BKC) for mean_BKM in self.means_mm_BKMD.unbind(-1)]
        places_CBKD = torch.stack(axes, dim=-1).movedim(2, 0)
        peak_BK = self.log_density_BK(places_CBKD).amax(0)
        background = self._background()
        return peak_BK if background is None else peak_BK.maximum(background.log_density_BK)

    def score_BK(self, locations_mm_BKD: Tensor) -> Tensor:
        """How far places are from the peak, in log density: 2 (peak - log density), at least 0.

        For a single Gaussian it is the squared Mahalanobis distance; that of a joint density is for each
        keypoint by itself.

        Args:
            locations_mm_BKD: (B, K, D) mm, or a shape that broadcasts to it; more dimensions may lead, and
                then lead the result too.

        Returns:
            (B, K), no unit.
        """
        if self.is_gaussian:
            offsets = axis_offsets(locations_mm_BKD, self.means_mm_BKMD[:, :, 0])
            return mahalanobis_squared(offsets, self.scale_tril_mm_BKMDD[:, :, 0])
        below_BK = self.peak_log_density_BK - self.log_density_BK(locations_mm_BKD)
        return 2 * below_BK.clamp_min(0.0)

    def sample(self, num_draws: int, noise: EventNoise) -> Tensor:
        """Draw locations, (S, B, K, D) mm; those of an event depend on its own density and noise alone."""
        index_BKS = self._sample_components(num_draws, noise)
        num_keypoints, num_components = self.log_weights_BKM.shape[1:]
        chosen_BKS = index_BKS.clamp_max(num_components - 1)
        shape = (self.num_axes, num_draws, num_keypoints)
        noise_DSBK = noise.normal(shape, self.means_mm_BKMD).permute(1, 2, 0, 3)
        axes = []
        for i, mean_BKM in enumerate(self.means_mm_BKMD.unbind(-1)):
            value_SBK = mean_BKM.gather(-1, chosen_BKS).movedim(2, 0)
            for j in range(i + 1):
                factor_BKS = self.scale_tril_mm_BKMDD[..., i, j].gather(-1, chosen_BKS)
                value_SBK = value_SBK + factor_BKS.movedim(2, 0) * noise_DSBK[j]
            axes.append(value_SBK)
        draws_SBKD = torch.stack(axes, dim=-1)
        if (background := self._background()) is None:
            return draws_SBKD
        shape = (num_draws, num_keypoints, self.num_axes)
        uniform_SBKD = noise.uniform(shape, self.means_mm_BKMD).movedim(1, 0)
        anywhere_SBKD = background.box_2D[0] + background.widths_D * uniform_SBKD
        is_background_SBK1 = (index_BKS == num_components).movedim(2, 0)[..., None]
        return torch.where(is_background_SBK1, anywhere_SBKD, draws_SBKD)

    def _sample_components(self, num_draws: int, noise: EventNoise) -> Tensor:
        """Component of each draw, (B, K, S) int64; M stands for the background."""
        cumulative_BKM = self._all_log_weights().exp().cumsum(-1)
        uniform_BKS = noise.uniform((cumulative_BKM.shape[1], num_draws), cumulative_BKM)
        # Not all weights: they add up to one but for rounding.
        index_BKS = torch.searchsorted(
            cumulative_BKM, uniform_BKS * cumulative_BKM[..., -1:], right=True
        )
        return index_BKS.clamp_max(cumulative_BKM.shape[2] - 1)

    def _all_log_weights(self) -> Tensor:
        """Log weights of the components and, last, of the background where there is one."""
        if self.log_background_BK is None:
            return self.log_weights_BKM
        return torch.cat([self.log_weights_BKM, self.log_background_BK[..., None]], dim=2)

    def tempered(self, temperature: float | Tensor) -> Self:
        """Make the density wider (temperature over 1) or narrower; 1 leaves it as it is.

        Covariances are multiplied by the temperature; log weights are divided by it and normalised again.
        A Gaussian's covariance is so exactly multiplied.

        Args:
            temperature: Over 0; no unit.
        """
        log_weights = (self._all_log_weights() / temperature).log_softmax(-1)
        num_components = self.log_weights_BKM.shape[2]
        has_background = self.log_background_BK is not None
        return replace(
            self,
            log_weights_BKM=log_weights[..., :num_components],
            scale_tril_mm_BKMDD=apply_shared(
                self.scale_tril_mm_BKMDD, lambda tril: tril * temperature**0.5
            ),
            log_background_BK=log_weights[..., -1] if has_background else None,
        )

    def rows(self, rows: slice | Tensor) -> Self:
        """Some of the events: a slice, or indices (int64) or a mask (bool) over the batch."""
        changes = {}
        for field in fields(self):
            tensor = getattr(self, field.name)
            if tensor is not None and field.name != "box_mm_2D":
                changes[field.name] = take_rows(tensor, rows)
        return replace(self, **changes)

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Self:
        """The same on another device, or of another floating type; None leaves as it is."""
        changes = {
            field.name: apply_shared(tensor, lambda part: part.to(device=device, dtype=dtype))
            for field in fields(self)
            if (tensor := getattr(self, field.name)) is not None
        }
        return replace(self, **changes)


@dataclass(frozen=True, slots=True, kw_only=True)
class JointDensity(LocationDensity):
    """One Gaussian over all keypoints together; the fields of its base are the marginals.

    Attributes:
        joint_scale_tril_mm_BEE: (B, E, E) lower Cholesky factor of the covariance of all keypoints, keypoint
            by keypoint.
    """

    joint_scale_tril_mm_BEE: Tensor

    @staticmethod
    def joint_gaussian(mean_mm_BKD: Tensor, joint_scale_tril_mm_BEE: Tensor) -> "JointDensity":
        """From the mean (B, K, D) and the lower Cholesky factor (B, E, E), in mm."""
        rows_BKDE = joint_scale_tril_mm_BEE.reshape(
            *mean_mm_BKD.shape, joint_scale_tril_mm_BEE.shape[2]
        )
        marginals = LocationDensity.gaussian(mean_mm_BKD, lower_factor(rows_BKDE))
        return JointDensity(
            marginals.log_weights_BKM,
            marginals.means_mm_BKMD,
            marginals.scale_tril_mm_BKMDD,
            joint_scale_tril_mm_BEE=joint_scale_tril_mm_BEE,
        )

    def marginals(self) -> LocationDensity:
        """Each keypoint by itself."""
        return LocationDensity(self.log_weights_BKM, self.means_mm_BKMD, self.scale_tril_mm_BKMDD)

    def log_density_BK(self, locations_mm_BKD: Tensor) -> Tensor:
        """Natural logarithm of the joint density per mm^E, divided among the keypoints.

        Args:
            locations_mm_BKD: (B, K, D) mm, or a shape that broadcasts to it; more dimensions may lead, and
                then lead the result too.

        Returns:
            (B, K) nats, alike for all keypoints of an event; their sum is that of the joint density.
        """
        offset_BKD = locations_mm_BKD - self.means_mm_BKMD[:, :, 0]
        tril_BEE = self.joint_scale_tril_mm_BEE
        squared_B = mahalanobis_squared(offset_BKD.flatten(-2).unbind(-1), tril_BEE)
        joint_B = -0.5 * squared_B - log_det(tril_BEE) - tril_BEE.shape[-1] / 2 * _LOG_2PI
        num_keypoints = offset_BKD.shape[-2]
        return (joint_B / num_keypoints)[..., None].expand(offset_BKD.shape[:-1])

    @property
    def peak_log_density_BK(self) -> Tensor:
        """Log density at the mean, divided among the keypoints like ``log_density_BK``."""
        return self.log_density_BK(self.means_mm_BKMD[:, :, 0])

    def sample(self, num_draws: int, noise: EventNoise) -> Tensor:
        """Draw locations of all keypoints together, (S, B, K, D) mm."""
        mean_BKD = self.means_mm_BKMD[:, :, 0]
        num_values = mean_BKD.shape[1] * mean_BKD.shape[2]
        noise_SBE = noise.normal((num_draws, num_values), mean_BKD).movedim(1, 0)
        offset_SBE = (self.joint_scale_tril_mm_BEE @ noise_SBE[..., None])[..., 0]
        return mean_BKD + offset_SBE.reshape(num_draws, *mean_BKD.shape)

    def tempered(self, temperature: float | Tensor) -> Self:
        """Multiply all covariances by the temperature, over 0."""
        factor = temperature**0.5
        return replace(
            self,
            scale_tril_mm_BKMDD=self.scale_tril_mm_BKMDD * factor,
            joint_scale_tril_mm_BEE=self.joint_scale_tril_mm_BEE * factor,
        )


@dataclass(frozen=True, slots=True)
class _Background:
    log_weight_BK: Tensor
    box_2D: Tensor

    @property
    def centre_D(self) -> Tensor:
        return self.box_2D.mean(0)

    @property
    def widths_D(self) -> Tensor:
        return self.box_2D[1] - self.box_2D[0]

    @property
    def log_density_BK(self) -> Tensor:
        """Inside the box."""
        return self.log_weight_BK - self.widths_D.log().sum()
