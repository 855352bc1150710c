"""The text of a SLURM job, as a pure function of its options."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass


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
    """

    time: str = "24:00:00"
    cpus: int = 8
    gpus: int = 0
    memory: str | None = None
    partition: str | None = None
    job_name: str = "gerbil-tune"


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
# bash would run the trap only after the command: so the command runs beside it and is waited for.
{line} &
child=$!
trap 'kill -TERM "$child" 2>/dev/null' TERM
wait "$child"; status=$?
while kill -0 "$child" 2>/dev/null; do wait "$child"; status=$?; done
# 75: stopped on request, can go on.
if [ "$status" -eq 75 ]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit "$status"
"""
