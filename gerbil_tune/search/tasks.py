"""What the study's book hands out and hears: tasks, how they end, and who listens."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Literal, Protocol

from optuna.trial import FrozenTrial

from gerbil_tune.config.schema import ExperimentConfig


@dataclass(frozen=True)
class TrialTask:
    """A trial to run, from its beginning or from its newest checkpoint.

    Attributes:
        number: Its number in the study, from 0.
        config: The whole experiment.
        epochs_done: Above 0 when it goes on.
        copy_of: The trial whose newest checkpoint it begins with, in population based training.
    """

    number: int
    config: ExperimentConfig
    epochs_done: int = 0
    copy_of: int | None = None


class NoTask(Enum):
    """Why there is no task."""

    NOW = "others must get further first"
    EVER = "the study has run all its trials, or is to stop"


EndingKind = Literal[
    "done", "interrupted", "diverged", "error", "out of memory", "crashed", "disk full"
]


@dataclass(frozen=True)
class Ending:
    """How the process that ran a task ended.

    Attributes:
        kind: ``interrupted`` where it stopped on request or because the book said so.
        reason: A sentence, for all that went wrong.
        last: What it reported last.
    """

    kind: EndingKind
    reason: str = ""
    last: dict[str, float] = field(default_factory=dict)


class StudyListener(Protocol):
    """Hears what happens to trials, in order."""

    def on_start(self, task: TrialTask, trial: FrozenTrial) -> None:
        """A trial begins or goes on."""

    def on_epoch(self, number: int, metrics: dict[str, float]) -> None:
        """A trial has done an epoch."""

    def on_pause(self, trial: FrozenTrial, reason: str) -> None:
        """A trial's process has ended, but the trial is not over."""

    def on_end(self, trial: FrozenTrial, reason: str) -> None:
        """A trial is over: complete, pruned or failed."""
