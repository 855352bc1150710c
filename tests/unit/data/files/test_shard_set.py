"""Folders of shards: complete, valid one by one, the same from any number of processes, verifiable."""

import json

import h5py
import numpy as np
import pytest
import scipy.io.wavfile
from hypothesis import given, settings
from hypothesis import strategies as st

from gerbil_tune.data.events import EventSet, open_events
from gerbil_tune.data.files.formats import open_event_file
from gerbil_tune.data.files.manifest import MANIFEST, read_manifest
from gerbil_tune.data.files.shard_set import Rendering, plan_shards, verify_checksums, write_shards
from gerbil_tune.data.sources import SourceSounds
from gerbil_tune.errors import ConfigError, DatasetError

SHARD_BYTES = 8000


@pytest.fixture
def events(make_event_file):
    paths = [
        make_event_file(
            "a.h5", keypoints=("nose", "tail"), groups=np.arange(12) // 3, dtype="int16"
        ),
        make_event_file("b.h5", keypoints=("nose", "tail"), dtype="int16", seed=1),
    ]
    return open_events(paths)


def assert_same_events(received: EventSet, expected: EventSet) -> None:
    assert len(received) == len(expected)
    np.testing.assert_array_equal(received.locations_mm, expected.locations_mm)
    for i in range(len(expected)):
        np.testing.assert_array_equal(received.read(i), expected.read(i))


def test_the_folder_is_the_set(events, tmp_path):
    advanced = []
    manifest = write_shards(
        events, tmp_path / "out", shard_bytes=SHARD_BYTES, advance=advanced.append
    )
    assert sum(advanced) == 24
    assert len(manifest.shards) > 5
    read = open_events(tmp_path / "out")
    assert [file.path.name for file in read.files] == [shard.name for shard in manifest.shards]
    assert_same_events(read, events)
    assert read.event_ids.tolist() == list(range(24))
    np.testing.assert_array_equal(read.groups, events.groups)
    assert {file.dtype.str for file in read.files} == {"<i2"}
    assert read_manifest(tmp_path / "out") == manifest
    stated = json.loads((tmp_path / "out" / MANIFEST).read_text())
    assert stated["num_events"] == 24
    assert stated["fingerprint"] == events.fingerprint()


def test_each_shard_is_a_valid_file_by_itself(events, tmp_path):
    manifest = write_shards(events, tmp_path / "out", shard_bytes=SHARD_BYTES)
    first = 0
    for path in manifest.paths:
        shard = open_event_file(path)
        assert shard.layout == "vocalocator"
        assert shard.storage == "contiguous"
        assert_same_events(
            EventSet([shard]), events.subset(np.arange(first, first + shard.num_events))
        )
        first += shard.num_events


@pytest.mark.slow
def test_processes_make_no_difference(events, tmp_path):
    for processes in (1, 2):
        write_shards(
            events, tmp_path / str(processes), shard_bytes=SHARD_BYTES, processes=processes
        )
    one, two = (read_manifest(tmp_path / name).shards for name in "12")
    assert [(s.name, s.checksum) for s in one] == [(s.name, s.checksum) for s in two]


@settings(deadline=None, max_examples=40)
@given(
    lengths=st.lists(st.integers(0, 50), min_size=1, max_size=30).filter(any),
    shard_bytes=st.integers(1, 20_000),
)
def test_plans_hold_each_event_once_and_no_empty_shard(lengths, shard_bytes):
    class Plain:
        num_microphones = 4

        def __init__(self):
            self.files = [type("File", (), {"dtype": np.dtype(np.int16)})]
            self.lengths = np.array(lengths)

        def __len__(self):
            return len(lengths)

    parts = plan_shards(Plain(), shard_bytes)
    assert np.concatenate(parts).tolist() == list(range(len(lengths)))
    assert all(len(part) for part in parts)


