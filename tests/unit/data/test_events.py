import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from operator import methodcaller

import numpy as np
import pytest

from gerbil_tune.config.schema import DataConfig
from gerbil_tune.data.events import open_events, recording_setup
from gerbil_tune.data.files.formats import open_event_file
from gerbil_tune.errors import DatasetError

CORNERS = [[286.0, 178, 200], [-286.0, 178, 200], [286.0, -178, 200], [-286.0, -178, 200]]


def test_events_of_several_files_follow_each_other(make_event_file):
    paths = [make_event_file(f"{n}.h5", num_events=4 + n, seed=n) for n in range(3)]
    events = open_events(paths)
    files = [open_event_file(path) for path in paths]
    flat = [(file, i) for file in files for i in range(file.num_events)]
    assert len(events) == len(flat) == 15
    np.testing.assert_array_equal(
        events.locations_mm, np.concatenate([file.locations_mm for file in files])
    )
    for place, (file, i) in enumerate(flat):
        np.testing.assert_array_equal(events.read(place), file.read(i))
        np.testing.assert_array_equal(events.read(place, 5, 90), file.read(i, 5, 90))
        assert events.lengths[place] == len(file.read(i))
        assert events.describe(place) == f"event {i} of {file.path.name}"


def test_subsets_of_subsets_keep_order_and_duplicates(make_event_file):
    events = open_events([make_event_file("a.h5"), make_event_file("b.h5", seed=1)])
    chosen = events.subset([20, 3, 3, 13, 0]).subset(np.array([0, 1, 2, 3]))
    assert chosen.rows.tolist() == [20, 3, 3, 13]
    for place, row in enumerate(chosen.rows):
        np.testing.assert_array_equal(chosen.read(place), events.read(row))
        np.testing.assert_array_equal(chosen.locations_mm[place], events.locations_mm[row])
    assert len(events.subset([])) == 0


def test_a_folder_is_read_by_name_without_hidden_or_other_files(make_event_file, tmp_path):
    for name in ("data/b.h5", "data/a.hdf5", "data/.part.h5", "data/c.txt"):
        make_event_file(name)
    events = open_events(tmp_path / "data")
    assert [file.path.name for file in events.files] == ["a.hdf5", "b.h5"]
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DatasetError, match=r"no file ending in .h5 or .hdf5"):
        open_events(tmp_path / "nothing")
    with pytest.raises(DatasetError, match="given twice"):
        open_events([tmp_path / "data", tmp_path / "data" / "b.h5"])
    with pytest.raises(DatasetError, match="no file of events was given"):
        open_events([])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_microphones": 3}, "microphones: 3, but 4 in"),
        ({"dtype": "int16"}, "kind of audio: integers, but floats in"),
        ({"keypoints": ["nose", "head"]}, "keypoints: nose, head, but nose in"),
        ({"num_axes": 3}, r"shape of a location: \(1, 3\), but \(1, 2\)"),
        ({"locations": None, "keypoints": ["nose"]}, "shape of a location: none"),
    ],
)
def test_files_that_do_not_belong_together(make_event_file, options, message):
    with pytest.raises(DatasetError, match=message):
        open_events([make_event_file("a.h5"), make_event_file("b.h5", **options)])


def test_keypoints_come_in_the_order_asked_for(make_event_file):
    events = open_events(make_event_file(keypoints=["Nose", "Head", "Tail"], num_axes=3))
    chosen = events.select_keypoints(["Tail", "Nose"])
    np.testing.assert_array_equal(chosen.locations_mm, events.locations_mm[:, [2, 0]])
    assert chosen.keypoints == ("Tail", "Nose")
    assert chosen.subset([1, 2]).keypoints == ("Tail", "Nose")
    again = chosen.select_keypoints(["Nose"])
    np.testing.assert_array_equal(again.locations_mm, events.locations_mm[:, [0]])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["nose"], "'nose', which the file does not have; valid: Nose, Head"),
        (["Nose", "Nose"], "each keypoint once"),
        ([], "each keypoint once"),
    ],
)
def test_wrong_keypoints(make_event_file, names, message):
    events = open_events(make_event_file(keypoints=["Nose", "Head"]))
    with pytest.raises(DatasetError, match=message):
        events.select_keypoints(names)


