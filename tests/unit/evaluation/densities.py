"""Densities to judge, and truths that are drawn from them."""

import math

import torch
from torch import Tensor

from gerbil_tune.models.density import LocationDensity
from gerbil_tune.models.event_noise import EventNoise


def gaussians(
    sd_mm: float = 10.0, *, count: int = 200, keypoints: int = 1, axes: int = 2, seed: int = 0
) -> LocationDensity:
    """Correlated Gaussians of about this size anywhere in an arena."""
    generator = torch.Generator().manual_seed(seed)
    shape = (count, keypoints, axes)
    noise = torch.randn(*shape, axes, generator=generator, dtype=torch.float64)
    tril = sd_mm * (torch.eye(axes, dtype=torch.float64) + 0.4 * noise.tril(-1))
    mean = 400 * torch.rand(shape, generator=generator, dtype=torch.float64) - 200
    return LocationDensity.gaussian(mean, tril)


def twice(density: LocationDensity) -> LocationDensity:
    """The same Gaussians as mixtures of two alike, which are judged by draws."""
    return LocationDensity.mixture_of([density, density])


def mixtures(sd_mm: float = 10.0, *, count: int = 200, keypoints: int = 1) -> LocationDensity:
    """Two Gaussians each, of other sizes and weights, which overlap."""
    first = gaussians(sd_mm, count=count, keypoints=keypoints)
    second = gaussians(2 * sd_mm, count=count, keypoints=keypoints, seed=1)
    apart = 0.01 * sd_mm * (second.means_mm_BKMD - first.means_mm_BKMD)
    weights = torch.tensor([math.log(0.7), math.log(0.3)], dtype=torch.float64)
    return LocationDensity(
        weights.expand(count, keypoints, 2),
        torch.cat([first.means_mm_BKMD, first.means_mm_BKMD + apart], dim=2),
        torch.cat([first.scale_tril_mm_BKMDD, second.scale_tril_mm_BKMDD], dim=2),
    )


def pairs_apart(sd_mm: float = 10.0, *, count: int = 20) -> LocationDensity:
    """Two circular Gaussians each, alike and so far apart that nothing lies between them."""
    mean = torch.zeros(count, 1, 1, 2, dtype=torch.float64)
    tril = sd_mm * torch.eye(2, dtype=torch.float64).expand(count, 1, 2, 2, 2)
    far = torch.cat([mean - 20 * sd_mm, mean + 20 * sd_mm], dim=2)
    return LocationDensity(torch.full((count, 1, 2), -math.log(2.0)), far, tril)


def grids(*, count: int = 200, cell_mm: float = 40.0, seed: int = 0) -> LocationDensity:
    """Probabilities of cells, shared centres; float32 as a head states them."""
    x_X, y_Y = torch.arange(-280.0, 281.0, cell_mm), torch.arange(-160.0, 161.0, cell_mm)
    centres_M2 = torch.cartesian_prod(x_X, y_Y)
    num_cells = len(centres_M2)
    generator = torch.Generator().manual_seed(seed)
    peak_BK12 = centres_M2[torch.randint(num_cells, (count, 1, 1), generator=generator)]
    distance_BKM = (centres_M2 - peak_BK12).norm(dim=-1) / (2 * cell_mm)
    noise_BKM = torch.randn(count, 1, num_cells, generator=generator)
    tril_22 = cell_mm / 2 * torch.eye(2)
    return LocationDensity(
        (noise_BKM - distance_BKM.square()).log_softmax(-1),
        centres_M2.expand(count, 1, num_cells, 2),
        tril_22.expand(count, 1, num_cells, 2, 2),
    )


def with_background(density: LocationDensity, weight: float = 0.2) -> LocationDensity:
    """The density over a uniform one in the box from -300 to 300 mm."""
    half_2 = torch.full((density.num_axes,), 300.0, dtype=torch.float64)
    return LocationDensity(
        density.log_weights_BKM + math.log1p(-weight),
        density.means_mm_BKMD,
        density.scale_tril_mm_BKMDD,
        torch.full(density.log_weights_BKM.shape[:2], math.log(weight), dtype=torch.float64),
        torch.stack([-half_2, half_2]),
    )


def truths_of(density: LocationDensity, seed: int = 99) -> Tensor:
    """One draw from each event's density, (B, K, D)."""
    return density.sample(1, EventNoise.counted(len(density.log_weights_BKM), seed))[0]
