import os
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from operator import methodcaller

import h5py
import numpy as np
import pytest

from gerbil_tune.data.files.formats import EventFile, open_event_file
from gerbil_tune.errors import DatasetError


def edit(path, name, values):
    """Replace a dataset of a file; None deletes it."""
    with h5py.File(path, "r+") as file:
        if name in file:
            del file[name]
        if values is not None:
            file[name] = values
    return path


@pytest.mark.parametrize("layout", ["gerbilizer", "vocalocator"])
@pytest.mark.parametrize("dtype", ["int16", "float32", "float64", ">i2"])
def test_both_layouts_read_what_h5py_reads(make_event_file, layout, dtype):
    path = make_event_file(layout=layout, dtype=dtype, num_microphones=3)
    opened = open_event_file(path)
    audio_name = {"gerbilizer": "vocalizations", "vocalocator": "audio"}[layout]
    with h5py.File(path) as file:
        whole, locations = file[audio_name][:], file["locations"][:]
    assert (opened.layout, opened.num_microphones, opened.dtype) == (layout, 3, np.dtype(dtype))
    assert not opened.audio().flags.writeable
    np.testing.assert_array_equal(opened.audio(), whole)
    for i in range(opened.num_events):
        event = whole[opened.starts[i] : opened.starts[i + 1]]
        np.testing.assert_array_equal(opened.read(i), event)
        np.testing.assert_array_equal(opened.read(i, 10, 50), event[10:50])
        np.testing.assert_array_equal(opened.read(i, 10, 10**6), event[10:])
    assert opened.locations_mm.dtype == np.float32
    np.testing.assert_allclose(opened.locations_mm[:, 0], locations, rtol=1e-6)


def test_audio_is_read_only_and_not_copied(make_event_file):
    opened = open_event_file(make_event_file())
    event = opened.read(3)
    assert np.shares_memory(event, opened.audio())
    with pytest.raises(ValueError, match="read-only"):
        event[0] = 0


def test_a_user_block_before_the_hdf5_data_moves_the_offset(make_event_file):
    plain = open_event_file(make_event_file("plain.h5"))
    shifted = open_event_file(make_event_file("shifted.h5", file_options={"userblock_size": 1024}))
    np.testing.assert_array_equal(shifted.audio(), plain.audio())


@pytest.mark.parametrize(
    ("options", "shape", "keypoints"),
    [
        ({}, (12, 1, 2), ("nose",)),
        ({"num_axes": 3}, (12, 1, 3), ("nose",)),
        ({"keypoints": ["Nose", "Head"], "num_axes": 3}, (12, 2, 3), ("Nose", "Head")),
        ({"locations": np.zeros((12, 3, 2))}, (12, 3, 2), tuple(f"keypoint_{k}" for k in range(3))),
        ({"locations": None}, None, ()),
        ({"locations": None, "keypoints": ["Nose"]}, None, ("Nose",)),
    ],
)
def test_locations_and_keypoint_names(make_event_file, options, shape, keypoints):
    opened = open_event_file(make_event_file(**options))
    assert (opened.locations_mm is None) == (shape is None)
    if shape is not None:
        assert opened.locations_mm.shape == shape
    assert opened.keypoints == keypoints


def test_attributes_and_groups(make_event_file):
    microphones = [[1.0, 2.0, 3.0], [-1.0, 2.0, 3.0]]
    path = make_event_file(
        num_microphones=2,
        microphones_mm=microphones,
        groups=np.arange(12, dtype=np.uint16) // 4,
        group_dataset="session_ids",
        attributes={"origin": "arena centre, floor"},
    )
    opened = open_event_file(path)
    assert opened.sample_rate_hz == 125_000.0
    assert opened.arena_mm == (572.0, 356.0)
    assert opened.microphones_mm == ((1.0, 2.0, 3.0), (-1.0, 2.0, 3.0))
    assert opened.groups.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]
    assert not opened.states_units


