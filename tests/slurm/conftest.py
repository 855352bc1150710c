"""A SLURM for each test, and a folder to work in."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import write_event_file
from tests.slurm.lab import SlurmLab

_PROGRAMS = ("slurmctld", "slurmd", "munged", "unshare", "nsenter", "ip", "shellcheck")


def why_not() -> str:
    """Why no lab can run here; empty if it can."""
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    if os.geteuid() != 0:
        return "the lab's namespaces need root"
    spaces = ["unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "true"]
    may = subprocess.run(spaces, capture_output=True, text=True, check=False)
    return may.stderr.strip()


@pytest.fixture(scope="session")
def _slurm() -> None:
    """Skips where there is no SLURM; REQUIRE_SLURM=1 makes that a failure, lest CI takes it for a pass."""
    reason = why_not()
    if reason and os.environ.get("REQUIRE_SLURM") == "1":
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)


@pytest.fixture
def lab(_slurm: None) -> Iterator[SlurmLab]:
    """Two compute nodes, n1 and n2, of four CPUs and two GPUs; job ids begin with 1."""
    with SlurmLab() as running:
        yield running


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with ``data/``, by a name that is hard on scripts."""
    folder = tmp_path / "the rat's lab ä"
    write_event_file(folder / "data" / "train_set.h5", num_events=64, seed=1)
    write_event_file(folder / "data" / "val_set.h5", num_events=16, seed=2)
    return folder
