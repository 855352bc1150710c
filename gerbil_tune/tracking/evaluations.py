"""Evaluations as runs of MLflow, one each, in an experiment of their own."""

import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from gerbil_tune.tracking.store import (
    connect,
    default_artifact_location,
    find_or_create_experiment,
    sqlite_file,
    store_errors,
)
from gerbil_tune.tracking.tracker import now_ms, split_finite

if TYPE_CHECKING:
    from mlflow import MlflowClient

Value = TypeVar("Value")

EXPERIMENT = "evaluations"
KIND_TAG = "gerbil_tune.kind"
"""On such a run: evaluation."""
_MAX_PARAMETER_LENGTH = 6000
_PER_BATCH = 100
"""Parameters in one call; with the one before, limits of MLflow (mlflow/utils/validation.py)."""
_METRICS_PER_BATCH = 1000
_NOT_IN_NAMES = re.compile(r"[^\w\-. /]")


@dataclass(frozen=True, slots=True)
class EvaluationRecord:
    """What is kept of an evaluation.

    Attributes:
        name: Of the run.
        parameters: Models, data and number of events, by name.
        metrics: Figures of merit by method and name; what is not finite is left out.
        tags: Labels.
        files: Kept as artifacts.
    """

    name: str
    parameters: Mapping[str, str]
    metrics: Mapping[str, Mapping[str, float]]
    tags: Mapping[str, str]
    files: Sequence[Path]


def has_store(tracking_uri: str) -> bool:
    """Whether there is a store, or a server or database that may hold one: nothing is made for it."""
    database = sqlite_file(tracking_uri)
    return database is None or database.is_file()


def log_evaluation(record: EvaluationRecord, tracking_uri: str) -> str:
    """Write an evaluation to a store; returns the id of its run.

    A run whose files could not be kept is there nevertheless, as failed.

    Raises:
        StoreAwayError: If the store cannot be used for now.
        LaunchError: If it is wrong in itself, or the experiment was deleted.
    """
    with store_errors(tracking_uri, "used to log the evaluation"):
        client = connect(tracking_uri)
        location = default_artifact_location(tracking_uri)
        experiment_id = find_or_create_experiment(client, EXPERIMENT, location, tracking_uri)
        tags = {KIND_TAG: "evaluation", **record.tags}
        run = client.create_run(experiment_id, run_name=record.name, tags=tags)
        run_id = str(run.info.run_id)
        try:
            _write(client, run_id, record)
        except BaseException:
            with contextlib.suppress(Exception):
                client.set_terminated(run_id, "FAILED")
            raise
        client.set_terminated(run_id, "FINISHED")
    return run_id


def _write(client: "MlflowClient", run_id: str, record: EvaluationRecord) -> None:
    from mlflow.entities import Metric, Param

    at_ms = now_ms()
    params = [
        Param(name, text[:_MAX_PARAMETER_LENGTH])
        for name, text in _valid_names(record.parameters).items()
    ]
    for first in range(0, len(params), _PER_BATCH):
        client.log_batch(run_id, params=params[first : first + _PER_BATCH])
    values = [
        Metric(f"{method}/{name}", value, at_ms, 0)
        for method, figures in _valid_names(record.metrics).items()
        for name, value in split_finite(figures)[0].items()
    ]
    for first in range(0, len(values), _METRICS_PER_BATCH):
        client.log_batch(run_id, metrics=values[first : first + _METRICS_PER_BATCH])
    for path in record.files:
        client.log_artifact(run_id, str(path))


def _valid_names(items: Mapping[str, Value]) -> dict[str, Value]:
    """The same with what MLflow does not take in names replaced; names that become alike are numbered."""
    found: dict[str, Value] = {}
    for name, value in items.items():
        valid = base = _NOT_IN_NAMES.sub("_", name).strip("/. ")[:200] or "_"
        number = 2
        while valid in found:
            valid, number = f"{base} {number}", number + 1
        found[valid] = value
    return found
