import warnings

import numpy as np
import pytest

from gerbil_tune.data.checks.splits import check_index_files, check_parts
from gerbil_tune.data.events import open_events


@pytest.fixture
def events(make_event_file):
    return open_events(make_event_file(num_events=20))


@pytest.fixture
def folder(tmp_path):
    def write(**parts):
        for name, places in parts.items():
            np.save(tmp_path / f"{name}.npy", places)
        return tmp_path

    return write


def codes(result):
    return sorted(finding.code for finding in result.findings)


def test_a_good_split(events, folder):
    result = check_index_files(
        folder(train_set=np.arange(12), val_set=[12, 13], test_set=np.uint8([19, 15])), events
    )
    assert result.findings == []
    assert np.flatnonzero(result.parts["test_set"]).tolist() == [15, 19]


def test_test_may_be_missing_and_others_not(events, folder):
    result = check_index_files(folder(train_set=np.arange(12)), events)
    assert codes(result) == ["split-missing"]
    assert "val_set.npy" in result.findings[0].message
    assert list(result.parts) == ["train_set"]


def test_a_file_is_no_folder_of_a_split(events, folder):
    path = folder(train_set=np.arange(12)) / "train_set.npy"
    (finding,) = check_index_files(path, events).findings
    assert "is a file, but --split takes a folder" in finding.message


def test_all_faults_are_told(events, folder):
    result = check_index_files(
        folder(
            train_set=np.array([0, 1, 1, 2, 25]),
            val_set=np.array([[2.5, 3]]),
            test_set=np.array([-3, 2, 1]),
        ),
        events,
    )
    assert codes(result) == [
        "split-duplicates",
        "split-not-1d",
        "split-not-integer",
        "split-out-of-range",
        "split-out-of-range",
        "split-overlap",
    ]
    overlap = next(finding for finding in result.findings if finding.code == "split-overlap")
    assert (overlap.count, overlap.examples) == (
        2,
        ("event 1 of events.h5", "event 2 of events.h5"),
    )


def test_an_archive_and_a_pickle_are_unreadable(events, tmp_path):
    with (tmp_path / "train_set.npy").open("wb") as stream:
        np.savez(stream, a=np.arange(3))
    np.save(tmp_path / "val_set.npy", np.array([{}, None], dtype=object))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = check_index_files(tmp_path, events)
    assert codes(result) == ["split-unreadable", "split-unreadable"]


def test_groups_on_two_sides(make_event_file):
    events = open_events(make_event_file(num_events=12, groups=np.arange(12) // 3))
    places = np.arange(12)
    parts = {
        "train_set": places < 7,
        "val_set": (places >= 7) & (places < 9),
        "test_set": places >= 9,
    }
    (finding,) = check_parts(parts, events, "here")
    assert (finding.level, finding.code) == ("warning", "group-leak")
    assert (finding.count, finding.examples) == (1, ("group 2",))
    assert "train_set and in val_set" in finding.message
    whole = {"train_set": places < 6, "test_set": places >= 6}
    assert check_parts(whole, events, "here") == []
