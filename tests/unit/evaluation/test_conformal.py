import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import betabinom

from gerbil_tune.evaluation.conformal import (
    FEWEST_EVENTS_PER_ZONE,
    conformal_scores,
    conformal_thresholds,
    fit_conformal,
    region_sizes,
    zones_of,
)
from gerbil_tune.models.calibrated import NUM_ZONES, Calibration, ConformalThresholds
from gerbil_tune.models.density import LocationDensity
from tests.unit.evaluation.densities import (
    gaussians,
    grids,
    mixtures,
    pairs_apart,
    truths_of,
    twice,
    with_background,
)

ARENA_MM = (600.0, 300.0)


def unit_circles(count: int, *, keypoints: int = 1, x_mm: float = 0.0) -> LocationDensity:
    """Circular Gaussians with a standard deviation of 1 mm at one place."""
    mean = torch.zeros(count, keypoints, 2, dtype=torch.float64)
    mean[..., 0] = x_mm
    tril = torch.eye(2, dtype=torch.float64)
    return LocationDensity.gaussian(mean, tril.expand(count, keypoints, 2, 2))


def thresholds_of(conformal: ConformalThresholds, density: LocationDensity) -> torch.Tensor:
    return conformal_thresholds(Calibration(1.0, conformal), density, ARENA_MM)


def blurred(*, count: int) -> LocationDensity:
    return with_background(gaussians(count=count))


def heavy_tailed(density: LocationDensity, seed: int) -> np.ndarray:
    """Truths that the density is quite wrong about: shifted, and of Student's t with 2 degrees of freedom."""
    generator = np.random.default_rng(seed)
    mean = density.mean_mm_BKD.numpy()
    return mean + 7.0 + 5.0 * generator.standard_t(2, mean.shape)


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, (1, None, None)),
        (8, (5, None, None)),  # ceil(9 · 0.9) = 9 of 8
        (9, (5, 9, None)),
        (18, (10, 18, None)),
        (19, (10, 18, 19)),
        (199, (100, 180, 190)),
    ],
)
def test_thresholds_are_the_right_scores_in_order(count: int, expected: tuple) -> None:
    density = unit_circles(count)
    truth = torch.zeros(count, 1, 2)
    truth[:, 0, 1] = torch.arange(1, count + 1).sqrt()[torch.randperm(count)]  # scores 1 to count
    conformal = fit_conformal(density, truth, ARENA_MM)

    right = [math.inf if rank is None else rank for rank in expected]
    assert conformal.overall[0] == pytest.approx(right, rel=1e-5)
    assert conformal.num_events == count
    assert Calibration.from_json(Calibration(1.0, conformal).to_json(), "") == Calibration(
        1.0, conformal
    )


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    num_calibration=st.integers(20, 120),
    num_test=st.integers(20, 120),
    level=st.sampled_from([0.5, 0.8, 0.9, 0.95]),
    make=st.sampled_from([gaussians, mixtures]),
)
def test_a_wrong_model_covers_what_is_promised(
    seed, num_calibration, num_test, level, make
) -> None:
    """Of m new events as many are covered as Beta-binomial says of k = ceil((n + 1) c) and n + 1 - k."""
    num_splits = 40
    count = num_splits * (num_calibration + num_test)
    density = make(3.0, count=count)
    scores = conformal_scores(density, heavy_tailed(density, seed))[:, 0].reshape(num_splits, -1)
    rank = math.ceil(round((num_calibration + 1) * level, 9))
    thresholds = np.sort(scores[:, :num_calibration], axis=1)[:, rank - 1]
    first = fit_conformal(
        density.rows(slice(num_calibration)),
        heavy_tailed(density, seed)[:num_calibration],
        ARENA_MM,
        levels=(level,),
    )
    assert first.overall[0][0] == pytest.approx(thresholds[0])

    covered = (scores[:, num_calibration:] <= thresholds[:, None]).sum(1)
    exact = betabinom(num_test, rank, num_calibration + 1 - rank)
    assert np.all((covered >= exact.ppf(1e-7)) & (covered <= exact.ppf(1 - 1e-7)))
    assert covered.mean() == pytest.approx(
        exact.mean(), abs=5 * exact.std() / math.sqrt(num_splits)
    )


def test_each_zone_is_covered_where_the_model_is_wrong_in_one() -> None:
    count, half = 2400, 1200
    density = unit_circles(count)
    is_bad = np.arange(count) % 3 == 0
    density.means_mm_BKMD[..., 0] = -200.0
    density.means_mm_BKMD[is_bad, ..., 0] = 200.0
    truth, mean = truths_of(density), density.mean_mm_BKD
    truth[is_bad] = mean[is_bad] + 5 * (truth - mean)[is_bad]
    conformal = fit_conformal(density.rows(slice(half)), truth[:half], ARENA_MM)
    tested, bad = density.rows(slice(half, None)), is_bad[half:]
    scores = conformal_scores(tested, truth[half:])[:, 0]
    hits = scores <= thresholds_of(conformal, tested)[:, 0, 1].numpy()

    assert hits[bad].mean() == pytest.approx(0.9, abs=0.08)  # four sd
    assert hits[~bad].mean() == pytest.approx(0.9, abs=0.06)
    assert (scores <= conformal.overall[0][1])[bad].mean() < 0.8
    left_middle, right_middle = 3, 5
    assert [zone[0] is not None for zone in conformal.zones] == [
        number in (left_middle, right_middle) for number in range(NUM_ZONES)
    ]


