import dataclasses
import json
import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gerbil_tune.geometry import (
    RecordingSetup,
    longest_path_mm,
    microphone_pairs,
    mirror_permutation,
)

CORNERS = ((-286.0, 178.0, 368.0), (286.0, 178.0, 368.0), (-286.0, -178.0, 368.0))
FOUR = (*CORNERS, (286.0, -178.0, 368.0))

coordinates = st.floats(-600, 600).map(lambda x: round(x, 2))
positions = st.tuples(coordinates, coordinates, st.floats(0, 600))
names = st.text("abcdefghij_", min_size=1, max_size=8)


def setup_with(microphones_mm, arena_mm=(572.0, 356.0)):
    return RecordingSetup(
        num_microphones=4 if microphones_mm is None else len(microphones_mm),
        sample_rate_hz=125_000.0,
        arena_mm=arena_mm,
        microphones_mm=microphones_mm,
    )


setups = st.builds(
    RecordingSetup,
    num_microphones=st.integers(1, 24),
    sample_rate_hz=st.floats(1.0, 1e6),
    arena_mm=st.one_of(st.tuples(*[st.floats(1, 5000)] * 2), st.tuples(*[st.floats(1, 5000)] * 3)),
    microphones_mm=st.none() | st.lists(positions, min_size=1, max_size=8).map(tuple),
    keypoints=st.lists(names, min_size=1, max_size=4).map(tuple),
    num_axes=st.sampled_from([2, 3]),
)


@given(setups)
def test_a_setup_survives_json(setup):
    assert RecordingSetup.from_json(json.loads(json.dumps(setup.to_json()))) == setup


def test_json_with_whole_numbers_gives_floats():
    values = {
        **setup_with(((0, 0, 1),)).to_json(),
        "arena_mm": [572, 356],
        "sample_rate_hz": 125000,
    }
    setup = RecordingSetup.from_json(values)
    assert setup.arena_mm == (572.0, 356.0)
    assert all(isinstance(width, float) for width in (*setup.arena_mm, setup.sample_rate_hz))


def test_a_setup_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        setup_with(FOUR).num_microphones = 5


@given(st.integers(0, 24))
def test_every_pair_of_microphones_once_and_in_order(num_microphones):
    pairs = microphone_pairs(num_microphones)
    assert len(pairs) == num_microphones * (num_microphones - 1) // 2
    assert list(pairs) == sorted(set(pairs))
    assert all(0 <= first < second < num_microphones for first, second in pairs)


def test_the_order_of_pairs_is_that_of_the_predecessors():
    assert microphone_pairs(4) == ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))


def test_the_longest_path_is_between_the_farthest_microphones():
    assert longest_path_mm(setup_with(FOUR)) == pytest.approx(math.hypot(572, 356))
    assert longest_path_mm(setup_with(((0, 0, 0), (3, 4, 0), (0, 0, 12)))) == pytest.approx(13)


@pytest.mark.parametrize("microphones_mm", [None, ((0.0, 0.0, 0.0),)])
def test_the_longest_path_is_the_diagonal_where_no_pair_is_known(microphones_mm):
    assert longest_path_mm(setup_with(microphones_mm, (3.0, 4.0))) == pytest.approx(5)
    assert longest_path_mm(setup_with(microphones_mm, (3.0, 4.0, 12.0))) == pytest.approx(13)


def test_the_mirror_image_of_four_corners():
    assert mirror_permutation(setup_with(FOUR), 0) == (1, 0, 3, 2)
    assert mirror_permutation(setup_with(FOUR), 1) == (2, 3, 0, 1)


def test_there_is_no_mirror_image_without_positions_or_symmetry():
    assert mirror_permutation(setup_with(None), 0) is None
    assert mirror_permutation(setup_with(CORNERS), 0) is None
    assert mirror_permutation(setup_with(CORNERS), 1) is None


def test_two_microphones_do_not_share_one_mirror_image():
    crowded = ((-100.0, 0.0, 0.0), (-98.0, 0.0, 0.0), (99.0, 0.0, 0.0), (500.0, 0.0, 0.0))
    assert mirror_permutation(setup_with(crowded[:3]), 0) is None


@pytest.mark.parametrize(("moved_mm", "is_symmetric"), [(4.9, True), (5.1, False)])
def test_five_millimetres_of_asymmetry_are_forgiven(moved_mm, is_symmetric):
    moved = (*FOUR[:3], (286.0, -178.0, 368.0 + moved_mm))
    assert (mirror_permutation(setup_with(moved), 0) is not None) == is_symmetric


def apart(points, least_mm=20.0):
    return all(math.dist(a, b) > least_mm for i, a in enumerate(points) for b in points[:i])


@given(st.lists(positions, min_size=1, max_size=6), st.sampled_from([0, 1]))
def test_the_mirror_image_of_the_mirror_image_is_the_array(half, axis):
    image = [tuple(-x if a == axis else x for a, x in enumerate(p)) for p in half]
    whole = tuple(half + [p for p in image if p not in half])
    assume(apart(whole))
    order = mirror_permutation(setup_with(whole), axis)
    assert order is not None
    assert sorted(order) == list(range(len(whole)))
    assert [order[channel] for channel in order] == list(range(len(whole)))
    for channel, twin in enumerate(order):
        assert whole[twin][axis] == -whole[channel][axis]
