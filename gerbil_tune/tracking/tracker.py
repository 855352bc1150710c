"""What a search tells about itself while it runs, whatever keeps the record.

One study is one parent run; each of its trials is a child run. The record is a projection of the study in
Optuna's storage: everything here may be said again, in whole or in part, and is recorded once.
"""

import math
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from gerbil_tune.errors import LaunchError

Scalar = str | int | float | bool | None
ParameterValue = Scalar | Sequence[Scalar]
"""A leaf of a config; lists such as channels per layer are leaves too."""

StudyStatus = Literal["complete", "interrupted", "failed"]
RunState = Literal["running", "paused", "interrupted", "complete", "pruned", "failed"]
"""paused: its process ended as it should, and the trial goes on later. interrupted: without a word."""

STUDY_TAG = "gerbil_tune.study"
"""On the parent run: the study's name."""
STUDY_ID_TAG = "gerbil_tune.study_id"
"""On the parent run: what tells the study from another of the same name."""
TRIAL_TAG = "gerbil_tune.trial"
"""On a child run: the trial's number."""
STATE_TAG = "gerbil_tune.state"
"""On every run: its ``RunState``."""
REASON_TAG = "gerbil_tune.reason"
"""Why a trial was paused, pruned or failed."""
REASON_KIND_TAG = "gerbil_tune.reason_kind"
"""That reason in a word, to filter by."""
MISHAPS_TAG = "gerbil_tune.mishaps"
"""What went wrong with a trial on the way and was tried again."""
PARENT_TRIAL_TAG = "gerbil_tune.parent_trial"
"""Population based training: the number of the trial that this one was copied from."""
ROOT_TRIAL_TAG = "gerbil_tune.root_trial"
"""Population based training: the first trial of this one's line."""
ACCUMULATE_TAG = "gerbil_tune.accumulate_steps"
"""Parts that each batch was split in, because it did not fit into memory whole."""
NON_FINITE_TAG = "gerbil_tune.non_finite"
"""Metrics that were NaN or infinite, and when last; they are not recorded as metrics."""
CHANGED_TAG_PREFIX = "gerbil_tune.changed/"
"""Prefix of a parameter whose value differs from that of the first time; runs keep the first value."""


class StoreAwayError(LaunchError):
    """The store cannot be used for now: locked, restarting, out of reach. The same call works later."""


class EpochMetrics(NamedTuple):
    """The metrics of an epoch, and when they were known (milliseconds since 1970)."""

    at_ms: int
    metrics: Mapping[str, float]


_clock_lock = threading.Lock()
_last_ms = 0


def now_ms() -> int:
    """Now, but later than ever before: of two values at one step MLflow shows the later one."""
    global _last_ms
    with _clock_lock:
        _last_ms = max(time.time_ns() // 1_000_000, _last_ms + 1)
        return _last_ms


@dataclass
class RunUpdate:
    """What is new about a run.

    Attributes:
        parameters: By config path or option name.
        epochs: Metrics by epoch.
        summary: Metrics of the run as a whole; the latest value of each counts.
        tags: Free labels and those above.
        state: None leaves it.
        started_ms: When the run began, if it has to be created.
        at_ms: When this was so; milliseconds since 1970.
    """

    parameters: dict[str, ParameterValue] = field(default_factory=dict)
    epochs: dict[int, EpochMetrics] = field(default_factory=dict)
    summary: dict[str, float] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    state: RunState | None = None
    started_ms: int | None = None
    at_ms: int = field(default_factory=now_ms)

    def add(self, later: "RunUpdate") -> None:
        """Take in what became new after this; of an epoch the first report counts."""
        self.parameters |= later.parameters
        self.epochs = later.epochs | self.epochs
        self.summary |= later.summary
        self.tags |= later.tags
        self.state = later.state or self.state
        self.started_ms = self.started_ms or later.started_ms
        self.at_ms = later.at_ms


class RecordedRun(NamedTuple):
    """What the record says of a trial; ``last_epoch`` is -1 before the first."""

    run_id: str
    state: str
    last_epoch: int


class Tracker(Protocol):
    """Keeps the record of one study. Every call may be repeated: the record is the same after it.

    Attributes:
        uri: Where the record is kept; it may hold a password.
    """

    uri: str

    def open_study(
        self,
        name: str,
        study_id: str,
        parameters: Mapping[str, ParameterValue],
        tags: Mapping[str, str],
    ) -> str:
        """Open the study's parent run: the one that it has already, else a new one.

        Args:
            name: Name of the study.
            study_id: Tells it from another study of the same name.
            parameters: What holds for all trials, by config path or option name.
            tags: Free labels.

        Returns:
            The id of the parent run.

        Raises:
            StoreAwayError: If the store cannot be used for now.
            LaunchError: If it is wrong in itself.
        """
        ...

    def recorded(self) -> dict[int, RecordedRun]:
        """Return what the record has now, by number of the trial.

        Raises:
            StoreAwayError: If the store cannot be used for now.
        """
        ...

    def write(self, trial: int | None, update: RunUpdate) -> None:
        """Record what is new about a trial, or about the study (None); a run that is missing is created.

        Epochs up to the last one that is recorded are ignored; so is a parameter's second value but for a
        tag that tells it.

        Raises:
            StoreAwayError: If the store cannot be used for now; a part may be written.
            LaunchError: If the store will never take this.
        """
        ...

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """Keep a copy of a file or a directory as ``<folder>/<name>`` with the study.

        Raises:
            StoreAwayError: If the store cannot be used for now.
            LaunchError: If the store will never take this.
        """
        ...


def split_finite(metrics: Mapping[str, float]) -> tuple[dict[str, float], list[str]]:
    """Separate metrics that a chart can show from the names of those that are NaN or infinite."""
    finite = {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
    return finite, [name for name in metrics if name not in finite]