def test_groups_of_files_with_and_without(make_event_file):
    with_groups = make_event_file("a.h5", num_events=3, groups=np.array([5, 5, 7]))
    more_groups = make_event_file("b.h5", num_events=2, groups=np.array([7, -1]))
    without = make_event_file("c.h5", num_events=2)
    assert open_events(without).groups is None
    assert open_events([with_groups, more_groups]).groups.tolist() == [5, 5, 7, 7, -1]
    groups = open_events([with_groups, without, more_groups]).groups
    assert groups[3] == groups[4]
    assert groups[3] not in groups[[0, 1, 2, 5, 6]]


def test_pickled_events_read_the_same_in_a_spawned_process(make_event_file):
    events = open_events([make_event_file("a.h5"), make_event_file("b.h5", seed=1)])
    chosen = events.subset([17, 2, 9])
    chosen.read(0)
    assert len(pickle.dumps(chosen)) < 8000  # the audio has 170 kB
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        event = pool.submit(methodcaller("read", 0, 3, 200), chosen).result()
    np.testing.assert_array_equal(event, chosen.read(0, 3, 200))


def test_fingerprint_depends_on_files_rows_and_keypoints(make_event_file):
    events = open_events(make_event_file(keypoints=["a", "b"]))
    same = open_events(make_event_file("copy.h5", keypoints=["a", "b"]))
    assert same.fingerprint() == events.fingerprint()
    variants = [
        events,
        events.subset(range(11)),
        events.subset(range(11, -1, -1)),
        events.select_keypoints(["b", "a"]),
        open_events(make_event_file("other.h5", keypoints=["a", "b"], seed=1)),
    ]
    assert len({variant.fingerprint() for variant in variants}) == len(variants)


def test_setup_from_the_file(make_event_file):
    events = open_events(
        make_event_file(keypoints=["Nose", "Head"], num_axes=2, microphones_mm=CORNERS)
    )
    setup = recording_setup(events, DataConfig())
    assert setup.num_microphones == 4
    assert setup.sample_rate_hz == 125_000.0
    assert setup.arena_mm == (572.0, 356.0)
    assert setup.microphones_mm == tuple(tuple(row) for row in CORNERS)
    assert setup.keypoints == ("Nose", "Head")
    assert setup.num_axes == 2


def test_the_config_fills_and_overrides(make_event_file):
    config = DataConfig(
        sample_rate_hz=192_000.0, arena_mm=(600.0, 400.0, 300.0), keypoints=("Head",)
    )
    for stated in ({}, {"sample_rate_hz": None, "arena_mm": None}):
        path = make_event_file(keypoints=["Nose", "Head"], num_axes=3, **stated)
        events = open_events(path)
        for chosen in (events, events.select_keypoints(["Head"])):
            setup = recording_setup(chosen, config)
            assert setup.sample_rate_hz == 192_000.0
            assert setup.arena_mm == (600.0, 400.0, 300.0)
            assert setup.keypoints == ("Head",)
            assert setup.num_axes == 3


def test_setup_without_locations(make_event_file):
    events = open_events(make_event_file(locations=None))
    assert recording_setup(events, DataConfig()).keypoints == ("nose",)
    assert recording_setup(events, DataConfig()).num_axes == 2
    assert recording_setup(events, DataConfig(keypoints=("Tail",))).keypoints == ("Tail",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample_rate_hz": None}, "--set data/sample_rate_hz=125000"),
        ({"arena_mm": None}, r"--set data/arena_mm='\[572, 356\]'"),
        ({"num_axes": 3}, "3 axes, but arena_mm is"),
    ],
)
def test_what_is_missing_says_what_to_add(make_event_file, options, message):
    with pytest.raises(DatasetError, match=message):
        recording_setup(open_events(make_event_file(**options)), DataConfig())


@pytest.mark.parametrize(
    "options",
    [
        {"sample_rate_hz": 192_000.0},
        {"arena_mm": (572.0, 357.0)},
        {"arena_mm": (572.0, 356.0, 300.0)},
        {"microphones_mm": np.zeros((4, 3))},
    ],
)
def test_files_of_different_sites(make_event_file, options):
    first = make_event_file("a.h5", microphones_mm=CORNERS)
    events = open_events([first, make_event_file("b.h5", **options)])
    with pytest.raises(DatasetError, match=f"{next(iter(options))}.*one recording site"):
        recording_setup(events, DataConfig(sample_rate_hz=1.0, arena_mm=(1.0, 1.0)))


def test_a_file_that_says_nothing_fits_one_that_does(make_event_file):
    silent = make_event_file("a.h5", sample_rate_hz=None, arena_mm=None)
    events = open_events([silent, make_event_file("b.h5")])
    assert recording_setup(events, DataConfig()).sample_rate_hz == 125_000.0
