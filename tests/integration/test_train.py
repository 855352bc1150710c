"""``gerbil-tune train`` by the real command line: stopped, continued, and what it says next."""

import os
import re
import shlex
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.integration.command_line import clean_environment, command, run

pytestmark = [pytest.mark.ray, pytest.mark.slow]


EPOCHS = 40
ASKED = "stopping after the step under way; once more to stop at once\n"


def stop_with(number: signal.Signals, folder: Path, *arguments: str) -> tuple[int, list[str], str]:
    """Begin the command, send its process group a signal after two epochs, and wait for its end."""
    begun = subprocess.Popen(
        command(*arguments),
        cwd=folder,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert begun.stdout is not None
    lines = []
    for line in begun.stdout:
        lines.append(line)
        if sum(line.startswith("epoch ") for line in lines) == 2:
            # Ctrl-C reaches all processes of a terminal, scancel the one that it is sent to.
            send = os.killpg if number == signal.SIGINT else os.kill
            send(begun.pid, number)
    _, errors = begun.communicate(timeout=60)
    return begun.returncode, lines, errors


def first_epoch(lines: Sequence[str]) -> int:
    """Epoch that a command trained first, which must be the one after those it says are done."""
    first = int(next(x for x in lines if x.startswith("epoch ")).split()[1].split("/")[0])
    continuing = [line for line in lines if line.startswith("continuing after epoch ")]
    done = int(continuing[0].split()[3].split("/")[0]) if continuing else 0
    assert first == done + 1
    return first


def test_a_run_that_is_stopped_goes_on(
    make_event_file: Callable[..., Path], tmp_path: Path
) -> None:
    make_event_file("calls.h5", num_events=60)
    arguments = ("train", "--data", "calls.h5", "--set", f"training/epochs={EPOCHS}")
    arguments += ("--set", "training/global_batch_size=8")
    expected = 1
    for number in (signal.SIGINT, signal.SIGTERM):  # SIGUSR1 reaches a training in tests/slurm
        code, lines, errors = stop_with(number, tmp_path, *arguments)
        assert code == 75
        assert errors.startswith(ASKED)
        said = re.search(r"stopped after epoch (\d+)/40.*; the same command goes on\n$", errors)
        assert said is not None
        assert "Traceback" not in errors
        assert first_epoch(lines) == expected
        expected = int(said[1]) + 1

    lines = run(tmp_path, *arguments).stdout.splitlines()
    assert first_epoch(lines) == expected
    assert sum(line.startswith("epoch ") for line in lines) == EPOCHS + 1 - expected

    bundle = tmp_path / "trained_models/gerbil-locator/00001"
    parts = [np.load(bundle / f"split/{name}_set.npy") for name in ("train", "val", "test")]
    assert sorted(np.concatenate(parts)) == list(range(60))
    program, *words = shlex.split(lines[-1].removeprefix("next: "))
    assert program == "gerbil-tune"
    assert f"\n{len(parts[2])} events of " in run(tmp_path, *words).stdout


def test_audio_that_is_not_finite_is_named(
    make_event_file: Callable[..., Path], tmp_path: Path
) -> None:
    audio = np.random.default_rng(0).standard_normal((200 * 300, 4)).astype(np.float32)
    audio[76 * 300 + 100, 1] = np.nan
    make_event_file("calls.h5", lengths=[300] * 200, audio=audio)
    for name, places in (("train", range(150)), ("val", range(150, 200))):
        (tmp_path / "split").mkdir(exist_ok=True)
        np.save(tmp_path / f"split/{name}_set.npy", np.array(places))
    arguments = ("train", "--data", "calls.h5", "--split", "split")
    done = run(tmp_path, *arguments, "--set", "training/global_batch_size=50", code=1)
    assert done.stderr == (
        "error: the loss became nan in epoch 1, because the audio of event 76 of calls.h5 holds NaN or "
        "infinite values; gerbil-tune data check names all such events, and gerbil-tune data clean leaves "
        "them out\n"
    )
