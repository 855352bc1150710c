"""A file of features is whole or not there, whatever happens to the processes that make it."""

import subprocess
import sys
import time

import filelock
import numpy as np
import pytest

from gerbil_tune.training.feature_file import make_feature_file, open_feature_file

SHAPE = (10, 7)
ROWS = np.arange(70, dtype=np.float32).reshape(SHAPE)

MAKE = """
import sys, time
from pathlib import Path
import numpy as np
from gerbil_tune.training.feature_file import make_feature_file

rows = np.arange(70, dtype=np.float32).reshape(10, 7)

def blocks():
    for first in range(0, 10, 2):
        print("block", flush=True)
        time.sleep(float(sys.argv[2]))
        yield rows[first : first + 2]

print("ready", flush=True)
sys.stdin.readline()
found = make_feature_file(Path(sys.argv[1]), rows.shape, blocks(), lambda: False)
print("same" if np.array_equal(found, rows) else "other", flush=True)
"""


def never():
    return False


def blocks():
    return iter(np.split(ROWS, 5))


def start(path, delay_s):
    process = subprocess.Popen(
        [sys.executable, "-c", MAKE, str(path), str(delay_s)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def go(process):
    process.stdin.write("go\n")
    process.stdin.flush()


def test_what_is_made_can_be_opened(tmp_path):
    path = tmp_path / "new folder" / "features.npy"
    assert open_feature_file(path, SHAPE) is None
    np.testing.assert_array_equal(make_feature_file(path, SHAPE, blocks(), never), ROWS)
    np.testing.assert_array_equal(open_feature_file(path, SHAPE), ROWS)
    assert {entry.suffix for entry in path.parent.iterdir()} <= {".npy", ".lock"}


def test_a_whole_file_is_not_made_again(tmp_path):
    path = tmp_path / "features.npy"
    make_feature_file(path, SHAPE, blocks(), never)
    untouched = blocks()
    np.testing.assert_array_equal(make_feature_file(path, SHAPE, untouched, never), ROWS)
    assert len(list(untouched)) == 5


def test_the_file_is_safe_from_those_who_map_it(tmp_path):
    path = tmp_path / "features.npy"
    rows_NR = make_feature_file(path, SHAPE, blocks(), never)
    rows_NR[:] = -1
    np.testing.assert_array_equal(open_feature_file(path, SHAPE), ROWS)


def cut(path):
    path.write_bytes(path.read_bytes()[:-30])


def lengthen(path):
    path.write_bytes(path.read_bytes() + b"more")


def empty(path):
    path.write_bytes(b"")


def change_one_bit(path):
    content = bytearray(path.read_bytes())
    content[-40] ^= 1
    path.write_bytes(content)


def forget_the_header(path):
    path.write_bytes(b"PK" + path.read_bytes()[2:])


@pytest.mark.parametrize("damage", [cut, lengthen, empty, change_one_bit, forget_the_header])
def test_a_damaged_file_is_made_anew(tmp_path, damage):
    path = tmp_path / "features.npy"
    make_feature_file(path, SHAPE, blocks(), never)
    damage(path)
    assert open_feature_file(path, SHAPE) is None
    np.testing.assert_array_equal(make_feature_file(path, SHAPE, blocks(), never), ROWS)
    np.testing.assert_array_equal(open_feature_file(path, SHAPE), ROWS)


def test_a_file_of_another_shape_is_none(tmp_path):
    path = tmp_path / "features.npy"
    make_feature_file(path, SHAPE, blocks(), never)
    assert open_feature_file(path, (7, 10)) is None


def test_no_events_have_a_file_too(tmp_path):
    path = tmp_path / "features.npy"
    assert make_feature_file(path, (0, 7), iter(()), never).shape == (0, 7)
    assert open_feature_file(path, (0, 7)).shape == (0, 7)


def test_asked_to_stop_while_it_makes_a_run_leaves_nothing(tmp_path):
    path = tmp_path / "features.npy"
    answers = iter([False, False, True])
    assert make_feature_file(path, SHAPE, blocks(), lambda: next(answers)) is None
    assert [entry.suffix for entry in tmp_path.iterdir()] in ([], [".lock"])
    assert make_feature_file(path, SHAPE, blocks(), never) is not None


def test_asked_to_stop_while_another_makes_it_a_run_does_not_wait(tmp_path):
    path = tmp_path / "features.npy"
    with filelock.FileLock(path.with_suffix(".lock")):
        untouched = blocks()
        assert make_feature_file(path, SHAPE, untouched, lambda: True) is None
    assert len(list(untouched)) == 5


def test_a_disk_that_is_full_is_an_error_before_anything_is_written(tmp_path):
    path = tmp_path / "features.npy"
    with pytest.raises(OSError, match="No space left"):
        make_feature_file(path, (10**12, 7), blocks(), never)
    assert not list(tmp_path.glob("*.npy"))


def test_of_two_processes_one_makes_it_and_the_other_waits(tmp_path):
    path = tmp_path / "features.npy"
    processes = [start(path, 0.05) for _ in range(2)]
    for process in processes:
        go(process)
    told = sorted(process.communicate()[0].split() for process in processes)
    assert told == sorted([["block"] * 5 + ["same"], ["same"]])
    assert [process.returncode for process in processes] == [0, 0]


def test_after_one_that_was_killed_half_way_the_next_makes_it(tmp_path):
    path = tmp_path / "features.npy"
    killed, waiting = start(path, 0.2), start(path, 0.0)
    go(killed)
    for _ in range(3):
        assert killed.stdout.readline() == "block\n"
    go(waiting)
    time.sleep(0.1)
    killed.kill()
    killed.communicate()
    assert waiting.communicate()[0].split() == ["block"] * 5 + ["same"]
    assert {entry.suffix for entry in tmp_path.iterdir()} <= {".npy", ".lock"}
    np.testing.assert_array_equal(open_feature_file(path, SHAPE), ROWS)
