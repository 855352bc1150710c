"""A tracker that writes to MLflow, by one client in one thread.

Values go through ``MlflowClient`` and an explicit run id throughout: no active run, no global state. Runs
are found by their tags, which are written with the run itself, so a process that is killed at any point
leaves nothing behind that the next one would not find.
"""

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from gerbil_tune.errors import LaunchError
from gerbil_tune.tracking.store import (
    absolute_tracking_uri,
    connect,
    default_artifact_location,
    default_tracking_uri,
    find_or_create_experiment,
    store_errors,
)
from gerbil_tune.tracking.tracker import (
    CHANGED_TAG_PREFIX,
    NON_FINITE_TAG,
    STATE_TAG,
    STUDY_ID_TAG,
    STUDY_TAG,
    TRIAL_TAG,
    EpochMetrics,
    ParameterValue,
    RecordedRun,
    RunUpdate,
    split_finite,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

Item = TypeVar("Item")

EPOCH_METRIC = "epoch"
"""Written in one transaction with the other metrics of its epoch: its last value says which are there."""
_PARENT_TAG = "mlflow.parentRunId"
_MAX_PARAMETER_LENGTH = 6000
_MAX_TAG_LENGTH = 8000
_MAX_PER_BATCH = 100
"""Parameters or tags in one call; with the next, limits of MLflow (mlflow/utils/validation.py)."""
_MAX_METRICS_PER_BATCH = 1000
_MLFLOW_STATUS = {
    "running": "RUNNING",
    "complete": "FINISHED",
    "pruned": "FINISHED",
    "failed": "FAILED",
    "paused": "KILLED",
    "interrupted": "KILLED",
}


@dataclass
class _OpenedRun:
    """What is known of a run without asking the store.

    Attributes:
        run_id: MLflow's id.
        last_epoch: -1 before the first.
        status: As MLflow has it.
        is_new: It was created here and has no parameters yet.
    """

    run_id: str
    last_epoch: int
    status: str
    is_new: bool = False


class MlflowTracker:
    """Implements ``Tracker`` with an MLflow store.

    A study is an experiment of its name with one parent run, trials are its children.

    Attributes:
        uri: The tracking URI, absolute.
        artifact_location: Where a new experiment keeps its files; None where a server decides.
    """

    def __init__(self, uri: str | None = None, artifact_location: str | None = None) -> None:
        """Choose a store; nothing is opened before ``open_study``.

        Args:
            uri: Tracking URI; default: ``MLFLOW_TRACKING_URI``, else ``mlflow.db`` in the working
                directory.
            artifact_location: URI of a folder; default: ``mlartifacts`` beside the database.

        Raises:
            ConfigError: If the URI is of a kind that is not supported.
        """
        self.uri = default_tracking_uri(Path.cwd()) if uri is None else absolute_tracking_uri(uri)
        self.artifact_location = artifact_location or default_artifact_location(self.uri)
        self._client: MlflowClient | None = None
        self._experiment_id = ""
        self._study_run_id = ""
        self._runs: dict[int | None, _OpenedRun] = {}
        self._attempted: set[int] = set()

    def open_study(
        self,
        name: str,
        study_id: str,
        parameters: Mapping[str, ParameterValue],
        tags: Mapping[str, str],
    ) -> str:
        """See ``Tracker.open_study``."""
        own_tags = {STUDY_TAG: name, STUDY_ID_TAG: study_id}
        with store_errors(self.uri):
            self._experiment_id = find_or_create_experiment(
                self._connection(),
                name,
                self.artifact_location,
                self.uri,
                "or choose another --name",
            )
            found = next(self._search(f"tags.`{STUDY_ID_TAG}` = '{study_id}'"), None)
            if found is None:
                run = self._connection().create_run(
                    self._experiment_id, run_name=name, tags=own_tags
                )
                parent = _OpenedRun(run.info.run_id, -1, "RUNNING", is_new=True)
            else:
                parent = _opened(found)
            self._study_run_id = parent.run_id
            self._runs = {None: parent}
        self.recorded()
        self.write(None, RunUpdate(dict(parameters), tags={**own_tags, **tags}, state="running"))
        return self._study_run_id

    def recorded(self) -> dict[int, RecordedRun]:
        """See ``Tracker.recorded``. Of two runs of one trial the shorter one is deleted.

        There are two when a server has created a run, its answer was lost, and the HTTP client has asked
        again by itself.
        """
        with store_errors(self.uri):
            runs: dict[int, Run] = {}
            for run in self._search_trials():
                number = int(run.data.tags[TRIAL_TAG])
                if number in runs:
                    surplus, run = sorted((runs[number], run), key=_last_epoch)
                    self._connection().delete_run(surplus.info.run_id)
                runs[number] = run
        self._runs = {None: self._runs[None]}
        self._runs.update((number, _opened(run)) for number, run in runs.items())
        return {number: _recorded(run) for number, run in runs.items()}

    def write(self, trial: int | None, update: RunUpdate) -> None:
        """See ``Tracker.write``."""
        if not self._study_run_id:
            raise RuntimeError("open_study comes before everything else")
        with store_errors(self.uri):
            run = self._find_or_create_run(trial, update)
            tags = dict(update.tags)
            if update.parameters:
                tags |= self._write_parameters(run, update.parameters)
            tags |= self._write_epochs(run, update.epochs)
            self._write_summary(run, update, tags)
            if update.state is not None:
                self._set_status(run, _MLFLOW_STATUS[update.state], update.at_ms)

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """See ``Tracker.log_artifact``."""
        if not path.exists():
            raise LaunchError(f"{path} cannot be kept, because it does not exist")
        client, run_id = self._connection(), self._study_run_id
        with store_errors(self.uri):
            if path.is_dir():
                target = f"{folder}/{path.name}" if folder else path.name
                client.log_artifacts(run_id, str(path), target)
            else:
                client.log_artifact(run_id, str(path), folder or None)

    def _connection(self) -> "MlflowClient":
        if self._client is None:
            self._client = connect(self.uri)
        return self._client

    def _find_or_create_run(self, trial: int | None, update: RunUpdate) -> _OpenedRun:
        known = self._runs.get(trial)
        if known is not None or trial is None:
            return self._runs[trial]
        if trial in self._attempted:
            # An earlier call failed on the way; the run may be there nevertheless.
            found = next(self._search_trials(f" and tags.`{TRIAL_TAG}` = '{trial}'"), None)
            known = None if found is None else _opened(found)
        self._attempted.add(trial)
        if known is None:
            tags = {_PARENT_TAG: self._study_run_id, TRIAL_TAG: str(trial), STATE_TAG: "running"}
            run = self._connection().create_run(
                self._experiment_id,
                start_time=update.started_ms or update.at_ms,
                run_name=f"trial {trial:05d}",
                tags=tags,
            )
            known = _OpenedRun(run.info.run_id, -1, "RUNNING", is_new=True)
        self._attempted.discard(trial)
        self._runs[trial] = known
        return known

    def _search_trials(self, condition: str = "") -> "Iterator[Run]":
        return self._search(f"tags.`{_PARENT_TAG}` = '{self._study_run_id}'{condition}")

    def _search(self, filter_string: str) -> "Iterator[Run]":
        token = None
        while True:
            page = self._connection().search_runs(
                [self._experiment_id], filter_string, max_results=500, page_token=token
            )
            yield from (run for run in page if {TRIAL_TAG, STUDY_ID_TAG} & set(run.data.tags))
            token = page.token
            if not token:
                return

    def _write_parameters(
        self, run: _OpenedRun, parameters: Mapping[str, ParameterValue]
    ) -> dict[str, str]:
        """Add those that the run lacks; return tags for those that differ, which MLflow refuses."""
        from mlflow.entities import Param

        client = self._connection()
        texts = {name: _parameter_text(value) for name, value in parameters.items()}
        stored = {} if run.is_new else client.get_run(run.run_id).data.params
        added = [Param(name, text) for name, text in texts.items() if name not in stored]
        for params in _groups(added, _MAX_PER_BATCH):
            client.log_batch(run.run_id, params=params)
        run.is_new = False
        return {
            CHANGED_TAG_PREFIX + name: text
            for name, text in texts.items()
            if stored.get(name, text) != text
        }

    def _write_epochs(self, run: _OpenedRun, epochs: Mapping[int, EpochMetrics]) -> dict[str, str]:
        """Add the epochs that the run lacks, each whole or not at all; return a tag for what is NaN."""
        from mlflow.entities import Metric

        tags: dict[str, str] = {}
        values: list[Metric] = []
        for epoch in sorted(epoch for epoch in epochs if epoch > run.last_epoch):
            at_ms, metrics = epochs[epoch]
            finite, others = split_finite(metrics)
            finite[EPOCH_METRIC] = float(epoch)
            if len(values) + len(finite) > _MAX_METRICS_PER_BATCH:
                self._write_metrics(run, values)
                values = []
            values += [Metric(name, value, at_ms, epoch) for name, value in finite.items()]
            if others:
                tags[NON_FINITE_TAG] = f"{', '.join(others)} in epoch {epoch}"
        if values:
            self._write_metrics(run, values)
        return tags

    def _write_metrics(self, run: _OpenedRun, values: "Sequence[Metric]") -> None:
        self._connection().log_batch(run.run_id, metrics=values)
        run.last_epoch = values[-1].step

    def _write_summary(self, run: _OpenedRun, update: RunUpdate, tags: dict[str, str]) -> None:
        """Write the metrics and the tags; the state's tag is among the last, so all is there once it is."""
        from mlflow.entities import Metric, RunTag

        finite, others = split_finite(update.summary)
        if others:
            tags[NON_FINITE_TAG] = f"{', '.join(others)} in the summary"
        if update.state is not None:
            tags[STATE_TAG] = update.state
        # At the last epoch's step, or a metric that epochs have too would keep that epoch's value.
        step = max(run.last_epoch, 0)
        metrics = [Metric(name, value, update.at_ms, step) for name, value in finite.items()]
        labels = [RunTag(name, _shorten(text, _MAX_TAG_LENGTH)) for name, text in tags.items()]
        first, *others_left = list(_groups(labels, _MAX_PER_BATCH)) or [[]]
        if metrics or first:
            self._connection().log_batch(run.run_id, metrics=metrics, tags=first)
        for batch in others_left:
            self._connection().log_batch(run.run_id, tags=batch)

    def _set_status(self, run: _OpenedRun, status: str, at_ms: int) -> None:
        if status == run.status:
            return
        if status == "RUNNING":
            self._connection().update_run(run.run_id, status=status)
        else:
            self._connection().set_terminated(run.run_id, status, at_ms)
        run.status = status


def _opened(run: "Run") -> _OpenedRun:
    return _OpenedRun(run.info.run_id, _last_epoch(run), run.info.status)


def _recorded(run: "Run") -> RecordedRun:
    """What a run says of itself; nothing about its state if its status contradicts that (half closed)."""
    state = run.data.tags.get(STATE_TAG, "")
    agrees = _MLFLOW_STATUS.get(state) == run.info.status
    return RecordedRun(run.info.run_id, state if agrees else "", _last_epoch(run))


def _last_epoch(run: "Run") -> int:
    return int(run.data.metrics.get(EPOCH_METRIC, -1))


def _groups(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    iterator = iter(items)
    return iter(lambda: list(itertools.islice(iterator, size)), [])


def _parameter_text(value: ParameterValue) -> str:
    """Write a value as in a config file: true, null, [16, 32]; strings as they are."""
    text = value if isinstance(value, str) else json.dumps(value)
    return _shorten(text, _MAX_PARAMETER_LENGTH)


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."
