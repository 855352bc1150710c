"""All studies of a folder, one line each. Reading them does not disturb a search that runs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from optuna.exceptions import StorageInternalError

from gerbil_tune.errors import ConfigError
from gerbil_tune.search.report_runs import StudyState
from gerbil_tune.search.report_study import OPEN, State, StudyView, TrialRecord, view_study
from gerbil_tune.search.storage import STUDY_FILE, is_running, stored_study

_LONGEST_PROBLEM = 400


@dataclass(frozen=True, slots=True)
class StudySummary:
    """A study in a few figures.

    Attributes:
        name: The study's.
        folder: Where it is.
        state: How it stands, or that its storage cannot be read.
        metric: The first objective's name.
        trials: Trials in each state that has any.
        best: Lowest value of a complete trial.
        champion: Its number, where one was chosen.
        champion_uri: The registered model.
        searched_s: Time of searching, all runs together.
        training_s: Time of all trials, added up.
        epochs: Of all trials.
        last_change: When anything was last written.
        problem: Why it cannot be read.
    """

    name: str
    folder: Path
    state: StudyState | Literal["unreadable"]
    metric: str = ""
    trials: dict[State, int] = field(default_factory=dict)
    best: float | None = None
    champion: int | None = None
    champion_uri: str = ""
    searched_s: float = 0.0
    training_s: float = 0.0
    epochs: int = 0
    last_change: datetime | None = None
    problem: str = ""

    def count(self, *states: State) -> int:
        """Trials in any of these states."""
        return sum(self.trials.get(state, 0) for state in states)

    @property
    def unfinished(self) -> int:
        """Trials that run, wait or were interrupted."""
        return self.count(*OPEN)


def summarize_studies(root: Path) -> list[StudySummary]:
    """Summarize every study below a folder, the last changed first.

    Args:
        root: Its subfolders with a ``study.yaml`` are studies; it may be one itself.
    """
    folders = [path.parent for path in (*root.glob(STUDY_FILE), *root.glob(f"*/{STUDY_FILE}"))]
    never = datetime.fromtimestamp(0, UTC)
    summaries = [summarize_study(folder.resolve()) for folder in folders]
    return sorted(summaries, key=lambda s: (s.last_change or never, s.name), reverse=True)


def summarize_study(folder: Path) -> StudySummary:
    """Summarize one; a storage that cannot be read becomes its ``problem``."""
    try:
        view = view_study(stored_study(folder), locked=is_running(folder))
    except (ConfigError, StorageInternalError) as error:
        problem = " ".join(str(error.__cause__ or error).split())[:_LONGEST_PROBLEM]
        return StudySummary(
            folder.name, folder, "unreadable", last_change=_written(folder), problem=problem
        )
    complete = view.in_state("complete")
    return StudySummary(
        name=view.name,
        folder=folder,
        state=view.state,
        metric=view.objectives[0],
        trials=view.count(),
        best=min((trial.values[0] for trial in complete), default=None),
        champion=view.attributes.get("champion"),
        champion_uri=str(view.attributes.get("champion_uri", "")),
        searched_s=view.searched_s,
        training_s=sum(trial.seconds or 0.0 for trial in view.trials),
        epochs=sum(len(trial.curve) for trial in view.trials),
        last_change=_last_change(folder, view, view.trials),
    )


def _last_change(folder: Path, view: StudyView, trials: Sequence[TrialRecord]) -> datetime | None:
    moments = [_written(folder), *(trial.ended for trial in trials)]
    moments += [run.ended for run in view.runs]
    return max((moment for moment in moments if moment is not None), default=None)


def _written(folder: Path) -> datetime | None:
    """When the study's file or its SQLite storage was last written."""
    seconds = [
        path.stat().st_mtime
        for name in (STUDY_FILE, "optuna.db", "optuna.db-wal")
        if (path := folder / name).exists() and path.stat().st_size
    ]
    return datetime.fromtimestamp(max(seconds), UTC).astimezone() if seconds else None
