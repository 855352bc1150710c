import numpy as np
import pytest

from gerbil_tune.config.cleaning import SkeletonFilter
from gerbil_tune.data.cleaning.skeletons import (
    MOST_PAIRS,
    fewest_events,
    judge_skeletons,
    pair_lengths_mm,
)
from tests.benchmarks.cleaning import draw_bodies


def pairs_at(lengths):
    """Two keypoints at given distances, anywhere and in any direction."""
    generator = np.random.default_rng(0)
    lengths = np.asarray(lengths)
    angle = generator.uniform(0, 2 * np.pi, len(lengths))
    locations = generator.uniform(-100, 100, (len(lengths), 1, 2)).repeat(2, axis=1)
    locations[:, 1] += lengths[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return locations


def hits(locations, **config):
    found = judge_skeletons(locations, SkeletonFilter(**config))
    return np.flatnonzero(found.distance_N > found.limit).tolist()


def test_lengths_of_a_triangle():
    triangle = np.array([[[0, 0], [3, 0], [0, 4]]], dtype=np.float32)
    assert pair_lengths_mm(triangle, ((0, 1), (0, 2), (1, 2))).tolist() == [[3, 4, 5]]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_lengths_of_what_is_not_finite_are_unknown(value):
    broken = np.zeros((2, 3, 2))
    broken[1, 2, 0] = value
    lengths = pair_lengths_mm(broken, ((0, 1), (0, 2)))
    assert np.isnan(lengths).tolist() == [[False, False], [True, True]]


@pytest.mark.parametrize(("num_keypoints", "fewest"), [(2, 20), (3, 30), (5, 50), (12, 120)])
def test_fewest_events(num_keypoints, fewest):
    assert fewest_events(num_keypoints) == fewest


class TestRate:
    @pytest.mark.parametrize("rate", [1e-3, 5e-2])
    @pytest.mark.parametrize("num_keypoints", [2, 3])
    def test_is_kept_for_gaussian_lengths(self, rate, num_keypoints):
        """Corners of a large triangle with Gaussian errors: the lengths of its sides are Gaussian."""
        generator = np.random.default_rng(1)
        locations = generator.normal(0, 3, (20_000, num_keypoints, 2))
        locations += np.array([[0, 0], [1000, 0], [0, 1000]])[:num_keypoints]
        part = len(hits(locations, false_positive_rate=rate)) / len(locations)
        # A heavier tail than it is may be seen in it, a lighter one not.
        assert rate / 3 < part < 1.3 * rate

    def test_a_light_tail_loses_nothing(self):
        lengths = np.random.default_rng(2).uniform(15, 25, 5000)
        assert hits(pairs_at(lengths)) == []

    def test_a_heavy_tail_is_no_error(self):
        """Student's t with 5 degrees of freedom: 0.4 % are beyond the limit of a Gaussian for 1e-4."""
        lengths = 100 + 3 * np.random.default_rng(3).standard_t(5, 20_000)
        assert len(hits(pairs_at(lengths))) < 1e-3 * len(lengths)

    def test_two_postures_are_no_error(self):
        generator = np.random.default_rng(4)
        upright = generator.random(1000) < 0.4
        lengths = np.where(upright, generator.normal(15, 3, 1000), generator.normal(30, 1.5, 1000))
        assert hits(pairs_at(lengths)) == []

    @pytest.mark.parametrize("num_keypoints", [2, 3, 5, 12])
    def test_bending_and_rearing_bodies_stay(self, num_keypoints):
        bodies = draw_bodies(np.random.default_rng(0), 1000, num_keypoints)
        assert len(hits(bodies)) < 5

    def test_does_not_depend_on_how_much_is_wrong(self):
        for part in (0.0, 0.1, 0.2):
            generator = np.random.default_rng(5)
            bodies = draw_bodies(generator, 500, 3)
            wrong = np.flatnonzero(generator.random(500) < part)
            bodies[wrong, 0] += 120
            found = hits(bodies)
            assert set(wrong) <= set(found)
            assert len(found) < len(wrong) + 5


class TestFaults:
    @pytest.mark.parametrize("num_keypoints", [2, 3, 5, 12])
    def test_a_jump_is_found_and_named(self, num_keypoints):
        bodies = draw_bodies(np.random.default_rng(6), 400, num_keypoints)
        bodies[[17, 200], 0] += 150
        found = judge_skeletons(bodies, SkeletonFilter())
        assert np.flatnonzero(found.distance_N > found.limit).tolist() == [17, 200]
        assert 0 in found.pairs[found.worst_pair_N[17]]

    def test_keypoints_on_top_of_each_other_are_found(self):
        lengths = np.random.default_rng(7).normal(30, 2, 500)
        lengths[42] = 0
        assert hits(pairs_at(lengths)) == [42]
        assert hits(pairs_at(lengths), transform="log") == [42]

    def test_swapped_ends_are_found_although_no_length_is_too_long(self):
        """A swap of nose and neck leaves lengths that all occur, but not together."""
        generator = np.random.default_rng(8)
        bodies = np.zeros((500, 3, 2))
        bodies[:, 1, 0], bodies[:, 2, 0] = 15, 45
        bodies += generator.normal(0, 1, bodies.shape)
        bodies[99] = bodies[99, [1, 0, 2]]
        assert hits(bodies) == [99]

    def test_a_missing_keypoint_is_not_judged(self):
        bodies = draw_bodies(np.random.default_rng(9), 100, 3)
        bodies[3, 1] = np.nan
        found = judge_skeletons(bodies, SkeletonFilter())
        assert np.flatnonzero(np.isnan(found.distance_N)).tolist() == [3]


class TestRigid:
    @pytest.mark.parametrize("num_keypoints", [2, 3, 5])
    @pytest.mark.parametrize("num_events", [60, 400])
    def test_the_tracking_error_is_the_scale(self, num_keypoints, num_events):
        """The same body every time: without an error the covariance could not be inverted."""
        generator = np.random.default_rng(10)
        body = np.cumsum(np.full((num_keypoints, 2), 20.0), axis=0)
        bodies = np.repeat(body[None], num_events, axis=0) + generator.uniform(
            -9, 9, (num_events, 1, 2)
        )
        bodies[5, 0] += 20
        assert hits(bodies) == [5]
        assert hits(bodies, tracking_error_mm=30.0) == []

    def test_usual_lengths_are_told(self):
        lengths = np.random.default_rng(11).normal(50, 4, 3000)
        found = judge_skeletons(pairs_at(lengths), SkeletonFilter())
        assert found.usual_P2_mm[0] == pytest.approx([42, 58], abs=1.0)
        assert not found.is_log


class TestScale:
    def test_of_lengths_that_spread_by_factors_is_log(self):
        lengths = 30 * np.exp(np.random.default_rng(12).normal(0, 0.5, 3000))
        found = judge_skeletons(pairs_at(lengths), SkeletonFilter())
        assert found.is_log
        assert (found.distance_N > found.limit).sum() <= 2
        assert found.usual_P2_mm[0] == pytest.approx([30 / np.e, 30 * np.e], rel=0.1)

    def test_can_be_chosen(self):
        locations = pairs_at(np.random.default_rng(13).normal(50, 2, 200))
        for transform in ("log", "none"):
            found = judge_skeletons(locations, SkeletonFilter(transform=transform))
            assert found.is_log == (transform == "log")


def test_of_many_keypoints_the_rigid_pairs_are_used():
    bodies = draw_bodies(np.random.default_rng(14), 600, 20)
    found = judge_skeletons(bodies, SkeletonFilter())
    assert MOST_PAIRS < 20 * 19 / 2
    assert len(found.pairs) <= 60
    assert {k for pair in found.pairs for k in pair} == set(range(20))


def test_is_the_same_every_time():
    bodies = draw_bodies(np.random.default_rng(15), 5500, 2)
    first, second = (judge_skeletons(bodies, SkeletonFilter()) for _ in range(2))
    assert np.array_equal(first.distance_N, second.distance_N)
    assert first.limit == second.limit
