import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gerbil_tune.data.files.index_files import read_indices, write_indices
from gerbil_tune.errors import ConfigError, DatasetError


@given(st.lists(st.integers(0, 99), min_size=1, unique=True))
def test_what_is_written_is_read(tmp_path_factory, places):
    path = tmp_path_factory.mktemp("index") / "new" / "some.npy"
    write_indices(path, places)
    assert read_indices(path, 100).tolist() == places
    assert read_indices(path, 100).dtype == np.int64
    assert [file.name for file in path.parent.iterdir()] == ["some.npy"]


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.uint16, np.uint64, ">i4"])
def test_any_integers_will_do(tmp_path, dtype):
    np.save(tmp_path / "a.npy", np.array([3, 0, 4], dtype=dtype))
    assert read_indices(tmp_path / "a.npy", 5).tolist() == [3, 0, 4]


def test_a_mask_is_the_places_where_it_is_true(tmp_path):
    np.save(tmp_path / "a.npy", np.array([True, False, True]))
    assert read_indices(tmp_path / "a.npy", 3).tolist() == [0, 2]


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ([], "a 1-D array of integers that is not empty"),
        (np.zeros(0, dtype=bool), "not empty"),
        ([[1, 2]], r"of shape \(1, 2\)"),
        (3, r"of shape \(\)"),
        ([0.0, 1.0], "is float64"),
        (["a"], "is <U1"),
        ([0, 5], "names events 0 to 5, but the data has 5 events, 0 to 4"),
        ([-1], "names events -1 to -1"),
        (np.array([2**64 - 1], dtype=np.uint64), "names events 18446744073709551615"),
        ([1, 2, 1, 2, 2], r"names event 1 twice \(3 of 5 entries are repeated\)"),
        ([True, False], "a mask of 2 events, but the data has 5"),
        ([False] * 5, "a mask that takes no event"),
    ],
)
def test_what_is_no_choice_of_five_events(tmp_path, stored, message):
    np.save(tmp_path / "a.npy", np.array(stored))
    with pytest.raises(DatasetError, match=rf"a\.npy: .*{message}"):
        read_indices(tmp_path / "a.npy", 5)


def test_what_is_no_array(tmp_path):
    path = tmp_path / "a.npy"
    with pytest.raises(DatasetError, match=r"a\.npy: does not exist"):
        read_indices(path, 5)
    for content in (b"0 1 2", b"", b"\x80\x04N."):
        path.write_bytes(content)
        with pytest.raises(DatasetError, match=r"but is no \.npy file; write it with numpy\.save$"):
            read_indices(path, 5)
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DatasetError, match="or holds Python objects") as told:
        read_indices(path, 5)
    assert "unsafe" not in str(told.value)
    np.save(path, np.arange(3))
    for size in (7, 60, 140):
        path.write_bytes(path.read_bytes()[:size])
        with pytest.raises(DatasetError, match="cut short, damaged"):
            read_indices(path, 5)
        np.save(path, np.arange(3))
    with path.open("wb") as stream:
        np.savez(stream, a=np.arange(3))
    with pytest.raises(DatasetError, match="is an archive of several"):
        read_indices(path, 5)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        write_indices(tmp_path / "file" / "a.npy", [1])
