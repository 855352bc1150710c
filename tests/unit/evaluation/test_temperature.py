import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from gerbil_tune.errors import GerbilTuneError
from gerbil_tune.evaluation.blocks import negative_log_likelihoods
from gerbil_tune.evaluation.calibration import fit_covariance_scale
from gerbil_tune.evaluation.temperature import fit_temperature
from gerbil_tune.models.density import JointDensity, LocationDensity
from tests.unit.evaluation.densities import (
    gaussians,
    grids,
    mixtures,
    truths_of,
    twice,
    with_background,
)

Make = Callable[..., LocationDensity]


def blurred(*, count: int) -> LocationDensity:
    return with_background(gaussians(count=count))


@pytest.mark.parametrize("axes", [2, 3])
def test_of_gaussians_it_is_the_factor_on_the_covariance(axes: int) -> None:
    density = gaussians(12.0, count=100, keypoints=2, axes=axes)
    truth = truths_of(density.tempered(7.0))
    tril = density.scale_tril_mm_BKMDD[:, :, 0]
    expected = fit_covariance_scale(
        density.mean_mm_BKD.numpy(), (tril @ tril.mT).numpy(), truth.numpy()
    )

    assert fit_temperature(density, truth) == pytest.approx(expected)
    # Two alike are judged by the likelihood.
    assert fit_temperature(twice(density), truth) == pytest.approx(expected, rel=1e-2)


def test_of_a_joint_density_it_is_that_of_all_keypoints_together() -> None:
    generator = torch.Generator().manual_seed(5)
    factor = 10 * torch.eye(4) + 8 * torch.randn(400, 4, 4, generator=generator).tril(-1)
    density = JointDensity.joint_gaussian(torch.zeros(400, 2, 2), factor)
    truth = truths_of(density.tempered(2.0))
    whitened = torch.linalg.solve_triangular(factor, truth.reshape(400, 4, 1), upper=False)

    expected = float(whitened.square().mean())
    assert fit_temperature(density, truth) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("right", [0.2, 1.0, 4.0])
@pytest.mark.parametrize("make", [mixtures, grids, blurred])
def test_it_undoes_a_wrong_temperature(make: Make, right: float) -> None:
    density = make(count=300)
    truth = truths_of(density)
    wrong = density.tempered(1 / right)

    assert fit_temperature(wrong, truth) == pytest.approx(right, rel=0.2)


@pytest.mark.parametrize("other", [0.85, 1.15])
def test_no_other_is_more_likely(other: float) -> None:
    density = mixtures(count=200)
    truth = truths_of(density.tempered(3.0))
    best = fit_temperature(density, truth)

    def likelihood(temperature: float) -> float:
        return float(negative_log_likelihoods(density.tempered(temperature), truth).mean())

    assert likelihood(best) < likelihood(other * best)


def test_of_two_minima_it_is_the_lower() -> None:
    """Near truths want a narrow density; those far away, reached by a wide one only, are worth more."""
    near, far = torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 1, 2)
    density = LocationDensity(
        torch.tensor([[[math.log(1 - 1e-12), math.log(1e-12)]]]).expand(100, 1, 2),
        torch.cat([near, far], dim=2).expand(100, 1, 2, 2),
        torch.stack([torch.eye(2), 40 * torch.eye(2)]).expand(100, 1, 2, 2, 2),
    )
    truth = torch.zeros(100, 1, 2)
    truth[:50] = 0.05
    truth[50:] = 30.0
    found = fit_temperature(density, truth)

    temperatures = np.exp(np.linspace(-5, 5, 101))
    lowest = min(
        negative_log_likelihoods(density.tempered(float(t)), truth).mean() for t in temperatures
    )
    assert negative_log_likelihoods(density.tempered(found), truth).mean() <= lowest + 1e-3


@pytest.mark.parametrize("make", [gaussians, mixtures])
def test_nothing_fits_no_events_or_what_is_not_finite(make: Make) -> None:
    density = make(count=4)
    with pytest.raises(
        GerbilTuneError, match="must be positive and finite, but is nan over 0 events"
    ):
        fit_temperature(density.rows(slice(0)), torch.zeros(0, 1, 2))
    with pytest.raises(GerbilTuneError, match="but is nan over 4 events"):
        fit_temperature(density, torch.full((4, 1, 2), math.nan))


def test_nothing_fits_exact_gaussians() -> None:
    density = gaussians(count=4)
    with pytest.raises(GerbilTuneError, match=r"but is 0\.0 over 4 events"):
        fit_temperature(density, density.mean_mm_BKD)
