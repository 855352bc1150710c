import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import chi2, kstest

from gerbil_tune.evaluation.calibration import calibration_error, coverage, hdr_levels
from gerbil_tune.evaluation.regions import highest_density_regions
from gerbil_tune.models.density import JointDensity, LocationDensity
from gerbil_tune.models.event_noise import EventNoise
from tests.unit.evaluation.densities import (
    gaussians,
    grids,
    mixtures,
    pairs_apart,
    truths_of,
    twice,
    with_background,
)

MANY = 2500


PERFECT = {
    "gaussian of 40 mm": lambda: gaussians(40.0, count=MANY),
    "gaussian of 6 mm": lambda: gaussians(6.0, count=MANY),
    "gaussian of 0.1 mm": lambda: gaussians(0.1, count=MANY),
    "gaussian in space": lambda: gaussians(6.0, count=MANY, axes=3),
    "mixture of 40 mm": lambda: mixtures(40.0, count=MANY),
    "mixture of 6 mm": lambda: mixtures(6.0, count=MANY),
    "mixture of 0.1 mm": lambda: mixtures(0.1, count=MANY),
    "background": lambda: with_background(gaussians(6.0, count=MANY)),
    "grid": lambda: grids(count=MANY),
}


@pytest.mark.parametrize("name", PERFECT)
def test_a_perfect_predictor_is_calibrated_whatever_its_size(name: str) -> None:
    density = PERFECT[name]()
    regions = highest_density_regions(density, truths_of(density), num_draws=64)

    assert calibration_error(regions.levels_NK) < 0.02
    assert coverage(regions.levels_NK, 0.95) == pytest.approx(0.95, abs=0.018)  # four sd
    assert kstest(regions.levels_NK.ravel(), "uniform").pvalue > 1e-4


@pytest.mark.parametrize("axes", [2, 3])
def test_draws_agree_with_the_closed_forms(axes: int) -> None:
    density = gaussians(6.0, count=60, keypoints=2, axes=axes)
    truth = truths_of(density)
    exact = highest_density_regions(density, truth)
    drawn = highest_density_regions(twice(density), truth, num_draws=4000)

    four_sd = 4 * np.sqrt(exact.levels_NK * (1 - exact.levels_NK) / 4000) + 1e-3
    assert np.all(np.abs(drawn.levels_NK - exact.levels_NK) < four_sd)
    assert drawn.areas_NKR == pytest.approx(exact.areas_NKR, rel=0.15)
    assert drawn.areas_NKR.mean((0, 1)) == pytest.approx(exact.areas_NKR.mean((0, 1)), rel=0.02)
    assert drawn.furthest_mm_NKR == pytest.approx(exact.furthest_mm_NKR, rel=0.1)
    assert np.all(drawn.furthest_mm_NKR < 1.05 * exact.furthest_mm_NKR)  # four sd of the border


def test_regions_of_a_known_ellipse() -> None:
    tril = torch.tensor([[30.0, 0.0], [0.0, 4.0]], dtype=torch.float64)
    density = LocationDensity.gaussian(torch.zeros(2, 1, 2), tril.expand(2, 1, 2, 2))
    at_95 = math.sqrt(chi2.ppf(0.95, 2))
    truth = torch.tensor([[[0.999 * at_95 * 30.0, 0.0]], [[0.0, 1.001 * at_95 * 4.0]]])
    regions = highest_density_regions(density, truth, probabilities=(0.9, 0.95))

    assert regions.levels_NK[:, 0] == pytest.approx([0.95, 0.95], abs=1e-3)
    assert regions.hits_NKR[:, 0].tolist() == [[False, True], [False, False]]
    assert regions.areas_NKR[0, 0] == pytest.approx(math.pi * 120 * chi2.ppf([0.9, 0.95], 2))
    assert regions.furthest_mm_NKR[1, 0] == pytest.approx(30 * np.sqrt(chi2.ppf([0.9, 0.95], 2)))


def test_a_region_may_be_in_two_parts() -> None:
    density = pairs_apart(5.0)
    truth = torch.zeros(20, 1, 2)
    regions = highest_density_regions(density, truth, num_draws=4000)
    one_part = math.pi * 25 * chi2.ppf(regions.probabilities, 2)

    assert regions.areas_NKR.mean((0, 1)) == pytest.approx(2 * one_part, rel=0.03)
    assert np.all(regions.levels_NK > 0.999)  # midway between the parts there is nothing
    assert not regions.hits_NKR.any()


def test_levels_in_a_flat_density_are_in_random_order() -> None:
    density = with_background(gaussians(0.1, count=MANY), weight=1 - 1e-9)
    levels = highest_density_regions(density, truths_of(density), num_draws=50).levels_NK

    assert kstest(levels.ravel(), "uniform").pvalue > 1e-4


def test_keypoints_of_a_joint_density_are_judged_one_by_one() -> None:
    generator = torch.Generator().manual_seed(3)
    factor = 10 * torch.eye(4) + 5 * torch.randn(2000, 4, 4, generator=generator).tril(-1)
    density = JointDensity.joint_gaussian(torch.zeros(2000, 2, 2), factor)
    truth = truths_of(density)
    regions = highest_density_regions(density, truth)
    alone = highest_density_regions(density.marginals(), truth)

    assert np.array_equal(regions.levels_NK, hdr_levels(density, truth))
    assert calibration_error(regions.levels_NK[:, 0]) < 0.02
    assert calibration_error(regions.levels_NK[:, 1]) < 0.02
    assert regions.levels_NK == pytest.approx(alone.levels_NK)
    assert regions.areas_NKR == pytest.approx(alone.areas_NKR)


def test_the_draws_are_the_same_each_time() -> None:
    density = mixtures(count=40)
    truth = truths_of(density).numpy()
    first, again, other = (
        highest_density_regions(density, truth, num_draws=50, noise=noise)
        for noise in (None, None, EventNoise.counted(40, seed=1))
    )

    assert np.array_equal(first.levels_NK, again.levels_NK)
    assert np.array_equal(first.areas_NKR, again.areas_NKR)
    assert np.array_equal(first.levels_NK, hdr_levels(density, truth, num_draws=50))
    assert not np.array_equal(first.levels_NK, other.levels_NK)


@pytest.mark.parametrize("make", [mixtures, grids])
def test_an_event_has_the_same_regions_among_other_events(
    make: Callable[..., LocationDensity],
) -> None:
    density = make(count=7)
    truth = truths_of(density)
    rows = torch.tensor([5, 2])
    some, every = (
        highest_density_regions(each, places, num_draws=50, noise=noise)
        for each, places, noise in (
            (density.rows(rows), truth[rows], EventNoise(rows)),
            (density, truth, EventNoise.counted(7)),
        )
    )
    assert np.array_equal(some.levels_NK, every.levels_NK[rows])
    assert some.areas_NKR == pytest.approx(every.areas_NKR[rows], rel=1e-12)
