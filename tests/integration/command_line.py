"""Run ``gerbil-tune`` as a user does: another process, in a folder of its own."""

import os
import subprocess
import sys
from pathlib import Path

SPACE = """
name: tiny
study:
  trials: 3
  refit_epochs: 2
  sampler: {kind: tpe, seed: 5, startup_trials: 2}
  trial_scheduler: {kind: asha, grace_epochs: 1, reduction_factor: 2}
base:
  model: {kind: gcc-net, lags: {num_channels: 8, hidden: 16, num_blocks: 2}}
  training: {epochs: 4, global_batch_size: 16}
parameters:
  optimizer/learning_rate: {type: float, low: 1.0e-4, high: 1.0e-2, log: true}
  features/gcc/envelope: {type: categorical, choices: [false, true]}
"""


def clean_environment() -> dict[str, str]:
    """The environment without anything that would point the program elsewhere."""
    hidden = ("RAY_ADDRESS", "MLFLOW_TRACKING_URI", "RAY_GCS_SERVER_PORT")
    return {key: value for key, value in os.environ.items() if key not in hidden}


def command(*arguments: str) -> list[str]:
    """The command line of ``gerbil-tune``."""
    return [sys.executable, "-m", "gerbil_tune", *arguments]


def run(
    folder: Path, *arguments: str, code: int = 0, module: str = "gerbil_tune"
) -> subprocess.CompletedProcess[str]:
    """Run to the end and check the exit code."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=folder,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    return done
