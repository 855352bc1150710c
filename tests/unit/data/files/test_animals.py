"""Tracks of several animals in files of events."""

import pickle

import h5py
import numpy as np
import pytest

from gerbil_tune.data.events import open_events
from gerbil_tune.data.files.formats import open_event_file
from gerbil_tune.data.files.writer import write_events
from gerbil_tune.errors import DatasetError


def add(path, **datasets):
    with h5py.File(path, "r+") as file:
        for name, values in datasets.items():
            file[name] = values
    return path


def tracks(num_events=12, keypoints=1, seed=0):
    return np.random.default_rng(seed).uniform(-100, 100, (num_events, 3, keypoints, 2))


def test_tracks_are_in_mm_and_follow_the_chosen_events_and_keypoints(make_event_file):
    stored = tracks(keypoints=2) / 1000
    path = make_event_file(
        keypoints=("nose", "tail"),
        locations=np.zeros((12, 2, 2)),
        attributes={"units": "m"},
    )
    names = np.array([b"Ann", b"Bo", b"Cid"])
    events = open_events(
        add(path, tracks=stored, emitter=np.arange(12) % 4 - 1, animal_names=names)
    )
    chosen = pickle.loads(pickle.dumps(events.select_keypoints(["tail"]).subset([7, 2])))
    assert chosen.animals.names == ("Ann", "Bo", "Cid")
    assert chosen.animals.emitters.tolist() == [2, 1]
    np.testing.assert_allclose(
        chosen.animals.tracks_mm, 1000 * stored[[7, 2]][:, :, [1]], rtol=1e-6
    )


def test_tracks_need_no_locations(make_event_file):
    events = open_events(add(make_event_file(locations=None), tracks=tracks()))
    assert events.locations_mm is None
    assert events.keypoints == ("nose",)
    assert events.animals.tracks_mm.shape == (12, 3, 1, 2)
    assert events.animals.emitters is None
    assert events.animals.names == ("0", "1", "2")


def test_files_without_known_callers_join_those_with_them(make_event_file, tmp_path):
    one = add(make_event_file("one.h5"), tracks=tracks(), emitter=np.full(12, 2))
    two = add(make_event_file("two.h5", seed=1), tracks=tracks(seed=1))
    events = open_events([one, two])
    assert events.animals.emitters.tolist() == [2] * 12 + [-1] * 12
    written = open_events(write_events(tmp_path / "out.h5", events.subset([3, 20])))
    np.testing.assert_array_equal(written.animals.tracks_mm, events.animals.tracks_mm[[3, 20]])
    assert written.animals.emitters.tolist() == [2, -1]
    three = make_event_file("three.h5", seed=2)
    with pytest.raises(DatasetError, match="animals: none, but 3 animals 0, 1, 2 with 1 keypoints"):
        open_events([one, three])


def test_tracks_are_a_part_of_the_fingerprint(make_event_file):
    path = make_event_file()
    before = open_event_file(path).fingerprint()
    after = open_event_file(add(path, tracks=tracks())).fingerprint()
    assert before != after
    with h5py.File(path, "r+") as file:
        file["tracks"][3, 1] += 1
    assert open_event_file(path).fingerprint() != after


@pytest.mark.parametrize(
    ("datasets", "says"),
    [
        ({"tracks": np.zeros((12, 1, 2))}, r"shape \(12, 1, 2\), but must be \(12, animals"),
        ({"tracks": np.zeros((11, 2, 1, 2))}, r"must be \(12, animals, keypoints, axes\)"),
        ({"tracks": np.zeros((12, 2, 1, 4))}, "2 or 3 axes"),
        ({"tracks": np.zeros((12, 0, 1, 2))}, "must be"),
        ({"tracks": np.array([b"a"] * 12)}, "dataset of numbers"),
        ({"tracks": tracks(keypoints=2)}, "'locations' has 1 keypoints, but 'tracks' has 2"),
        ({"tracks": tracks(), "emitter": np.full(12, 3)}, "0 to 2, or -1 for unknown, but holds 3"),
        ({"tracks": tracks(), "emitter": np.zeros(11, int)}, "one integer an event"),
        ({"tracks": tracks(), "animal_names": np.array([b"a", b"b"])}, "each of the 3 animals"),
        ({"tracks": tracks(), "animal_names": np.array([b"a"] * 3)}, "each of the 3 animals"),
        (
            {"tracks": tracks(), "animal_names": np.arange(3)},
            "text in UTF-8, one name for each animal",
        ),
    ],
)
def test_wrong_tracks_are_told_in_one_sentence(make_event_file, datasets, says):
    with pytest.raises(DatasetError, match=says) as caught:
        open_event_file(add(make_event_file(), **datasets))
    assert "\n" not in str(caught.value)