@pytest.mark.parametrize("missing", [0, 1])
def test_a_zone_with_few_events_takes_the_thresholds_of_all(missing: int) -> None:
    few = FEWEST_EVENTS_PER_ZONE - missing
    density = unit_circles(200)
    density.means_mm_BKMD[few:, ..., 0] = 250.0
    conformal = fit_conformal(density, truths_of(density), ARENA_MM)
    centre, right = thresholds_of(conformal, density)[[0, -1], 0].tolist()

    assert tuple(right) == conformal.zones[5][0]
    assert tuple(centre) == (conformal.overall[0] if missing else conformal.zones[4][0])
    assert (conformal.zones[4][0] is None) == bool(missing)


def test_each_keypoint_has_its_own() -> None:
    density = gaussians(3.0, count=300, keypoints=2)
    truth = truths_of(density)
    truth[:, 1] += 4 * (truth[:, 1] - density.mean_mm_BKD[:, 1])
    conformal = fit_conformal(density, truth, ARENA_MM)
    for keypoint in range(2):
        alone = LocationDensity.gaussian(
            density.mean_mm_BKD[:, [keypoint]], density.scale_tril_mm_BKMDD[:, [keypoint], 0]
        )
        other = fit_conformal(alone, truth[:, [keypoint]], ARENA_MM)
        assert other.overall[0] == conformal.overall[keypoint]
        assert [zone[0] for zone in other.zones] == [zone[keypoint] for zone in conformal.zones]


def test_regions_of_gaussians_do_not_depend_on_the_temperature() -> None:
    density = gaussians(3.0, count=300)
    truth = heavy_tailed(density, 1)
    first, second = (
        region_sizes(one, thresholds_of(fit_conformal(one, truth, ARENA_MM), one))
        for one in (density, density.tempered(9.0))
    )

    assert torch.allclose(first, second)


def test_area_of_a_known_ellipse() -> None:
    tril = torch.tensor([[3.0, 0.0], [9.0, 2.0]], dtype=torch.float64)
    density = LocationDensity.gaussian(torch.zeros(1, 1, 2), tril[None, None])
    sizes = region_sizes(density, torch.tensor([[[1.0, 4.0, math.inf]]]))

    assert sizes[0, 0].tolist() == pytest.approx([math.pi * 6, math.pi * 24, math.inf])


@pytest.mark.parametrize("axes", [2, 3])
def test_drawn_sizes_agree_with_the_closed_form(axes: int) -> None:
    """Also of regions that hardly a draw of the density itself leaves: 18.4 is 99.99 % of two axes."""
    density = gaussians(6.0, count=40, keypoints=2, axes=axes)
    thresholds = torch.tensor([1.4, 4.6, 18.4, math.inf, math.nan]).expand(40, 2, 5)
    exact = region_sizes(density, thresholds)
    drawn = region_sizes(twice(density), thresholds, num_draws=4000)

    assert drawn[..., 3].isinf().all()
    assert drawn[..., 4].isnan().all()
    ratio = (drawn / exact)[..., :3]
    assert (ratio - 1).abs().max() < 0.3
    assert torch.allclose(ratio.mean((0, 1)), torch.ones(3, dtype=ratio.dtype), atol=0.03)


def test_size_of_a_region_in_two_parts() -> None:
    thresholds = torch.tensor([2.0, 6.0]).expand(20, 1, 2)
    sizes = region_sizes(pairs_apart(5.0), thresholds, num_draws=4000)

    assert sizes.mean((0, 1)).tolist() == pytest.approx([100 * math.pi, 300 * math.pi], rel=0.03)


@pytest.mark.parametrize("make", [mixtures, grids, blurred])
def test_other_densities_are_covered_too(make: Callable[..., LocationDensity]) -> None:
    half = 150
    density = make(count=2 * half)
    truth = truths_of(density)
    fitted, tested = density.rows(slice(half)), density.rows(slice(half, None))
    thresholds = thresholds_of(fit_conformal(fitted, truth[:half], ARENA_MM), tested)
    hits = tested.score_BK(truth[half:])[..., None] <= thresholds
    promised = np.array([0.5, 0.9, 0.95])
    # Of calibration and of test.
    sd = np.sqrt(2 * promised * (1 - promised) / half)

    assert np.all(np.abs(hits.double().mean((0, 1)).numpy() - promised) < 4 * sd + 1 / half)
    sizes = region_sizes(tested, thresholds, num_draws=50)
    assert sizes.dtype == tested.means_mm_BKMD.dtype
    assert (sizes.diff(dim=-1) >= 0).all()


def test_without_thresholds_there_are_no_regions() -> None:
    density = mixtures(count=5, keypoints=2)
    thresholds = conformal_thresholds(Calibration(2.0), density, ARENA_MM)

    assert thresholds.shape == (5, 2, 3)
    assert region_sizes(density, thresholds, num_draws=5).isnan().all()


def test_zones_are_rows_of_y_and_columns_of_x() -> None:
    y, x = torch.meshgrid(torch.arange(-100, 101, 100), torch.arange(-200, 201, 200), indexing="ij")
    places = torch.stack([x, y], -1).reshape(9, 1, 2).double()

    assert zones_of(places, ARENA_MM)[:, 0].tolist() == list(range(9))
    assert zones_of(10 * places, (*ARENA_MM, 300.0))[:, 0].tolist() == list(range(9))  # outside
    with_height = torch.cat([places, torch.full((9, 1, 1), 1e3)], -1)
    assert zones_of(with_height, (*ARENA_MM, 300.0))[:, 0].tolist() == list(range(9))
