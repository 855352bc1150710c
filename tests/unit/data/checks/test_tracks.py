"""Checks of the tracks of several animals."""

import h5py
import numpy as np
import pytest

from gerbil_tune.data.checks.tracks import check_tracks
from gerbil_tune.data.events import open_events

ARENA_MM = (572.0, 356.0)


def tracks(num_events=12, animals=3, seed=0):
    half = np.array(ARENA_MM) / 2
    return np.random.default_rng(seed).uniform(-half, half, (num_events, animals, 1, 2))


@pytest.fixture
def found(make_event_file):
    """Codes and the first sentence of what is found in tracks."""

    def check(values, arena_mm=ARENA_MM):
        path = make_event_file()
        with h5py.File(path, "r+") as file:
            file["tracks"] = values
        findings = check_tracks(open_events(path), arena_mm)
        return [(each.level, each.code) for each in findings], [each.message for each in findings]

    return check


def test_good_tracks_and_no_tracks_are_no_fault(found, make_event_file):
    some = tracks()
    some[3:7, 1] = np.nan
    assert found(some) == ([], [])
    assert check_tracks(open_events(make_event_file("none.h5")), ARENA_MM) == []


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (tracks() / 1000, "tracks-unit"),
        (tracks() + np.array(ARENA_MM) / 2, "tracks-origin"),
        (tracks()[..., ::-1], "tracks-axes-swapped"),
        (tracks() * 3, "tracks-outside"),
    ],
)
def test_a_wrong_frame_is_an_error(found, wrong, code):
    codes, (message,) = found(wrong)
    assert codes == [("error", code)]
    assert "tracks" in message
    assert "locations" not in message


def test_a_few_places_outside_are_a_warning(found):
    some = tracks()
    some[0, 0] = 1000.0
    codes, (message,) = found(some)
    assert codes == [("warning", "tracks-outside")]
    assert "2.8% of the tracks" in message
    assert found(some, None) == ([], [])


def test_an_animal_that_never_is_seen_is_told(found):
    some = tracks()
    some[:, 2] = np.nan
    codes, (message,) = found(some)
    assert codes == [("warning", "animal-never-seen")]
    assert "['2']" in message
    some[:] = np.nan
    assert found(some)[0] == [("warning", "animal-never-seen")]
