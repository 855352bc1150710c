"""A tracker that keeps its record in the process: for tests, and for runs that ask for no tracking."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gerbil_tune.errors import LaunchError
from gerbil_tune.tracking.tracker import (
    CHANGED_TAG_PREFIX,
    NON_FINITE_TAG,
    STATE_TAG,
    STUDY_ID_TAG,
    STUDY_TAG,
    TRIAL_TAG,
    ParameterValue,
    RecordedRun,
    RunUpdate,
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

    @property
    def last_epoch(self) -> int:
        """The last epoch that is recorded, -1 before the first."""
        return max(self.epochs, default=-1)


class MemoryTracker:
    """Implements ``Tracker`` in memory.

    Attributes:
        uri: ``memory:``.
        runs: The record, by run id.
    """

    def __init__(self) -> None:
        self.uri = "memory:"
        self.runs: dict[str, MemoryRun] = {}
        self._study_run_id: str | None = None

    def open_study(
        self,
        name: str,
        study_id: str,
        parameters: Mapping[str, ParameterValue],
        tags: Mapping[str, str],
    ) -> str:
        """See ``Tracker.open_study``."""
        self._study_run_id = f"study:{study_id}"
        self.runs.setdefault(self._study_run_id, MemoryRun(parent_id=None))
        own_tags = {STUDY_TAG: name, STUDY_ID_TAG: study_id}
        self.write(None, RunUpdate(dict(parameters), tags={**own_tags, **tags}, state="running"))
        return self._study_run_id

    def recorded(self) -> dict[int, RecordedRun]:
        """See ``Tracker.recorded``."""
        return {
            int(run.tags[TRIAL_TAG]): RecordedRun(run_id, run.tags[STATE_TAG], run.last_epoch)
            for run_id, run in self.runs.items()
            if run.parent_id is not None and run.parent_id == self._study_run_id
        }

    def write(self, trial: int | None, update: RunUpdate) -> None:
        """See ``Tracker.write``."""
        run = self._run(trial)
        _add_parameters(run, update.parameters)
        for epoch in sorted(update.epochs):
            if epoch > run.last_epoch:
                finite, others = split_finite(update.epochs[epoch].metrics)
                run.epochs[epoch] = finite
                if others:
                    run.tags[NON_FINITE_TAG] = f"{', '.join(others)} in epoch {epoch}"
        finite, others = split_finite(update.summary)
        run.summary.update(finite)
        if others:
            run.tags[NON_FINITE_TAG] = f"{', '.join(others)} in the summary"
        run.tags.update(update.tags)
        if update.state is not None:
            run.tags[STATE_TAG] = update.state

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """See ``Tracker.log_artifact``."""
        if not path.exists():
            raise LaunchError(f"{path} cannot be kept, because it does not exist")
        artifacts = self._run(None).artifacts
        target = f"{folder}/{path.name}" if folder else path.name
        if path.is_dir():
            for file in sorted(path.rglob("*")):
                if file.is_file():
                    artifacts[f"{target}/{file.relative_to(path).as_posix()}"] = file
        else:
            artifacts[target] = path

    def _run(self, trial: int | None) -> MemoryRun:
        if self._study_run_id is None:
            raise RuntimeError("open_study comes before everything else")
        if trial is None:
            return self.runs[self._study_run_id]
        run = self.runs.setdefault(
            f"{self._study_run_id}/{trial:05d}", MemoryRun(parent_id=self._study_run_id)
        )
        run.tags.setdefault(TRIAL_TAG, str(trial))
        run.tags.setdefault(STATE_TAG, "running")
        return run


def _add_parameters(run: MemoryRun, parameters: Mapping[str, ParameterValue]) -> None:
    """Keep the first value of each parameter; a later, different one becomes a tag."""
    for name, value in parameters.items():
        if run.parameters.setdefault(name, value) != value:
            run.tags[CHANGED_TAG_PREFIX + name] = str(value)
