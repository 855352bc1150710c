"""The trials that an MLflow experiment holds, whoever recorded them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gerbil_tune.errors import ConfigError
from gerbil_tune.tracking.store import (
    absolute_tracking_uri,
    connect,
    default_tracking_uri,
    store_errors,
)
from gerbil_tune.tracking.tracker import STATE_TAG, STUDY_TAG, TRIAL_TAG
from gerbil_tune.urls import without_password

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_STATUS = {"RUNNING": "running", "SCHEDULED": "running", "FINISHED": "complete"}


@dataclass(frozen=True)
class RecordedTrial:
    """A trial as recorded.

    Attributes:
        parameters: Texts as in a config file, by path: ``"true"``, ``"[16, 32]"``, ``"gcc-net"``.
        metrics: The last value of each.
        status: complete, pruned, failed, running, paused or interrupted.
    """

    parameters: dict[str, str]
    metrics: dict[str, float]
    status: str

    def value(self, metric: str) -> float | None:
        """Return what the trial achieved: the objective, else the best, else the last value."""
        names = (f"objective/{metric}", f"best_{metric}", metric)
        return next((self.metrics[name] for name in names if name in self.metrics), None)


def recorded_trials(experiment: str, uri: str | None = None) -> list[RecordedTrial]:
    """Read all runs of an experiment but those of whole studies, in the order in which they began.

    Args:
        experiment: Its name: that of the study, for a search of this program.
        uri: Tracking URI; default: ``MLFLOW_TRACKING_URI``, else ``mlflow.db`` in the working directory.

    Raises:
        ConfigError: If there is no such experiment.
        LaunchError: If the store cannot be read.
    """
    uri = default_tracking_uri(Path.cwd()) if uri is None else absolute_tracking_uri(uri)
    with store_errors(uri, "read"):
        client = connect(uri)
        found = client.get_experiment_by_name(experiment)
        if found is None or found.lifecycle_stage != "active":
            names = sorted(other.name for other in client.search_experiments())
            raise ConfigError(
                f"there is no MLflow experiment {experiment!r} in {without_password(uri)}; it has "
                f"{', '.join(names) or 'none'}"
            )
        return [
            RecordedTrial(run.data.params, run.data.metrics, _status(run))
            for run in _runs(client, found.experiment_id)
            if TRIAL_TAG in run.data.tags or STUDY_TAG not in run.data.tags
        ]


def _runs(client: "MlflowClient", experiment_id: str) -> "Iterator[Run]":
    token = None
    while True:
        page = client.search_runs(
            [experiment_id],
            max_results=500,
            order_by=["attributes.start_time ASC"],
            page_token=token,
        )
        yield from page
        token = page.token
        if not token:
            return


def _status(run: "Run") -> str:
    return str(run.data.tags.get(STATE_TAG) or _STATUS.get(run.info.status, "failed"))
