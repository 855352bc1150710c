"""Tells a tracker what happens in a study; Optuna's storage has the truth, the record is its projection.

Nothing here waits for the tracker's store. What the store missed, because it was away or because a process
was killed, is written from the study itself: at the beginning and at the end of each run of a search.
"""

import logging
import threading
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from gerbil_tune.config.load import flatten
from gerbil_tune.search.storage import curve_of, is_own
from gerbil_tune.search.tasks import TrialTask
from gerbil_tune.search.trial_records import is_interrupted
from gerbil_tune.tracking.delivery import Delivery
from gerbil_tune.tracking.tracker import (
    ACCUMULATE_TAG,
    MISHAPS_TAG,
    PARENT_TRIAL_TAG,
    REASON_KIND_TAG,
    REASON_TAG,
    ROOT_TRIAL_TAG,
    EpochMetrics,
    ParameterValue,
    RecordedRun,
    RunState,
    RunUpdate,
    StudyStatus,
    Tracker,
    now_ms,
)
from gerbil_tune.training.history import read_history
from gerbil_tune.urls import without_password

_logger = logging.getLogger(__name__)

_SECONDS = "seconds"
_NOT_CHARTED = ("epoch", "training_done")  # the step says the one, the run's state the other
_STATES: dict[TrialState, RunState] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}
_TAGS = {
    "reason": REASON_TAG,
    "reason_kind": REASON_KIND_TAG,
    "mishaps": MISHAPS_TAG,
    "parent": PARENT_TRIAL_TAG,
    "root": ROOT_TRIAL_TAG,
    "accumulate_steps": ACCUMULATE_TAG,
}
"""User attributes of a trial that become tags of its run."""
_OPEN_TIMEOUT_S = 30.0
_DRAIN_S = {"complete": 90.0, "failed": 30.0, "interrupted": 15.0}
"""Whoever stopped a study waits less: the same command writes the rest when it goes on."""


class StudyRecorder:
    """A listener of the book that keeps one tracking run for the study and one for each trial.

    Trials that were taken from other studies (warm start) have none: they were not run here.

    Args:
        tracker: Keeps the record.
        study_dir: The study's folder, with the history of each trial.
    """

    def __init__(self, tracker: Tracker, study_dir: Path) -> None:
        self._study_dir = study_dir
        self._uri = without_password(tracker.uri)
        self._delivery = Delivery(tracker, self._lacking)
        self._study: optuna.Study | None = None
        self._live: set[int] = set()
        self._live_lock = threading.Lock()

    @property
    def parent_run_id(self) -> str | None:
        """The study's run; None while the store is away and has not told it."""
        return self._delivery.study_run_id

    def begin(
        self,
        study: optuna.Study,
        parameters: Mapping[str, ParameterValue],
        tags: Mapping[str, str],
    ) -> str | None:
        """Open the study's run.

        Args:
            study: As stored.
            parameters: What holds for all trials.
            tags: Free labels.

        Returns:
            The run's id; None, after a warning, if the store is away for now.

        Raises:
            LaunchError: If the store is wrong in itself.
        """
        self._study = study
        return self._delivery.open(
            study.study_name,
            study.user_attrs["study_id"],
            parameters,
            tags,
            timeout_s=_OPEN_TIMEOUT_S,
        )

    def reconcile(self, study: optuna.Study) -> None:
        """Make the record say what the study says, as soon as the store can be used; returns at once."""
        self._study = study
        self._delivery.catch_up()

    def end(self, study: optuna.Study, status: StudyStatus) -> None:
        """Reconcile, close the study's run, and wait a bounded time until all is written.

        No trial may run any more. What is not written is told; the next run of the search writes it.
        """
        with self._live_lock:
            self._live.clear()
        self.reconcile(study)
        self._delivery.submit(None, RunUpdate(state=status))
        try:
            left = self._delivery.drain(_DRAIN_S[status])
        finally:
            self._delivery.close()
        if left:
            _logger.warning(
                "the tracking store %s did not take all of the record; the study's own folder has all "
                "results, and the same command writes what the store lacks once it answers",
                self._uri,
            )

    def log_summary(
        self, metrics: Mapping[str, float], tags: Mapping[str, str] | None = None
    ) -> None:
        """Record metrics and tags of the study as a whole."""
        self._delivery.submit(None, RunUpdate(summary=dict(metrics), tags=dict(tags or {})))

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """Keep a copy of a file or directory with the study."""
        self._delivery.attach(path, folder)

    def on_start(self, task: TrialTask, trial: FrozenTrial) -> None:
        """Open the trial's run; one that goes on is no longer paused for a reason."""
        with self._live_lock:
            self._live.add(task.number)
        goes_on = {REASON_TAG: ""} if _SECONDS in trial.user_attrs else {}
        update = RunUpdate(
            parameters=dict(flatten(task.config)),
            tags=_tags(trial) | goes_on,
            state="running",
            started_ms=_ms(trial.datetime_start),
        )
        self._delivery.submit(task.number, update)

    def on_epoch(self, number: int, metrics: dict[str, float]) -> None:
        """Record an epoch."""
        epoch = EpochMetrics(now_ms(), _charted(metrics))
        self._delivery.submit(number, RunUpdate(epochs={int(metrics["epoch"]): epoch}))

    def on_pause(self, trial: FrozenTrial, reason: str) -> None:
        """Close the run of a trial that goes on later."""
        with self._live_lock:
            self._live.discard(trial.number)
        self._close_run(trial, reason)

    def on_end(self, trial: FrozenTrial, reason: str) -> None:
        """Close the run."""
        with self._live_lock:
            self._live.discard(trial.number)
        self._close_run(trial, reason)

    def _close_run(self, trial: FrozenTrial, reason: str) -> None:
        assert self._study is not None
        update = _summary(trial, _state_at_rest(trial), objective_names(self._study))
        if reason:
            update.tags[REASON_TAG] = reason
        self._delivery.submit(trial.number, update)

    def _lacking(self, recorded: Mapping[int, RecordedRun]) -> Iterator[tuple[int, RunUpdate]]:
        """Compare the study, as it is by now, with the record."""
        assert self._study is not None
        objectives = objective_names(self._study)
        for trial in self._study.get_trials(deepcopy=False):
            if trial.state == TrialState.WAITING or not is_own(trial):
                continue
            run = recorded.get(trial.number)
            state = self._state(trial)
            last_epoch = max(curve_of(trial), default=-1)
            if run is None or run.state != state or run.last_epoch < last_epoch:
                update = self._whole(trial, state, objectives)
                if run is not None:
                    update.tags = {REASON_TAG: ""} | update.tags  # what it was paused for is past
                yield trial.number, update

    def _state(self, trial: FrozenTrial) -> RunState:
        with self._live_lock:
            return "running" if trial.number in self._live else _state_at_rest(trial)

    def _whole(self, trial: FrozenTrial, state: RunState, objectives: list[str]) -> RunUpdate:
        """All that is known of a trial."""
        update = _summary(trial, state, objectives)
        update.parameters = dict(trial.user_attrs.get("config", {}))
        update.started_ms = _ms(trial.datetime_start)
        run_dir = self._study_dir / "trials" / f"{trial.number:05d}"
        update.epochs = known_epochs(trial, run_dir, objectives[0])
        return update


