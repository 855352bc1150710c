"""Batch predictions that are killed, or run out of disk, and go on."""

import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest

from tests.faults.bystanders import small_disk
from tests.faults.harness import FAULTS, Fault
from tests.integration.command_line import clean_environment, command

NUM_EVENTS = 9_000
KILLS = 10
TIMEOUT_S = 180.0

pytestmark = [pytest.mark.exhaustive, pytest.mark.ray]


@pytest.fixture
def words(make_bundle: Callable[..., Path], make_event_file: Callable[..., Path]) -> list[str]:
    """A prediction of two files, without the output."""
    files = [
        make_event_file(f"{number}.h5", num_events=NUM_EVENTS // 2, lengths=(400, 900), seed=number)
        for number in range(2)
    ]
    data = [word for file in files for word in ("--data", str(file))]
    return command("predict", "--model", str(make_bundle()), *data)


def datasets(folder: Path) -> dict[str, bytes]:
    """Content of every dataset of all files of predictions in a folder."""
    found = {}
    for path in sorted(folder.glob("*.predictions.h5")):
        with h5py.File(path) as file:
            found |= {f"{path.name}/{name}": values[()].tobytes() for name, values in file.items()}
    return found


def predict(words: list[str], *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*words, *more], env=clean_environment(), capture_output=True, text=True, check=False
    )


def note(fault: str, lost: str) -> None:
    """Put it into the table at the end."""
    FAULTS.append(Fault(fault, "prediction", lost, "-", "-", "same bytes"))


def num_parts(out: Path) -> int:
    return len(list(out.glob(".*.parts/*.safetensors")))


def wait_for_more_parts(out: Path, running: subprocess.Popen[bytes]) -> None:
    """Wait until a prediction has kept something that was not there before, or is over."""
    before, deadline = num_parts(out), time.monotonic() + TIMEOUT_S
    while num_parts(out) <= before and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)


@pytest.mark.parametrize("workers", ["0", "2"])
def test_killed_at_random_moments_it_ends_with_the_same_bytes(
    words: list[str], tmp_path: Path, workers: str
) -> None:
    out, generator = tmp_path / "out", random.Random(workers)
    begin = time.monotonic()
    done = predict(words, "-o", str(tmp_path / "whole"), "--workers", workers)
    assert done.returncode == 0, done.stderr
    usual_s = time.monotonic() - begin
    expected = datasets(tmp_path / "whole")

    resumed, kills = 0, KILLS if workers == "0" else KILLS // 2
    for _ in range(kills):
        running = subprocess.Popen(
            [*words, "-o", str(out), "--workers", workers],
            env=clean_environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        if workers == "0":
            time.sleep(generator.uniform(0.3, 1.0) * usual_s)
        else:  # which works for the shortest part of its time: Ray starts first
            wait_for_more_parts(out, running)
            time.sleep(generator.uniform(0.0, 0.2))
        running.send_signal(signal.SIGKILL)
        running.wait()
        resumed = max(resumed, num_parts(out))
    done = predict(words, "-o", str(out), "--workers", workers)
    assert done.returncode == 0, done.stderr
    assert datasets(out) == expected
    assert sorted(path.name for path in out.iterdir()) == ["0.predictions.h5", "1.predictions.h5"]
    name = "driver" if workers == "0" else "driver of a pool"
    note(f"{name} killed {kills} times", f"what came after the newest of {resumed} parts")


def test_a_full_disk_keeps_what_is_written(words: list[str], tmp_path: Path) -> None:
    done = predict(words, "-o", str(tmp_path / "whole"), "--workers", "0")
    assert done.returncode == 0, done.stderr
    disk = tmp_path / "disk"
    with small_disk(disk, megabytes=2):
        filler = disk / "filler"
        filler.write_bytes(bytes(1_800_000))
        full = predict(words, "-o", str(disk / "out"), "--workers", "0")
        assert full.returncode == 1
        assert "Traceback" not in full.stderr
        assert "No space left on device" in full.stderr
        assert "the same command goes on once there is room" in full.stderr
        filler.unlink()
        again = predict(words, "-o", str(disk / "out"), "--workers", "0")
        assert again.returncode == 0, again.stderr
        assert "events that an earlier run had predicted" in again.stdout
        assert datasets(disk / "out") == datasets(tmp_path / "whole")
    note("disk full", "nothing that was written")
