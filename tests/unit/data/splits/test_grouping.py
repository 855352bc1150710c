import h5py
import numpy as np
import pytest

from gerbil_tune.data.events import open_events
from gerbil_tune.data.splits.grouping import group_events
from gerbil_tune.errors import ConfigError, DatasetError

SHORT = {"lengths": (5, 9)}


def add(path, name, values):
    with h5py.File(path, "a") as file:
        file[name] = values
    return path


def state(path, name, value):
    with h5py.File(path, "a") as file:
        file.attrs[name] = value
    return path


def sides(grouping):
    """Sets of places that belong together."""
    return sorted(
        np.flatnonzero(grouping.groups == group).tolist() for group in np.unique(grouping.groups)
    )


def test_bouts_end_where_the_gap_is_long_enough(make_event_file):
    onsets = [0.0, 0.5, 1.4, 2.4, 9.0, 9.99, 0.9]  # the last one was written out of order
    events = open_events(make_event_file(num_events=7, onsets_s=onsets, **SHORT))
    bouts = group_events(events, "gap", gap_s=1.0)
    assert sides(bouts) == [[0, 1, 2, 6], [3], [4, 5]]
    assert (bouts.group_by, bouts.description) == ("gap", "3 bouts (at least 1 s apart)")
    assert sides(group_events(events, "gap", gap_s=1.01)) == [[0, 1, 2, 3, 6], [4, 5]]
    assert len(sides(group_events(events, "gap", gap_s=1e-3))) == 7


def test_bouts_cross_neither_files_nor_sessions(make_event_file, tmp_path):
    onsets = [0.0, 0.1, 0.2, 0.3]
    make_event_file("d/a.h5", num_events=4, onsets_s=onsets, **SHORT)
    add(
        make_event_file("d/b.h5", num_events=4, onsets_s=onsets, seed=1, **SHORT),
        "session_ids",
        [1, 2, 1, 2],
    )
    events = open_events(tmp_path / "d")
    assert sides(group_events(events, "gap")) == [[0, 1, 2, 3], [4, 6], [5, 7]]


def test_by_file(make_event_file, tmp_path):
    for seed in range(3):
        make_event_file(f"d/{seed}.h5", num_events=2, seed=seed, **SHORT)
    by_file = group_events(open_events(tmp_path / "d"), "file")
    assert sides(by_file) == [[0, 1], [2, 3], [4, 5]]
    assert by_file.description == "3 files"


@pytest.mark.parametrize(
    "values",
    [
        [7, 7, -3, 7],
        np.array([7, 7, 3, 7], dtype=np.uint8),
        ["mouse a", "mouse a", "b", "mouse a"],
        np.array([b"a", b"a", b"b", b"a"]),
    ],
)
def test_by_a_dataset_of_integers_or_text(make_event_file, values):
    path = add(make_event_file(num_events=4, **SHORT), "stimulus", values)
    grouping = group_events(open_events(path), "stimulus")
    assert sides(grouping) == [[0, 1, 3], [2]]
    assert grouping.description == "2 groups of 'stimulus'"


@pytest.mark.parametrize("values", [("a", "b", "a"), (1, 2, 1), (b"x", "y", "x")])
def test_by_an_attribute_of_the_files(make_event_file, tmp_path, values):
    for seed, value in enumerate(values):
        state(make_event_file(f"d/{seed}.h5", num_events=2, seed=seed, **SHORT), "day", value)
    assert sides(group_events(open_events(tmp_path / "d"), "day")) == [[0, 1, 4, 5], [2, 3]]


def test_a_subset_keeps_its_groups(make_event_file):
    path = add(make_event_file(num_events=4, **SHORT), "day", [1, 1, 2, 2])
    assert sides(group_events(open_events(path).subset([3, 0, 2]), "day")) == [[0, 2], [1]]


def test_what_the_file_does_not_have(make_event_file):
    path = make_event_file(num_events=4, **SHORT)
    state(add(add(path, "day", [1, 1, 2, 2]), "weight", [0.5, 1, 2, 3]), "cage", "c3")
    # What this program writes of itself divides nothing.
    for name in ("simulation", "content_blake2b", "written_by", "units"):
        state(path, name, "mm")
    events = open_events(path)
    for name in ("session", "weight", "locations", "arena_mm"):
        valid = "valid: cage, day, file, gap, none$"
        with pytest.raises(DatasetError, match=f"cannot group by '{name}'.*{valid}"):
            group_events(events, name)
    with pytest.raises(DatasetError, match="grouping by gap needs the dataset 'onsets_s'"):
        group_events(events, "gap")
    with pytest.raises(ConfigError, match="--gap-s must be a number of seconds above 0"):
        group_events(events, gap_s=0.0)


def test_one_group_is_not_called_groups(make_event_file):
    path = make_event_file(num_events=2, groups=[1, 1], onsets_s=[0.0, 0.1], **SHORT)
    descriptions = [
        group_events(open_events(path), name).description
        for name in ("auto", "file", "gap", "group_ids")
    ]
    assert [text.split()[:2] for text in descriptions] == [
        ["1", "group"],
        ["1", "file"],
        ["1", "bout"],
        ["1", "group"],
    ]


def test_stated_groups_come_first(make_event_file):
    path = make_event_file(
        num_events=40, groups=np.repeat([1, 2], 20), onsets_s=np.arange(40) * 5.0, **SHORT
    )
    grouping = group_events(open_events(path))
    assert len(sides(grouping)) == 2
    assert grouping.description == "2 groups (group_ids or session_ids)"


def test_ten_files_are_ten_sessions_but_nine_are_not(make_event_file, tmp_path):
    for seed in range(10):
        make_event_file(f"d/{seed}.h5", num_events=2, seed=seed, **SHORT)
    files = sorted((tmp_path / "d").iterdir())
    assert group_events(open_events(files)).group_by == "file"
    nine = group_events(open_events(files[:9]))
    assert (nine.groups, nine.group_by) == (None, "none")
    assert nine.description == "each event by itself (no groups or onsets are known)"


def test_ten_bouts_are_kept_whole_but_nine_are_not_enough(make_event_file):
    path = make_event_file(num_events=10, onsets_s=np.arange(10) * 2.0, **SHORT)
    assert group_events(open_events(path)).group_by == "gap"
    assert group_events(open_events(path), gap_s=2.5).groups is None
    path = make_event_file("b.h5", num_events=9, onsets_s=np.arange(9) * 2.0, **SHORT)
    assert group_events(open_events(path)).groups is None


def test_onsets_of_some_files_only_make_no_bouts(make_event_file, tmp_path):
    make_event_file("d/a.h5", num_events=12, onsets_s=np.arange(12) * 2.0, **SHORT)
    make_event_file("d/b.h5", num_events=2, seed=1, **SHORT)
    events = open_events(tmp_path / "d")
    assert group_events(events).groups is None
    with pytest.raises(DatasetError, match=r"b\.h5: grouping by gap"):
        group_events(events, "gap")


def test_shards_are_no_sessions(make_event_file, tmp_path):
    for seed in range(10):
        make_event_file(f"d/{seed}.h5", num_events=2, seed=seed, **SHORT)
    events = open_events(tmp_path / "d")
    (tmp_path / "d" / "manifest.json").write_text("{}")
    assert group_events(events).groups is None
