import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gerbil_tune.data.checks.labels import check_labels

ARENA_MM = (572.0, 356.0, 300.0)
NAMES = ("nose", "left ear", "right ear")


class Labels:
    """Only what the checks of locations look at."""

    def __init__(self, locations, keypoints=None, states_units=False):
        locations = np.asarray(locations, np.float32)
        if locations.ndim == 2:
            locations = locations[:, None]
        self.locations_mm = locations
        self.keypoints = keypoints or NAMES[: locations.shape[1]]
        self.files = (type("File", (), {"states_units": states_units})(),)
        self.files[0].path = type("Path", (), {"name": "a.h5"})()

    def __len__(self):
        return len(self.locations_mm)

    def describe(self, i):
        return f"event {i} of a.h5"


def places(number=100, num_axes=2, seed=0):
    half = np.array(ARENA_MM[:num_axes]) / 2
    drawn = np.random.default_rng(seed).uniform(-half, half, (number, num_axes))
    drawn[:, 2:] += half[2:]
    return drawn


def skeleton(number=100):
    spread = np.random.default_rng(1).normal(0, 4, (number, 3, 2))
    return places(number)[:, None] * 0.95 + spread


def codes(locations, arena_mm=ARENA_MM, **options):
    return [finding.code for finding in check_labels(Labels(locations, **options), arena_mm)]


@given(
    number=st.integers(1, 60),
    seed=st.integers(0, 1000),
    num_axes=st.integers(2, 3),
    arena=st.tuples(st.floats(300, 2000), st.floats(300, 2000)),
)
@settings(deadline=None, max_examples=60)
def test_good_labels_in_any_arena_raise_no_error(number, seed, num_axes, arena):
    arena_mm = (*arena, 300.0)
    scale = np.array(arena_mm[:num_axes]) / np.array(ARENA_MM[:num_axes])
    found = check_labels(Labels(places(number, num_axes, seed) * scale), arena_mm)
    assert [finding for finding in found if finding.level == "error"] == []


def test_an_animal_that_stays_in_a_corner_is_no_fault():
    drawn = places() * 0.1 + np.array([200.0, 120.0])
    assert codes(drawn) == []


def test_a_keypoint_far_away_once_is_found_and_named():
    drawn = skeleton()
    drawn[41, 0] += [0, 400]
    drawn[7] = [[-280, -170], [0, 0], [0, 0]]  # 328 mm
    drawn[9] = [[-280, -170], [10, 10], [10, 10]]  # 341 mm; half the diagonal is 337 mm
    found = check_labels(Labels(drawn), ARENA_MM)
    far = next(finding for finding in found if finding.code == "keypoints-far-apart")
    assert far.examples == ("event 9 of a.h5", "event 41 of a.h5")
    assert "337 mm" in far.message


def test_a_box_larger_than_the_limit_may_hold_points_that_are_near():
    drawn = skeleton()
    drawn[5] = [[-150, 0], [150, 0], [0, 160]]  # a box of 340 mm, but 300 mm at most
    assert codes(drawn) == []


def test_some_keypoints_that_are_never_located():
    drawn = skeleton()
    drawn[:, 1:] = np.nan
    drawn[6, 0, 0] = np.inf
    never, broken = check_labels(Labels(drawn), ARENA_MM)
    assert (never.code, never.count, never.examples) == (
        "keypoint-never-located",
        2,
        ("left ear", "right ear"),
    )
    assert (broken.code, broken.examples) == ("nan-locations", ("event 6 of a.h5",))


def test_nothing_but_nan():
    assert codes(places() * np.nan) == ["nan-locations"]
    assert codes(skeleton() * np.nan) == ["nan-locations"]


def test_broken_labels_hide_no_other_fault():
    drawn = places() * 0.1
    drawn[:30] = np.nan
    assert codes(drawn) == ["nan-locations", "locations-unit"]


@pytest.mark.parametrize(("factor", "unit"), [(1e-3, "m"), (0.1, "cm")])
def test_a_stated_unit_is_believed_where_it_can_be(factor, unit):
    (finding,) = check_labels(Labels(places() * factor), ARENA_MM)
    assert f"seem to be in {unit};" in finding.message
    assert finding.level == "error"
    doubted = check_labels(Labels(places() * factor, states_units=True), ARENA_MM)
    assert [finding.level for finding in doubted] == ([] if unit == "cm" else ["warning"])


@pytest.mark.parametrize("factor", [10.0, 1000.0, 7.5])
def test_a_smaller_unit_than_mm(factor):
    (finding,) = check_labels(Labels(places() * factor), ARENA_MM)
    assert (finding.code, finding.level) == ("outside-arena", "error")


def test_exchanged_axes_need_most_places_to_fit():
    assert codes(places()[:, ::-1]) == ["axes-swapped"]
    drawn = places()
    drawn[:6] = [[0, 280]] * 6  # inside if exchanged, but then the others are outside
    assert codes(drawn) == ["outside-arena"]


def test_height_and_place_are_told_apart():
    drawn = places(num_axes=3)
    drawn[2, 2], drawn[3, 2], drawn[4, 0] = -40, 340, 500
    outside, height = check_labels(Labels(drawn), ARENA_MM)
    assert (outside.code, outside.examples) == ("outside-arena", ("event 4 of a.h5",))
    assert (height.code, height.count) == ("wrong-height", 2)
    assert "300 mm" in height.message


def test_repeats_from_half_of_the_events_on():
    assert codes(np.repeat(places(50), 2, axis=0)) == []
    assert codes(np.repeat(places(40), 3, axis=0)) == ["repeated-locations"]


def test_without_an_arena_the_rest_is_checked():
    drawn = skeleton() * 1000
    drawn[:, 2] = drawn[:, 0]
    drawn[3, 0, 0] = np.nan
    assert codes(drawn, arena_mm=None) == ["nan-locations", "equal-keypoints"]


def test_no_labels_no_findings():
    labels = Labels(places())
    labels.locations_mm = None
    assert check_labels(labels, ARENA_MM) == []
