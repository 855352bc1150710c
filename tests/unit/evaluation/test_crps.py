import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import norm

from gerbil_tune.evaluation.crps import energy_scores_mm
from gerbil_tune.models.density import LocationDensity
from tests.unit.evaluation.densities import gaussians, grids, mixtures, truths_of

Make = Callable[..., LocationDensity]


def circular(sd_mm: float, axes: int, count: int) -> LocationDensity:
    mean = torch.full((count, 1, axes), 50.0, dtype=torch.float64)
    tril = sd_mm * torch.eye(axes, dtype=torch.float64)
    return LocationDensity.gaussian(mean, tril.expand(count, 1, axes, axes))


def test_of_one_axis_it_is_the_crps_of_a_gaussian() -> None:
    standard = np.linspace(-3, 3, 13)
    truth = 50.0 + 8.0 * standard[:, None, None]
    expected = 8.0 * (
        standard * (2 * norm.cdf(standard) - 1) + 2 * norm.pdf(standard) - 1 / math.sqrt(math.pi)
    )

    found = energy_scores_mm(circular(8.0, 1, 13), truth, num_draws=20000)
    assert found[:, 0] == pytest.approx(
        expected, abs=0.3
    )  # 8 mm over the root of draws, five times


@pytest.mark.parametrize(
    ("axes", "mean_length"), [(2, math.sqrt(math.pi / 2)), (3, math.sqrt(8 / math.pi))]
)
def test_at_the_centre_of_a_circular_gaussian(axes: int, mean_length: float) -> None:
    """The mean length of two draws apart is the root of two times that of one."""
    found = energy_scores_mm(circular(6.0, axes, 500), torch.full((500, 1, axes), 50.0))

    expected = 6.0 * mean_length * (1 - math.sqrt(2) / 2)
    assert found.mean() == pytest.approx(expected, rel=0.01)


def test_of_a_point_it_is_the_distance() -> None:
    truth = torch.tensor([[[53.0, 54.0]], [[50.0, 50.0]]])

    found = energy_scores_mm(circular(1e-6, 2, 2), truth)
    assert found[:, 0] == pytest.approx([5.0, 0.0], abs=1e-5)


@pytest.mark.parametrize("make", [gaussians, mixtures, grids])
@pytest.mark.parametrize("temperature", [0.3, 3.0])
def test_the_true_density_scores_best(make: Make, temperature: float) -> None:
    density = make(count=800)
    truth = truths_of(density)
    true = energy_scores_mm(density, truth, num_draws=64)
    wrong = energy_scores_mm(density.tempered(temperature), truth, num_draws=64)

    assert true.mean() < wrong.mean()


def test_a_few_draws_are_without_bias() -> None:
    density = gaussians(count=4000)
    truth = truths_of(density)

    few, many = (energy_scores_mm(density, truth, num_draws=draws).mean() for draws in (2, 200))
    assert few == pytest.approx(many, rel=0.05)