@pytest.mark.parametrize(("unit", "factor"), [("mm", 1), ("cm", 10), ("m", 1000)])
def test_a_stated_unit_of_the_locations_is_converted(make_event_file, unit, factor):
    stored = np.random.default_rng(0).uniform(-0.1, 0.1, (12, 2))
    opened = open_event_file(make_event_file(locations=stored, attributes={"units": unit}))
    np.testing.assert_allclose(opened.locations_mm[:, 0], stored * factor, rtol=1e-6)
    assert opened.states_units


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("len_idx", None, "'len_idx' is missing"),
        ("len_idx", np.array([0.0, 5.0]), "1-D dataset of integers"),
        ("len_idx", np.array([[0, 5]]), "1-D dataset of integers"),
        ("len_idx", np.array([0]), "no event in the file"),
        ("len_idx", np.array([0, 300, 200]), "from 300 to 200 at entry 2"),
        ("len_idx", np.array([-1, 300]), "goes from -1 to 300"),
        ("len_idx", np.array([0, 10**9]), "must stay within"),
        ("len_idx", np.arange(12), "12 entries, but the index has 11 events"),
        ("locations", np.zeros((12, 4)), "2 or 3 axes"),
        ("locations", np.zeros((12, 2, 2, 2)), "the mean over the video frames"),
        ("locations", np.zeros((11, 2)), "11 entries, but the index has 12 events"),
        ("locations", np.array([b"a"] * 12), "dataset of numbers"),
        ("node_names", np.array([b"a", b"b"]), "2 names, but 'locations' has 1"),
        ("node_names", np.array([b"a", b"a"]), "names a keypoint twice"),
        ("group_ids", np.zeros(11, dtype=int), "one integer an event"),
        ("session_ids", np.zeros(12), "one integer an event"),
        ("vocalizations", None, "needs the datasets 'vocalizations' with 'len_idx' or 'audio'"),
        ("vocalizations", np.zeros((12, 4, 100)), "and an index beside it"),
        ("vocalizations", np.zeros(100), "one column a microphone"),
        ("vocalizations", np.zeros((0, 4)), "no audio in it"),
        ("vocalizations", np.zeros((9000, 4), dtype=complex), "signed integers or floats"),
        ("vocalizations/inner", np.zeros(3), "is a group"),
        ("audio", np.zeros((9000, 4)), "several layouts"),
    ],
)
def test_wrong_structure_is_told_in_one_sentence(make_event_file, name, values, message):
    path = make_event_file()
    if name == "vocalizations/inner":
        edit(path, "vocalizations", None)
    edit(path, name, values)
    with pytest.raises(DatasetError, match=message) as caught:
        open_event_file(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_audio_of_two_layouts_is_refused(make_event_file):
    path = edit(make_event_file(), "rir", np.zeros((10, 4)))
    with pytest.raises(DatasetError, match=r"'vocalizations' and 'rir'.*must have one"):
        open_event_file(path)


def test_audio_outside_the_file_says_how_to_rewrite_it(make_event_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = make_event_file(audio_options={"external": [("outside.raw", 0, h5py.h5f.UNLIMITED)]})
    with pytest.raises(DatasetError, match=r"other files.*h5repack -l CONTI -f NONE events.h5"):
        open_event_file(path)


def test_audio_behind_a_link_to_another_file_is_refused(make_event_file):
    other = make_event_file("other.h5", seed=1)
    path = edit(make_event_file(), "vocalizations", None)
    with h5py.File(path, "a") as file:
        file["vocalizations"] = h5py.ExternalLink(str(other), "vocalizations")
        file["padding"] = np.zeros(100_000)
    with pytest.raises(DatasetError, match="lies in other files"):
        open_event_file(path)


@pytest.mark.parametrize("dtype", ["int32", ">i4", "uint16", "uint64", "int64"])
def test_indices_of_any_integer_type(make_event_file, dtype):
    path = make_event_file(lengths=[20, 30])
    edit(path, "len_idx", np.array([0, 20, 50], dtype=dtype))
    assert open_event_file(path).starts.tolist() == [0, 20, 50]


def test_an_index_beyond_all_numbers_is_shown_as_a_large_one(make_event_file):
    path = edit(make_event_file(), "len_idx", np.array([0, 2**64 - 1], dtype=np.uint64))
    with pytest.raises(DatasetError, match=r"goes from 0 to 9223372036854775807, but must stay"):
        open_event_file(path)


def test_audio_that_was_never_written_is_refused(make_event_file):
    path = edit(make_event_file(lengths=[5, 5]), "vocalizations", None)
    with h5py.File(path, "a") as file:
        file.create_dataset("vocalizations", (10, 4), np.float32)
    with pytest.raises(DatasetError, match="never written"):
        open_event_file(path)


def test_a_file_cut_short_while_it_is_used_is_noticed(make_event_file):
    path = make_event_file()
    file = open_event_file(path)
    file.audio()
    with path.open("r+b") as stream:
        stream.truncate(file.end_bytes - 1)
    with pytest.raises(DatasetError, match="has become shorter"):
        file.check_unchanged()
    path.unlink()
    with pytest.raises(DatasetError, match="leave the files in place"):
        file.check_unchanged()


def test_files_that_are_no_hdf5(tmp_path, make_event_file):
    empty, text = tmp_path / "empty.h5", tmp_path / "text.h5"
    empty.touch()
    text.write_text("not HDF5")
    whole = make_event_file()
    cut = tmp_path / "cut.h5"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    for path, message in [
        (tmp_path / "none.h5", "does not exist"),
        (tmp_path, "is a folder"),
        (empty, "0 bytes"),
        (text, "cannot be opened as HDF5"),
        (cut, "cannot be opened as HDF5"),
    ]:
        with pytest.raises(DatasetError, match=message):
            open_event_file(path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("sample_rate_hz", -1.0, "one positive number, but is"),
        ("sample_rate_hz", "fast", "one positive number, but is"),
        ("arena_mm", [572.0], "2 or 3 positive widths"),
        ("arena_mm", [572.0, np.nan], "2 or 3 positive widths"),
        ("microphones_mm", np.zeros((3, 3)), "4 rows of x, y and z"),
        ("units", "inch", "'inch' is unknown; valid: mm, cm, m"),
        ("units", 3, "must be text"),
        ("origin", "corner", "subtract half the arena"),
    ],
)
def test_wrong_attributes(make_event_file, name, value, message):
    path = make_event_file(attributes={name: value})
    with pytest.raises(DatasetError, match=message):
        open_event_file(path)


def test_fingerprint_follows_content_not_name_or_layout(make_event_file):
    original = open_event_file(make_event_file("a.h5")).fingerprint()
    assert len(original) == 32
    assert open_event_file(make_event_file("b.h5", layout="vocalocator")).fingerprint() == original
    changed = [
        {"seed": 1},
        {"dtype": "float64"},
        {"locations": np.zeros((12, 2))},
        {"locations": None},
        {"lengths": [400] * 12},
    ]
    prints = {
        open_event_file(make_event_file("c.h5", **options)).fingerprint() for options in changed
    }
    assert len(prints | {original}) == len(changed) + 1


def test_pickle_leaves_the_audio_out(make_event_file):
    opened = open_event_file(make_event_file(lengths=[5000] * 12))
    opened.audio()
    stored = pickle.dumps(opened)
    assert len(stored) < 5000
    restored = pickle.loads(stored)
    np.testing.assert_array_equal(restored.read(11), opened.read(11))
    np.testing.assert_array_equal(restored.starts, opened.starts)


def test_a_spawned_process_maps_the_file_anew(make_event_file):
    opened = open_event_file(make_event_file())
    opened.audio()
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        event = pool.submit(methodcaller("read", 5, 10), opened).result()
        fingerprint = pool.submit(EventFile.fingerprint, opened).result()
    np.testing.assert_array_equal(event, opened.read(5, 10))
    assert fingerprint == opened.fingerprint()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("mapped_before", [True, False])
def test_a_forked_process_reads_the_same(make_event_file, mapped_before):
    opened = open_event_file(make_event_file())
    expected = int(np.asarray(open_event_file(opened.path).read(7)).astype(np.int64).sum()) % 251
    if mapped_before:
        opened.audio()
    child = os.fork()
    if child == 0:
        os._exit(int(np.asarray(opened.read(7)).astype(np.int64).sum()) % 251)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == expected
    np.testing.assert_array_equal(
        opened.read(7), opened.audio()[opened.starts[7] : opened.starts[8]]
    )


def test_a_file_that_shrank_after_opening_is_told(make_event_file):
    opened = open_event_file(make_event_file())
    opened.path.write_bytes(b"short")
    with pytest.raises(DatasetError, match="cannot be mapped any more"):
        opened.audio()
