"""Files that this package writes: whole, valid and what was asked for."""

import h5py
import numpy as np
import pytest

from gerbil_tune.data.events import open_events
from gerbil_tune.data.files.formats import open_event_file
from gerbil_tune.data.files.writer import (
    EventFileWriter,
    Header,
    content_checksum,
    write_events,
)


@pytest.fixture
def events(make_event_file):
    paths = [
        make_event_file(
            "a.h5", keypoints=("nose", "tail"), groups=np.arange(12) // 3, dtype="int16"
        ),
        make_event_file(
            "b.h5", keypoints=("nose", "tail"), dtype="int16", layout="vocalocator", seed=1
        ),
    ]
    return open_events(paths)


def test_the_events_of_a_set_in_its_order(events, tmp_path):
    chosen = events.subset([20, 3, 0, 13])
    advanced = []
    path = write_events(tmp_path / "new" / "out.h5", chosen, advance=advanced.append)
    written = open_events(path)
    assert sum(advanced) == len(written) == 4
    assert written.files[0].layout == "vocalocator"
    assert written.files[0].dtype == "int16"
    assert written.keypoints == ("nose", "tail")
    assert written.event_ids.tolist() == [20, 3, 0, 13]
    assert written.groups.tolist() == chosen.groups.tolist()
    assert written.files[0].arena_mm == (572.0, 356.0)
    np.testing.assert_array_equal(written.locations_mm, chosen.locations_mm)
    for i in range(4):
        np.testing.assert_array_equal(written.read(i), chosen.read(i))
        audio = chosen.read(i).astype(np.float64)
        np.testing.assert_allclose(written.files[0].mean_NC[i], audio.mean(0), rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(written.files[0].sd_NC[i], audio.std(0), rtol=1e-5)
    assert [entry.name for entry in path.parent.iterdir()] == ["out.h5"]


def test_ids_and_groups_survive_a_second_writing(events, tmp_path):
    first = open_events(write_events(tmp_path / "1.h5", events.subset([20, 3, 0])))
    second = open_events(write_events(tmp_path / "2.h5", first.subset([2, 0])))
    assert second.event_ids.tolist() == [0, 20]


def test_vocalocators_own_way_of_reading(events, tmp_path):
    """As its dataset class does: index entries, a slice of ``audio``, keypoints by ``node_names``."""
    path = write_events(tmp_path / "out.h5", events)
    with h5py.File(path) as file:
        start, stop = file["length_idx"][7:9]
        np.testing.assert_array_equal(file["audio"][start:stop], events.read(7))
        names = [name.decode() for name in file["node_names"]]
        np.testing.assert_array_equal(
            file["locations"][7][names.index("tail")], events.locations_mm[7, 1]
        )
        assert file["audio"].chunks is None


def test_integers_of_two_sizes_keep_their_full_scale(make_event_file, tmp_path):
    audio = np.array([[2**14], [-(2**15)]])
    paths = [
        make_event_file("a.h5", audio=audio, dtype="int16", lengths=[2], num_microphones=1),
        make_event_file("b.h5", audio=audio, dtype="int32", lengths=[2], num_microphones=1),
    ]
    written = open_events(write_events(tmp_path / "out.h5", open_events(paths)))
    assert written.read(0).ravel().tolist() == [2**30, -(2**31)]
    assert written.read(1).ravel().tolist() == [2**14, -(2**15)]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_on_the_way_leaves_nothing(events, tmp_path, error):
    def stop(_):
        raise error

    (tmp_path / "out").mkdir()
    with pytest.raises(error):
        write_events(tmp_path / "out" / "new.h5", events, advance=stop)
    assert not list((tmp_path / "out").iterdir())


def test_missing_samples_are_noticed(events, tmp_path):
    (tmp_path / "out").mkdir()
    with (
        pytest.raises(ValueError, match="samples written"),
        EventFileWriter(tmp_path / "out" / "new.h5", Header.of_events(events)) as writer,
    ):
        writer.append(events.read(0))
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("name", ["audio", "length_idx", "locations"])
def test_the_checksum_notices_one_changed_value(events, tmp_path, name):
    path = write_events(tmp_path / "out.h5", events)
    file = open_event_file(path)
    assert content_checksum(file) == file.stated_checksum
    with h5py.File(path, "r+") as opened:
        if name == "locations":
            opened[name][5, 0, 0] += 1.0
        else:
            opened[name][5] += 1
    assert content_checksum(open_event_file(path)) != file.stated_checksum


def test_events_larger_than_a_block(make_event_file, tmp_path, monkeypatch):
    monkeypatch.setattr("gerbil_tune.data.files.writer._BLOCK_SAMPLES", 100)
    events = open_events(make_event_file(lengths=[250, 0, 30, 1000]))
    written = open_events(write_events(tmp_path / "out.h5", events))
    assert written.lengths.tolist() == [250, 0, 30, 1000]
    for i in (0, 2, 3):
        np.testing.assert_allclose(written.files[0].sd_NC[i], events.read(i).std(0), rtol=1e-5)
    assert content_checksum(written.files[0]) == written.files[0].stated_checksum