def test_an_interrupted_run_goes_on(events, tmp_path):
    def stop(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shards(events, tmp_path / "out", shard_bytes=SHARD_BYTES, advance=stop)
    (finished,) = (tmp_path / "out").iterdir()
    kept = finished.stat().st_mtime_ns
    write_shards(events, tmp_path / "out", shard_bytes=SHARD_BYTES)
    assert finished.stat().st_mtime_ns == kept
    assert_same_events(open_events(tmp_path / "out"), events)


def test_other_sizes_replace_the_shards(events, tmp_path):
    write_shards(events, tmp_path / "out", shard_bytes=SHARD_BYTES)
    manifest = write_shards(events, tmp_path / "out", shard_bytes=10**9)
    assert len(manifest.shards) == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        MANIFEST,
        "shard-00000.h5",
    ]
    assert_same_events(open_events(tmp_path / "out"), events)


def test_a_folder_of_other_shards_is_left_alone(events, tmp_path):
    write_shards(events, tmp_path / "out")
    with pytest.raises(ConfigError, match="shards of other data"):
        write_shards(events.subset([0, 1]), tmp_path / "out")
    assert_same_events(open_events(tmp_path / "out"), events)


@pytest.mark.parametrize("damage", ["audio", "locations", "swapped"])
def test_checksums_tell_what_was_damaged(events, tmp_path, damage):
    manifest = write_shards(events, tmp_path / "out", shard_bytes=SHARD_BYTES)
    assert verify_checksums(open_events(tmp_path / "out")) == []
    path = manifest.paths[1]
    if damage == "swapped":  # whole, valid, but another one
        other = tmp_path / "other"
        write_shards(events.subset(np.arange(24)[::-1]), other, shard_bytes=SHARD_BYTES)
        path.write_bytes((other / path.name).read_bytes())
        (tmp_path / "out" / MANIFEST).write_text(
            (tmp_path / "out" / MANIFEST)
            .read_text()
            .replace(str(manifest.shards[1].num_bytes), str(path.stat().st_size))
        )
    else:
        with h5py.File(path, "r+") as file:
            file[damage][0] = file[damage][1] + 1
    read, damaged = [], open_events(tmp_path / "out")
    (problem,) = verify_checksums(damaged, advance=read.append)
    assert str(path) in problem
    assert sum(read) == int(damaged.lengths.sum()) * 4 * 2


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_folder_that_was_not_copied_whole_is_refused(events, tmp_path, damage):
    manifest = write_shards(events, tmp_path / "out", shard_bytes=SHARD_BYTES)
    path = manifest.paths[-1]
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DatasetError, match=rf"{path.name}.*copy the folder of shards"):
        open_events(tmp_path / "out")


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"format": "gerbil_tune shards", "version": 99, "shards": []}']
)
def test_a_manifest_that_is_none_is_named(tmp_path, content):
    (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(DatasetError, match=r"manifest.json: is no manifest"):
        open_events(tmp_path)


def test_impulse_responses_become_recordings(make_event_file, tmp_path):
    wavs = tmp_path / "wavs"
    wavs.mkdir()
    generator = np.random.default_rng(0)
    for number in range(3):
        sound = generator.standard_normal(200 + 50 * number).astype(np.float32)
        scipy.io.wavfile.write(wavs / f"{number}.wav", 125_000, sound)
    responses = open_events(make_event_file(layout="rir", num_events=9))
    rendering = Rendering(wavs, 125_000.0, seed=3)
    for name, size in (("many", 5000), ("one", 10**9)):
        write_shards(responses, tmp_path / name, rendering=rendering, shard_bytes=size)
    many, one = open_events(tmp_path / "many"), open_events(tmp_path / "one")
    assert len(many.files) > 2
    assert_same_events(many, one)
    assert not many.is_impulse_response
    sounds = SourceSounds.open(wavs, 125_000.0)
    for place, audio in sounds.render_events(responses, 3):
        np.testing.assert_array_equal(many.read(place), audio)
    np.testing.assert_array_equal(many.locations_mm, responses.locations_mm)
