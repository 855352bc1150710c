"""Folders of shards: complete, valid one by one, the same from any number of processes, verifiable."""

import json
import subprocess
import sys
import time
from pathlib import Path

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
    with pytest.raises(
        DatasetError, match=r"not all written.*run the gerbil-tune data shard command again"
    ):
        open_events(tmp_path / "out")
    (finished,) = (tmp_path / "out").glob("*.h5")
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


@pytest.mark.parametrize("damage", ["flipped", "cut", "other"])
def test_the_same_command_mends_damaged_shards(events, tmp_path, damage):
    manifest = write_shards(events, tmp_path / "out", shard_bytes=SHARD_BYTES)
    path = manifest.paths[1]
    if damage == "flipped":
        with h5py.File(path, "r+") as file:
            file["audio"][-1] += 1
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        path.write_bytes(manifest.paths[2].read_bytes())
    write_shards(events, tmp_path / "out", shard_bytes=SHARD_BYTES)
    assert_same_events(open_events(tmp_path / "out"), events)
    assert verify_checksums(open_events(tmp_path / "out")) == []


def test_files_of_others_are_left_alone(events, make_event_file, tmp_path):
    theirs = make_event_file("theirs/shard-00007.h5")
    content = theirs.read_bytes()
    with pytest.raises(ConfigError, match=r"shard-00007.h5: is there already"):
        write_shards(events, theirs.parent)
    with pytest.raises(ConfigError, match="holds the events to be sharded"):
        write_shards(open_events(theirs), theirs.parent)
    assert [path.name for path in theirs.parent.iterdir()] == ["shard-00007.h5"]
    assert theirs.read_bytes() == content


def test_a_folder_that_cannot_be_written_is_named(events, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"file: cannot be written"):
        write_shards(events, tmp_path / "file")
    (tmp_path / "out" / "shard-00000.h5").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"shard-00000.h5"):
        write_shards(events, tmp_path / "out")


def test_other_sounds_are_other_shards(make_event_file, tmp_path):
    responses = open_events(make_event_file(layout="rir", num_events=3))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        sound = np.random.default_rng(len(name)).standard_normal(200 + ord(name)).astype(np.float32)
        scipy.io.wavfile.write(tmp_path / name / "1.wav", 125_000, sound)
    first = Rendering(tmp_path / "a", 125_000.0, seed=3)
    write_shards(responses, tmp_path / "out", rendering=first)
    kept = (tmp_path / "out" / "shard-00000.h5").stat().st_mtime_ns
    write_shards(responses, tmp_path / "out", rendering=first)
    assert (tmp_path / "out" / "shard-00000.h5").stat().st_mtime_ns == kept
    with pytest.raises(ConfigError, match="shards of other data"):
        write_shards(responses, tmp_path / "out", rendering=Rendering(tmp_path / "b", 125_000.0, 3))


WRITE = """
import sys
from pathlib import Path
from gerbil_tune.data.events import open_events
from gerbil_tune.data.files.shard_set import write_shards
if __name__ == "__main__":
    write_shards(
        open_events(Path(sys.argv[1])), Path(sys.argv[2]), shard_bytes=8000, processes=2,
        advance=lambda _: (print("one", flush=True), sys.stdin.readline()),
    )
"""


@pytest.mark.slow
def test_workers_end_with_a_killed_parent(make_event_file, tmp_path):
    script = tmp_path / "write.py"
    script.write_text(WRITE)
    command = [
        sys.executable,
        str(script),
        str(make_event_file(num_events=40)),
        str(tmp_path / "out"),
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"one\n"
        workers = [int(pid) for pid in children_of(process.pid)]
        assert len(workers) >= 2
        process.kill()
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]


def children_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