def objective_names(study: optuna.Study) -> list[str]:
    """Return the names of what a study minimizes."""
    attributes = study.user_attrs
    return list(attributes.get("objectives") or [attributes["metric"]])


def known_epochs(trial: FrozenTrial, run_dir: Path, metric: str) -> dict[int, EpochMetrics]:
    """Return the metrics of the epochs that a trial has reported, from its history if that is there.

    The history may know more, which the trial reports when it goes on, and the epochs of another trial that
    this one is a copy of. Times are the trial's start plus the length of its epochs.

    Args:
        trial: As stored.
        run_dir: The trial's folder, with its history.
        metric: Name of the value that is stored for each epoch.
    """
    reported = curve_of(trial)
    if not reported:
        return {}
    metrics_of = {epoch: {metric: value} for epoch, value in reported.items()}
    last = trial.user_attrs.get("metrics", {})
    if last.get("epoch") in metrics_of:
        metrics_of[int(last["epoch"])] = last
    for metrics in read_history(run_dir):
        if min(reported) <= metrics["epoch"] <= max(reported):
            metrics_of[int(metrics["epoch"])] = metrics
    at_s = (_ms(trial.datetime_start) or now_ms()) / 1000
    epochs = {}
    for epoch in sorted(metrics_of):
        at_s += metrics_of[epoch].get("epoch_s", 0.0)
        epochs[epoch] = EpochMetrics(round(at_s * 1000), _charted(metrics_of[epoch]))
    return epochs


def _charted(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items() if name not in _NOT_CHARTED}


def _state_at_rest(trial: FrozenTrial) -> RunState:
    """The state of a trial that no process runs."""
    return _STATES.get(trial.state, "interrupted" if is_interrupted(trial) else "paused")


def _summary(trial: FrozenTrial, state: RunState, objectives: list[str]) -> RunUpdate:
    """What a trial comes to: its objectives, the metrics of its best epoch, its cost, reason and mishaps."""
    attributes = trial.user_attrs
    last = attributes.get("metrics", {})
    summary = {
        f"best_{name}": value
        for name, value in attributes.get("best_metrics", {}).items()
        if name.startswith("val_") and f"best_{name}" not in last
    }
    if _SECONDS in attributes:
        summary[_SECONDS] = attributes[_SECONDS]
    if trial.state == TrialState.COMPLETE and trial.values:
        summary["objective"] = trial.values[0]
        summary |= {f"objective/{n}": v for n, v in zip(objectives, trial.values, strict=True)}
    ended_ms = _ms(trial.datetime_complete) or now_ms()
    return RunUpdate(summary=summary, tags=_tags(trial), state=state, at_ms=ended_ms)


def _tags(trial: FrozenTrial) -> dict[str, str]:
    found = {tag: trial.user_attrs[name] for name, tag in _TAGS.items() if name in trial.user_attrs}
    return {
        tag: "; ".join(value) if isinstance(value, list) else str(value)
        for tag, value in found.items()
    }


def _ms(moment: datetime | None) -> int | None:
    return None if moment is None else round(moment.timestamp() * 1000)
