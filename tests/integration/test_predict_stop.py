"""A prediction that is asked to stop."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gerbil_tune.inference.writer import read_attributes

TIMEOUT_S = 120.0


@pytest.mark.slow
@pytest.mark.parametrize(("number", "workers"), [(signal.SIGUSR1, "1"), (signal.SIGINT, "0")])
def test_it_keeps_whole_files_and_the_same_command_goes_on(
    make_bundle: Callable[..., Path],
    make_event_file: Callable[..., Path],
    tmp_path: Path,
    number: signal.Signals,
    workers: str,
) -> None:
    files = [
        make_event_file("a.h5", num_events=20),
        make_event_file("b.h5", num_events=15_000, dtype="int16"),
    ]
    data = [word for file in files for word in ("--data", str(file))]
    command = [sys.executable, "-m", "gerbil_tune", "predict", "--model", str(make_bundle())]
    command += [*data, "-o", "out", "--workers"]
    running = subprocess.Popen([*command, workers], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    out = tmp_path / "out"
    deadline = time.monotonic() + TIMEOUT_S
    while not (out / "a.predictions.h5").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    running.send_signal(number)
    _, said = running.communicate(timeout=TIMEOUT_S)
    assert running.returncode == 75, said
    assert "the same command goes on" in said
    left = sorted(path.name for path in out.iterdir())
    assert left[-1] == "a.predictions.h5"
    assert set(left) <= {".b.predictions.h5.parts", "a.predictions.h5"}
    again = subprocess.run(
        [*command, "0"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert f"kept {out / 'a.predictions.h5'}: " in again.stdout
    assert read_attributes(out / "b.predictions.h5")
    assert sorted(path.name for path in out.iterdir()) == ["a.predictions.h5", "b.predictions.h5"]
