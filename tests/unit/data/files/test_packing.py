"""Audio that cannot be mapped is packed once, whatever happens meanwhile."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple

import h5py
import numpy as np
import pytest

from gerbil_tune.data.files import packing
from gerbil_tune.data.files.formats import open_event_file
from gerbil_tune.errors import DatasetError

GZIP = {"chunks": (100, 4), "compression": "gzip"}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("GERBIL_TUNE_CACHE_DIR", str(folder))
    return folder


def packed(cache):
    return sorted(path.name for path in (cache / "packed").iterdir() if path.suffix == ".h5")


def test_it_is_said_once_with_the_size(make_event_file, cache, capsys):
    path = make_event_file(audio_options=GZIP)
    first = open_event_file(path)
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert told.startswith("packing events.h5 (stored gzip, 0 MB) once into ")
    assert str(first.audio_path) in told
    second = open_event_file(path)
    assert not capsys.readouterr().err
    assert second.audio_path == first.audio_path
    assert first.audio_path.is_relative_to(cache)


def test_statistics_come_with_the_packed_copy(make_event_file, cache):
    file = open_event_file(make_event_file(audio_options=GZIP))
    for i in range(file.num_events):
        audio = file.read(i).astype(np.float64)
        np.testing.assert_allclose(file.mean_NC[i], audio.mean(0), rtol=1e-4)
        np.testing.assert_allclose(file.sd_NC[i], audio.std(0), rtol=1e-5)
    assert not (cache / "statistics").exists()


def test_a_changed_file_is_packed_again_a_moved_one_is_not(
    make_event_file, cache, tmp_path, capsys
):
    path = make_event_file(audio_options=GZIP)
    open_event_file(path)
    moved = shutil.move(path, tmp_path / "moved.h5")
    capsys.readouterr()
    np.testing.assert_array_equal(open_event_file(moved).read(0), open_event_file(moved).read(0))
    assert not capsys.readouterr().err
    assert len(packed(cache)) == 1
    with h5py.File(moved, "r+") as file:
        file["vocalizations"][0] = 123.0
    assert open_event_file(moved).read(0)[0].tolist() == [123.0] * 4
    assert len(packed(cache)) == 2


def test_a_packed_copy_that_was_cut_is_made_anew(make_event_file, cache, capsys):
    path = make_event_file(audio_options=GZIP)
    copy = open_event_file(path).audio_path
    whole = open_event_file(path).read(11).copy()
    copy.write_bytes(copy.read_bytes()[: copy.stat().st_size // 2])
    capsys.readouterr()
    np.testing.assert_array_equal(open_event_file(path).read(11), whole)
    assert "packing events.h5" in capsys.readouterr().err


def test_a_change_is_noticed_whatever_the_clock_of_the_file_says(make_event_file, cache):
    path = make_event_file(audio_options={"chunks": (100, 4)})
    open_event_file(path)
    before = path.stat()
    with h5py.File(path, "r+") as file:
        file["vocalizations"][0] = 123.0
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert open_event_file(path).read(0)[0].tolist() == [123.0] * 4


def test_an_interrupt_leaves_nothing(make_event_file, cache, monkeypatch):
    path = make_event_file(audio_options=GZIP)
    monkeypatch.setattr(packing, "_BLOCK_BYTES", 1)
    real, seen = packing._read_blocks, []

    def interrupted(*arguments):
        for block in real(*arguments):
            yield block
            seen.append(len(list((cache / "packed").glob(".*partial"))))
            if len(seen) == 3:
                raise KeyboardInterrupt

    monkeypatch.setattr(packing, "_read_blocks", interrupted)
    with pytest.raises(KeyboardInterrupt):
        open_event_file(path)
    assert seen == [1, 1, 1]
    assert [p.suffix for p in (cache / "packed").iterdir()] in ([], [".lock"])
    monkeypatch.undo()
    os.environ["GERBIL_TUNE_CACHE_DIR"] = str(cache)
    assert open_event_file(path).num_events == 12


OPEN = """
import sys, time
from pathlib import Path
from gerbil_tune.data.files import packing
from gerbil_tune.data.files.formats import open_event_file
delay = float(sys.argv[2])
real = packing._read_blocks
def slow(*arguments):
    for block in real(*arguments):
        time.sleep(delay)
        yield block
packing._read_blocks = slow
packing._BLOCK_BYTES = 1
print("ready", flush=True)
sys.stdin.readline()
print(open_event_file(Path(sys.argv[1])).audio().sum())
"""


def opener(path, delay):
    return subprocess.Popen(
        [sys.executable, "-c", OPEN, str(path), str(delay)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_of_two_processes_one_packs_and_the_other_waits(make_event_file, cache):
    path = make_event_file(audio_options=GZIP)
    processes = [opener(path, 0.02) for _ in range(2)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    ends = [process.communicate(timeout=60) for process in processes]
    assert ends[0][0] == ends[1][0] != ""
    told = "".join(err for _, err in ends)
    assert told.count("packing events.h5 (stored") == 1
    assert told.count("waiting for another process that packs events.h5") == 1
    assert len(packed(cache)) == 1


@pytest.mark.slow
def test_what_a_killed_process_left_is_removed(make_event_file, cache):
    path = make_event_file(audio_options=GZIP)
    with opener(path, 0.2) as process:
        process.stdin.write("go\n")
        process.stdin.flush()
        while not list(cache.glob("packed/.*.partial")):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert list(cache.glob("packed/.*.partial"))
    assert not packed(cache)
    assert open_event_file(path).num_events == 12
    assert not list(cache.glob("packed/.*.partial"))
    assert len(packed(cache)) == 1


def test_a_full_disk_is_told_before_anything_is_written(make_event_file, cache, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(packing.shutil, "disk_usage", lambda _: usage(10, 10, 0))
    with pytest.raises(DatasetError, match=r"GB left; choose another place with --cache-dir"):
        open_event_file(make_event_file(audio_options=GZIP))
    assert not packed(cache)


def test_a_cache_that_cannot_be_used_is_named(make_event_file, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("GERBIL_TUNE_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(DatasetError, match=r"cache cannot be used.*--cache-dir"):
        open_event_file(make_event_file(audio_options=GZIP))


def test_a_damaged_chunk_is_named(make_event_file, cache):
    path = make_event_file(audio_options=GZIP)
    with h5py.File(path) as file:
        place = file["vocalizations"].id.get_chunk_info(3).byte_offset
    content = bytearray(path.read_bytes())
    content[place : place + 40] = bytes(40)
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"events.h5.*damaged.*cannot be read to its end"):
        open_event_file(path)
    assert not packed(cache)


def test_statistics_of_an_ordinary_file_are_shared_through_the_cache(make_event_file, cache):
    path = make_event_file()
    first = open_event_file(path).statistics().get(np.array([3, 1]))
    (table,) = (cache / "statistics").iterdir()
    stored = np.fromfile(table, "<f4").reshape(12, 2, 4)
    np.testing.assert_array_equal(stored[[3, 1]], first)
    assert np.isnan(stored[0]).all()
    stored[3] = 7.0
    stored.tofile(table)
    assert (open_event_file(path).statistics().get(np.array([3])) == 7.0).all()


def test_statistics_without_a_cache_are_kept_in_memory(make_event_file, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("GERBIL_TUNE_CACHE_DIR", str(tmp_path / "file"))
    file = open_event_file(make_event_file())
    found = file.statistics().get(np.array([0]))
    np.testing.assert_allclose(found[0, 1], file.read(0).std(0), rtol=1e-5)
