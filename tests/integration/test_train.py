"""``gerbil-tune train`` by the real command line: stopped, continued, and what it says next."""

import shlex
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.integration.command_line import clean_environment, command, run

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_a_run_that_is_interrupted_goes_on(
    make_event_file: Callable[..., Path], tmp_path: Path
) -> None:
    make_event_file("calls.h5", num_events=60)
    arguments = ("train", "--data", "calls.h5", "--set", "training/epochs=30")
    arguments += ("--set", "training/global_batch_size=8")
    begun = subprocess.Popen(
        command(*arguments),
        cwd=tmp_path,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert begun.stdout is not None
    for line in begun.stdout:
        if line.startswith("epoch 2/30"):
            begun.send_signal(signal.SIGINT)
    _, errors = begun.communicate(timeout=60)
    assert (begun.returncode, errors) == (130, "stopped; the same command continues\n")

    lines = run(tmp_path, *arguments).stdout.splitlines()
    continuing = [line for line in lines if line.startswith("continuing after epoch ")]
    assert len(continuing) == 1
    epoch = int(continuing[0].removeprefix("continuing after epoch ").split("/")[0])
    assert epoch >= 2
    assert next(line for line in lines if line.startswith("epoch")).startswith(
        f"epoch {epoch + 1}/"
    )

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
