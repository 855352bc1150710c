"""The text of a SLURM job, as a pure function of its options."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from gerbil_tune.errors import ConfigError

_PLAIN = re.compile(r"[A-Za-z0-9_.,:+%@/=-]+")
"""What sbatch reads as one word: it would end an option at a space, and a script at a new line."""


@dataclass(frozen=True)
class SlurmResources:
    """What a job asks for.

    Attributes:
        time: SLURM time limit, such as 24:00:00.
        cpus: CPUs on its one compute node.
        gpus: GPUs on it.
        memory: Such as 64G; None: the cluster's default.
        partition: None: the cluster's default.
        job_name: Shown by squeue and used for the log's name.

    Raises:
        ConfigError: If a text has spaces or other characters that sbatch does not read as one word.
    """

    time: str = "24:00:00"
    cpus: int = 8
    gpus: int = 0
    memory: str | None = None
    partition: str | None = None
    job_name: str = "gerbil-tune"

    def __post_init__(self) -> None:
        """Refuse what would break the script's header."""
        for name, value in asdict(self).items():
            if isinstance(value, str) and not _PLAIN.fullmatch(value):
                raise ConfigError(
                    f"the SLURM option {name} is {value!r}; valid: letters, digits and _.,:+%@/=- without "
                    "spaces"
                )


def render_sbatch(command: Sequence[str], resources: SlurmResources, *, program: str) -> str:
    """Write the batch script that runs a ``gerbil-tune`` command on one compute node.

    SLURM warns the job 120 s before its limit; the search then saves and exits with 75, and the job
    requeues itself and goes on.

    Args:
        command: Arguments of ``gerbil-tune``, such as ``["search", ...]``.
        resources: What to ask for.
        program: Absolute path of ``gerbil-tune`` on the compute nodes.
    """
    options = [
        f"--job-name={resources.job_name}",
        "--nodes=1",
        "--ntasks=1",
        f"--cpus-per-task={resources.cpus}",
        f"--time={resources.time}",
        f"--output={resources.job_name}-%j.log",
        "--open-mode=append",
        "--requeue",
        "--signal=B:TERM@120",
    ]
    if resources.gpus:
        options.append(f"--gpus-per-node={resources.gpus}")
    if resources.memory:
        options.append(f"--mem={resources.memory}")
    if resources.partition:
        options.append(f"--partition={resources.partition}")
    header = "\n".join(f"#SBATCH {option}" for option in options)
    line = shlex.join([program, *command])
    return f"""#!/usr/bin/env bash
{header}
set -u
# bash runs a trap only between two commands: so the long one runs beside it, and bash looks every second.
{line} &
child=$!
trap 'kill -TERM "$child" 2>/dev/null' TERM
# Waiting for it instead could lose its exit status, if it ended while the trap cut the waiting short.
while kill -0 "$child" 2>/dev/null; do sleep 1; done
wait "$child"; status=$?
# 75: stopped on request, can go on.
if [ "$status" -eq 75 ]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit "$status"
"""
