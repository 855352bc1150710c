"""The probability that the truth is near, against closed forms."""

import math
from dataclasses import replace

import pytest
import torch
from scipy.stats import chi2, ncx2

from gerbil_tune.evaluation.confidence import probability_within
from gerbil_tune.models.density import LocationDensity
from tests.unit.evaluation.densities import gaussians, twice


def diagonal(*sd_mm: float) -> LocationDensity:
    factor = torch.diag(torch.tensor(sd_mm, dtype=torch.float64))
    return LocationDensity.gaussian(torch.zeros(1, 1, len(sd_mm)).double(), factor[None, None])


@pytest.mark.parametrize("sd_mm", [0.1, 6.0, 40.0, 500.0])
@pytest.mark.parametrize(("axes", "tolerance"), [(2, 1e-6), (3, 0.05)])
def test_of_a_circular_gaussian_it_is_chi_square(sd_mm: float, axes: int, tolerance: float) -> None:
    expected = chi2.cdf((50.0 / sd_mm) ** 2, axes)
    found = probability_within(diagonal(*[sd_mm] * axes))
    assert float(found) == pytest.approx(expected, abs=tolerance)


def test_of_a_needle_it_is_that_of_one_axis() -> None:
    expected = math.erf(50.0 / 80.0 / math.sqrt(2))
    assert float(probability_within(diagonal(80.0, 0.01))) == pytest.approx(expected, abs=0.01)


def test_a_turned_ellipse_has_the_same() -> None:
    turn = torch.tensor([[math.cos(0.7), -math.sin(0.7)], [math.sin(0.7), math.cos(0.7)]]).double()
    flat = diagonal(70.0, 20.0)
    factor = torch.linalg.cholesky(
        turn @ torch.diag(torch.tensor([4900.0, 400.0])).double() @ turn.T
    )
    turned = replace(flat, scale_tril_mm_BKMDD=factor[None, None, None])
    assert float(probability_within(turned)) == pytest.approx(
        float(probability_within(flat)), abs=1e-4
    )


def test_of_other_densities_it_is_the_share_of_draws() -> None:
    density = gaussians(40.0, count=20)
    closed, drawn = (
        probability_within(density),
        probability_within(twice(density), num_draws=20_000),
    )
    torch.testing.assert_close(drawn, closed, rtol=0, atol=0.02)


def test_two_places_far_apart_have_their_mean_between_them() -> None:
    """Each is 100 mm from the mean: that is a noncentral chi-square."""
    one = diagonal(20.0, 20.0)
    apart = replace(
        one,
        log_weights_BKM=torch.full((1, 1, 2), math.log(0.5)).double(),
        means_mm_BKMD=torch.tensor([[[[-100.0, 0.0], [100.0, 0.0]]]]).double(),
        scale_tril_mm_BKMDD=one.scale_tril_mm_BKMDD.expand(1, 1, 2, 2, 2),
    )
    expected = ncx2.cdf((50.0 / 20.0) ** 2, 2, (100.0 / 20.0) ** 2)
    assert float(probability_within(apart, num_draws=50_000)) == pytest.approx(expected, abs=0.002)
