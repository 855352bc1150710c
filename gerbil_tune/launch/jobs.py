"""Submit: the boundary to ``sbatch`` and ``ray job submit``."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from gerbil_tune.errors import LaunchError


def own_program() -> str:
    """Absolute path of this installation's ``gerbil-tune``."""
    beside_python = Path(sys.executable).with_name("gerbil-tune")
    return (
        str(beside_python)
        if beside_python.exists()
        else shutil.which("gerbil-tune") or "gerbil-tune"
    )


def submit_sbatch(script: str) -> str:
    """Hand a script to sbatch; return the job's id.

    Raises:
        LaunchError: If sbatch is missing or refuses.
    """
    if shutil.which("sbatch") is None:
        raise LaunchError(
            "sbatch is not on the PATH, so this is no SLURM submission host; run it on a login node, or "
            "see the script with --dry-run"
        )
    done = subprocess.run(
        ["sbatch", "--parsable"], input=script, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise LaunchError(f"sbatch refused the job: {' '.join(done.stderr.split())}")
    return done.stdout.strip().partition(";")[0]


def ray_job_command(command: Sequence[str], *, address: str) -> list[str]:
    """Return the ``ray job submit`` command line that runs a ``gerbil-tune`` command on a cluster."""
    ray = Path(sys.executable).with_name("ray")
    return [
        str(ray) if ray.exists() else "ray",
        "job",
        "submit",
        f"--address={address}",
        "--",
        own_program(),
        *command,
    ]


def submit_ray_job(command: Sequence[str], *, address: str) -> int:
    """Run a command as a job of a standing Ray cluster, following its log; return its exit code."""
    environment = {**os.environ, "RAY_AUTH_MODE": os.environ.get("RAY_AUTH_MODE", "token")}
    environment.pop("RAY_ADDRESS", None)  # the job finds its own cluster
    return subprocess.run(
        ray_job_command(command, address=address), env=environment, check=False
    ).returncode
