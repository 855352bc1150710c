"""A tracker that keeps its record in the process: for tests, and for runs that ask for no tracking."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

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


@dataclass
class MemoryRun:
    """The record of one run.

    Attributes:
        parent_id: Run id of the study, None for a study itself.
        parameters: As given.
        tags: As given, and those of the tracker.
        epochs: Metrics by epoch.
        summary: Metrics of the whole run.
        artifacts: Where each file came from, by its path in the record.
    """

    parent_id: str | None
    parameters: dict[str, ParameterValue] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    epochs: dict[int, dict[str, float]] = field(default_factory=dict)
    summary: dict[str, float] = field(default_factory=dict)
    artifacts: dict[str, Path] = field(default_factory=dict)


class MemoryTracker:
    """Implements ``Tracker`` in memory.

    Attributes:
        uri: ``memory:``.
        runs: The record, by run id.
    """

    def __init__(self) -> None:
        self.uri = "memory:"
        self.runs: dict[str, MemoryRun] = {}
        self._study_id: str | None = None

    def start_study(
        self, name: str, parameters: Mapping[str, ParameterValue], tags: Mapping[str, str]
    ) -> str:
        """See ``Tracker.start_study``."""
        self._study_id = f"study:{name}"
        run = self.runs.setdefault(self._study_id, MemoryRun(parent_id=None))
        run.tags.update({STUDY_TAG: name, STATE_TAG: "running", **tags})
        _add_parameters(run, parameters)
        return self._study_id

    def start_trial(
        self,
        number: int,
        parameters: Mapping[str, ParameterValue],
        run_id: str | None = None,
    ) -> str:
        """See ``Tracker.start_trial``."""
        if self._study_id is None:
            raise RuntimeError("start_study comes before start_trial")
        if run_id is None or run_id not in self.runs:
            run_id = f"{self._study_id}/run:{len(self.runs)}"
            self.runs[run_id] = MemoryRun(parent_id=self._study_id)
        run = self.runs[run_id]
        run.tags.update({TRIAL_TAG: str(number), STATE_TAG: "running"})
        _add_parameters(run, parameters)
        return run_id

    def log_epoch(self, run_id: str, epoch: int, metrics: Mapping[str, float]) -> None:
        """See ``Tracker.log_epoch``."""
        run = self.runs[run_id]
        if run.epochs and epoch <= max(run.epochs):
            return
        finite, others = split_finite(metrics)
        run.epochs[epoch] = finite
        run.tags[LAST_EPOCH_TAG] = str(epoch)
        if others:
            run.tags[NON_FINITE_TAG] = f"{', '.join(others)} in epoch {epoch}"

    def log_summary(
        self, run_id: str, metrics: Mapping[str, float], tags: Mapping[str, str] | None = None
    ) -> None:
        """See ``Tracker.log_summary``."""
        run = self.runs[run_id]
        finite, others = split_finite(metrics)
        run.summary.update(finite)
        run.tags.update(tags or {})
        if others:
            run.tags[NON_FINITE_TAG] = f"{', '.join(others)} in the summary"

    def end_trial(self, run_id: str, status: TrialStatus, reason: str = "") -> None:
        """See ``Tracker.end_trial``."""
        self.runs[run_id].tags[STATE_TAG] = status
        if reason:
            self.runs[run_id].tags[REASON_TAG] = reason

    def log_artifact(self, run_id: str, path: Path, folder: str = "") -> None:
        """See ``Tracker.log_artifact``."""
        if not path.exists():
            raise FileNotFoundError(path)
        target = f"{folder}/{path.name}" if folder else path.name
        if path.is_dir():
            for file in sorted(path.rglob("*")):
                if file.is_file():
                    relative = file.relative_to(path).as_posix()
                    self.runs[run_id].artifacts[f"{target}/{relative}"] = file
        else:
            self.runs[run_id].artifacts[target] = path

    def end_study(self, status: StudyStatus) -> None:
        """See ``Tracker.end_study``."""
        if self._study_id is None:
            raise RuntimeError("start_study comes before end_study")
        for run in self.runs.values():
            if run.parent_id == self._study_id and run.tags[STATE_TAG] == "running":
                run.tags[STATE_TAG] = "interrupted"
        self.runs[self._study_id].tags[STATE_TAG] = status


def _add_parameters(run: MemoryRun, parameters: Mapping[str, ParameterValue]) -> None:
    """Keep the first value of each parameter; a later, different one becomes a tag."""
    for name, value in parameters.items():
        if run.parameters.setdefault(name, value) != value:
            run.tags[CHANGED_TAG_PREFIX + name] = str(value)
