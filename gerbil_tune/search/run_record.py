"""What a study notes of each run of the search on it: when, on what, by which versions, and its end."""

import os
import platform
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version

import optuna
from optuna.exceptions import StorageInternalError

from gerbil_tune import __version__
from gerbil_tune.search.placement import Placement

RUNS = "runs"
ENVIRONMENT = "environment"
_PACKAGES = ("torch", "ray", "optuna", "mlflow", "numpy", "h5py")


def begin_run(study: optuna.Study, placement: Placement) -> None:
    """Add a run to the study; one that was killed before it could say so counts as interrupted."""
    runs = [
        {**run, "status": "interrupted"} if run["status"] == "running" else run
        for run in study.user_attrs.get(RUNS, [])
    ]
    workers = placement.max_concurrent * placement.workers_per_trial
    runs.append(
        {
            "started": _now(),
            "ended": None,
            "status": "running",
            "trials_at_once": placement.max_concurrent,
            "cpus": workers * placement.cpus_per_worker,
            "gpus": workers * placement.gpus_per_worker,
        }
    )
    study.set_user_attr(RUNS, runs)
    study.set_user_attr(ENVIRONMENT, environment())


def end_run(study: optuna.Study, status: str) -> None:
    """Note how the run that is under way ended: complete, interrupted or failed.

    Where the storage fails, which has ended the run with an error of its own, the next run notes it.
    """
    with suppress(StorageInternalError):
        runs = study.user_attrs.get(RUNS, [])
        if runs and runs[-1]["status"] == "running":
            ended = {**runs[-1], "ended": _now(), "status": status}
            study.set_user_attr(RUNS, [*runs[:-1], ended])


def environment() -> dict[str, str]:
    """Versions and machine, as names and texts."""
    return {
        "gerbil_tune": __version__,
        "python": platform.python_version(),
        **{package: version(package) for package in _PACKAGES},
        "system": platform.platform(),
        "host": platform.node(),
        "cpus": str(os.cpu_count()),
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
