"""A tracker that writes to MLflow, by one client in one process.

Values go through ``MlflowClient`` and an explicit run id throughout: no active run, no global state.
What a store cannot take for a while (a locked database, a server that restarts) is kept and written
later, so that tracking never ends a search.
"""

import collections
import json
import logging
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gerbil_tune.errors import ConfigError, LaunchError
from gerbil_tune.tracking.store import (
    absolute_tracking_uri,
    connect,
    default_artifact_location,
    default_tracking_uri,
    first_line,
    load_mlflow,
    mlflow_error,
)
from gerbil_tune.tracking.tracker import (
    CHANGED_TAG_PREFIX,
    LAST_EPOCH_TAG,
    NON_FINITE_TAG,
    REASON_TAG,
    STATE_TAG,
    STUDY_TAG,
    TRIAL_TAG,
    ParameterValue,
    StudyStatus,
    TrialStatus,
    split_finite,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_logger = logging.getLogger(__name__)

_MAX_PARAMETER_LENGTH = 6000
_MAX_TAG_LENGTH = 8000
_MAX_PER_BATCH = 100
"""Parameters or tags in one call; these three are limits of MLflow (mlflow/utils/validation.py)."""
_RETRY_AFTER_S = 30.0
_PARENT_TAG = "mlflow.parentRunId"
_MLFLOW_STATUS = {
    "complete": "FINISHED",
    "pruned": "FINISHED",
    "failed": "FAILED",
    "interrupted": "KILLED",
}


class MlflowTracker:
    """Implements ``Tracker`` with an MLflow store.

    A study is an experiment of its name with one parent run, trials are its children.

    Attributes:
        uri: The tracking URI, absolute.
        artifact_location: Where a new experiment keeps its files; None where a server decides.
    """

    def __init__(self, uri: str | None = None, artifact_location: str | None = None) -> None:
        """Choose a store; nothing is opened before ``start_study``.

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
        self._study_id: str | None = None
        self._last_epoch: dict[str, int] = {}
        self._last_timestamp_ms = 0
        self._unwritten: collections.deque[tuple[str, tuple[Any, ...]]] = collections.deque()
        self._retry_at_s = 0.0

    def __getstate__(self) -> dict[str, Any]:
        """Leave the connection behind: Ray Tune pickles whatever its callbacks hold."""
        return {**self.__dict__, "_client": None}

    def start_study(
        self, name: str, parameters: Mapping[str, ParameterValue], tags: Mapping[str, str]
    ) -> str:
        """See ``Tracker.start_study``.

        Raises:
            ConfigError: If the experiment of this name was deleted in the store.
            LaunchError: If the store cannot be used.
        """
        try:
            self._experiment_id = self._find_or_create_experiment(name)
            run = self._find_parent(name)
            if run is None:
                run = self._connection().create_run(
                    self._experiment_id, run_name=name, tags={STUDY_TAG: name}
                )
            self._study_id = str(run.info.run_id)
            self._reopen(run, {**tags, STATE_TAG: "running"}, parameters)
        except (mlflow_error(), OSError) as error:
            raise LaunchError(
                f"the MLflow store {self.uri} cannot be used ({first_line(error)}); "
                "check that it exists and can be written, or set MLFLOW_TRACKING_URI to another one"
            ) from error
        return self._study_id

    def start_trial(
        self,
        number: int,
        parameters: Mapping[str, ParameterValue],
        run_id: str | None = None,
    ) -> str:
        """See ``Tracker.start_trial``.

        Raises:
            LaunchError: If the store cannot be used.
        """
        if self._study_id is None:
            raise RuntimeError("start_study comes before start_trial")
        tags = {_PARENT_TAG: self._study_id, TRIAL_TAG: str(number)}
        try:
            run = None if run_id is None else self._find_run(run_id)
            if run is None:
                run = self._connection().create_run(
                    self._experiment_id, run_name=f"trial {number:05d}", tags=tags
                )
            self._reopen(run, {STATE_TAG: "running"}, parameters)
        except (mlflow_error(), OSError) as error:
            raise LaunchError(
                f"the MLflow store {self.uri} cannot open a run for trial {number} "
                f"({first_line(error)}); the same command continues once the store works again"
            ) from error
        return str(run.info.run_id)

    def log_epoch(self, run_id: str, epoch: int, metrics: Mapping[str, float]) -> None:
        """See ``Tracker.log_epoch``."""
        if epoch <= self._last_epoch.get(run_id, -1):
            return
        self._last_epoch[run_id] = epoch
        finite, others = split_finite(metrics)
        tags = {LAST_EPOCH_TAG: str(epoch)}
        if others:
            tags[NON_FINITE_TAG] = f"{', '.join(others)} in epoch {epoch}"
        self._write_batch(run_id, metrics=finite, step=epoch, tags=tags)

    def log_summary(
        self, run_id: str, metrics: Mapping[str, float], tags: Mapping[str, str] | None = None
    ) -> None:
        """See ``Tracker.log_summary``."""
        finite, others = split_finite(metrics)
        tags = dict(tags or {})
        if others:
            tags[NON_FINITE_TAG] = f"{', '.join(others)} in the summary"
        # At the last epoch's step, or a metric that epochs log too would keep that epoch's value.
        self._write_batch(
            run_id, metrics=finite, step=max(self._last_epoch.get(run_id, 0), 0), tags=tags
        )

    def end_trial(self, run_id: str, status: TrialStatus, reason: str = "") -> None:
        """See ``Tracker.end_trial``."""
        self._end_run(run_id, status, {REASON_TAG: reason} if reason else {})

    def log_artifact(self, run_id: str, path: Path, folder: str = "") -> None:
        """See ``Tracker.log_artifact``."""
        if path.is_dir():
            target = f"{folder}/{path.name}" if folder else path.name
            self._write("log_artifacts", run_id, str(path), target)
        elif path.exists():
            self._write("log_artifact", run_id, str(path), folder or None)
        else:
            raise FileNotFoundError(path)

    def end_study(self, status: StudyStatus) -> None:
        """See ``Tracker.end_study``. What the store does not take even now is lost, with a warning."""
        if self._study_id is None:
            raise RuntimeError("start_study comes before end_study")
        self._retry_at_s = 0.0
        self._write_waiting()
        if not self._unwritten:
            for run_id in self._open_trials():
                self._end_run(run_id, "interrupted", {})
        self._end_run(self._study_id, status, {})
        if self._unwritten:
            _logger.warning(
                "the MLflow store %s did not take the last %d entries; the study's own folder has all "
                "results, only MLflow lacks these",
                self.uri,
                len(self._unwritten),
            )

    def _connection(self) -> "MlflowClient":
        if self._client is None:
            self._client = connect(self.uri)
        return self._client

    def _find_or_create_experiment(self, name: str) -> str:
        client = self._connection()
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            try:
                return client.create_experiment(name, artifact_location=self.artifact_location)
            except mlflow_error() as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                # Another process was faster.
                experiment = client.get_experiment_by_name(name)
        if experiment.lifecycle_stage != "active":
            raise ConfigError(
                f"the MLflow experiment {name!r} in {self.uri} was deleted; restore it with "
                f"`mlflow experiments restore -x {experiment.experiment_id}` or choose another --name"
            )
        return str(experiment.experiment_id)

    def _find_parent(self, name: str) -> "Run | None":
        runs = self._search(f"tags.`{STUDY_TAG}` != ''")
        return next((run for run in runs if run.data.tags[STUDY_TAG] == name), None)

    def _find_run(self, run_id: str) -> "Run | None":
        try:
            run = self._connection().get_run(run_id)
        except mlflow_error() as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        return run if run.info.lifecycle_stage == "active" else None

    def _open_trials(self) -> list[str]:
        children = f"tags.`{_PARENT_TAG}` = '{self._study_id}' and attributes.status = 'RUNNING'"
        try:
            return [run.info.run_id for run in self._search(children)]
        except (mlflow_error(), OSError) as error:
            if not _is_transient(error):
                raise
            _logger.warning("the MLflow store %s cannot be read (%s)", self.uri, first_line(error))
            return []

    def _search(self, filter_string: str) -> "Iterator[Run]":
        token = None
        while True:
            page = self._connection().search_runs(
                [self._experiment_id], filter_string, max_results=500, page_token=token
            )
            yield from page
            token = page.token
            if not token:
                return

    def _reopen(
        self, run: "Run", tags: Mapping[str, str], parameters: Mapping[str, ParameterValue]
    ) -> None:
        """Set a run to running and add what it does not have; MLflow refuses changed parameters."""
        run_id = run.info.run_id
        if run.info.status != "RUNNING":
            self._connection().update_run(run_id, status="RUNNING")
        self._last_epoch[run_id] = int(run.data.tags.get(LAST_EPOCH_TAG, -1))
        texts = {name: _parameter_text(value) for name, value in parameters.items()}
        changed = {
            CHANGED_TAG_PREFIX + name: text
            for name, text in texts.items()
            if run.data.params.get(name, text) != text
        }
        added = {name: text for name, text in texts.items() if name not in run.data.params}
        self._write_batch(run_id, parameters=added, tags={**tags, **changed})

    def _end_run(self, run_id: str, status: str, tags: Mapping[str, str]) -> None:
        self._write_batch(run_id, tags={**tags, STATE_TAG: status})
        self._write("set_terminated", run_id, _MLFLOW_STATUS[status])

    def _write_batch(
        self,
        run_id: str,
        *,
        metrics: Mapping[str, float] | None = None,
        step: int = 0,
        parameters: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        load_mlflow()
        from mlflow.entities import Metric, Param, RunTag

        timestamp = self._timestamp_ms()
        values = [Metric(name, value, timestamp, step) for name, value in (metrics or {}).items()]
        params = [Param(name, text) for name, text in (parameters or {}).items()]
        labels = [RunTag(k, _shorten(v, _MAX_TAG_LENGTH)) for k, v in (tags or {}).items()]
        while values or params or labels:
            self._write(
                "log_batch",
                run_id,
                values[:_MAX_PER_BATCH],
                params[:_MAX_PER_BATCH],
                labels[:_MAX_PER_BATCH],
            )
            values = values[_MAX_PER_BATCH:]
            params, labels = params[_MAX_PER_BATCH:], labels[_MAX_PER_BATCH:]

    def _timestamp_ms(self) -> int:
        """Now, but later than ever before: of two values at one step MLflow shows the later one."""
        self._last_timestamp_ms = max(time.time_ns() // 1_000_000, self._last_timestamp_ms + 1)
        return self._last_timestamp_ms

    def _write(self, method: str, *arguments: Any) -> None:
        """Call a method of the client now, or later if the store cannot be used now."""
        self._unwritten.append((method, arguments))
        if time.monotonic() >= self._retry_at_s:
            self._write_waiting()

    def _write_waiting(self) -> None:
        while self._unwritten:
            method, arguments = self._unwritten[0]
            try:
                getattr(self._connection(), method)(*arguments)
            except (mlflow_error(), OSError) as error:
                if not _is_transient(error):
                    self._unwritten.popleft()
                    raise
                self._retry_at_s = time.monotonic() + _RETRY_AFTER_S
                _logger.warning(
                    "the MLflow store %s cannot be written (%s); %d entries wait, next try in %.0f s",
                    self.uri,
                    first_line(error),
                    len(self._unwritten),
                    _RETRY_AFTER_S,
                )
                return
            self._unwritten.popleft()


def _is_transient(error: Exception) -> bool:
    """Tell a store that fails for now from a call that it will never accept."""
    if isinstance(error, mlflow_error()):
        return bool(error.get_http_status_code() >= 500)
    return not isinstance(error, FileNotFoundError)


def _parameter_text(value: ParameterValue) -> str:
    """Write a value as in a config file: true, null, [16, 32]; strings as they are."""
    text = value if isinstance(value, str) else json.dumps(value)
    return _shorten(text, _MAX_PARAMETER_LENGTH)


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."
