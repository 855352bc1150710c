"""The boundary to SLURM: run sbatch, and say what can be done with the job."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from gerbil_tune.errors import ConfigError, LaunchError
from gerbil_tune.launch.sbatch import SbatchCommand, SlurmResources, read_site_defaults

SITE_VARIABLE = "GERBIL_TUNE_SITE"
_NOT_FOR_JOBS = ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_API_SERVER_ADDRESS")
"""Of another cluster; a job starts its own, with a token of its own."""


def site_defaults(scripts_dir: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the SBATCH_ variables of ``site.env`` that the environment does not set itself.

    Args:
        scripts_dir: Folder where ``site.env`` is, unless GERBIL_TUNE_SITE names another file.
        environment: The caller's.

    Raises:
        ConfigError: If GERBIL_TUNE_SITE names no readable file, or an SBATCH_ line in it is not plain.
    """
    named = environment.get(SITE_VARIABLE)
    path = Path(named) if named else scripts_dir / "site.env"
    if not named and not path.exists():
        return {}
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} cannot be read ({error}); {SITE_VARIABLE} must name a readable text file"
        ) from None
    found = read_site_defaults(text, str(path))
    return {name: value for name, value in found.items() if name not in environment}


def submit_sbatch(command: SbatchCommand) -> str:
    """Run sbatch; return the job's id.

    Raises:
        LaunchError: If sbatch is missing or refuses.
    """
    if shutil.which("sbatch") is None:
        raise LaunchError(
            "sbatch is not on the PATH, so this is no SLURM submission host; run it on a login node, or "
            "see the command line with --dry-run"
        )
    sbatch, *rest = command.argv
    kept = {name: value for name, value in os.environ.items() if name not in _NOT_FOR_JOBS}
    done = subprocess.run(
        [sbatch, "--parsable", *rest],
        env={**kept, **command.environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise LaunchError(f"sbatch refused the job: {' '.join(done.stderr.split())}")
    return done.stdout.strip().partition(";")[0]


def log_name(resources: SlurmResources, job_id: str) -> str:
    """Name of the job's log, as far as it can be told before the job runs."""
    known = {"%j": job_id, "%A": job_id, "%x": resources.job_name, "%%": "%"}
    return re.sub(r"%[jAx%]", lambda match: known[match[0]], resources.output)


def next_steps(resources: SlurmResources, job_id: str) -> str:
    """What to do with a submitted job, in lines for the terminal."""
    return f"""submitted job {job_id}; its log: {log_name(resources, job_id)}
  see it:         squeue --jobs={job_id}
  save and stop:  scancel --signal=TERM --batch {job_id}
  save, requeue:  scancel --signal=USR1 --batch {job_id}
  go on later:    the same command once more"""
