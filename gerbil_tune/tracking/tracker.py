"""What a search tells about itself while it runs, whatever keeps the record.

One study is one parent run; each of its trials is a child run. Only the process that drives a study
writes: workers report to it.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol

Scalar = str | int | float | bool | None
ParameterValue = Scalar | Sequence[Scalar]
"""A leaf of a config; lists such as channels per layer are leaves too."""

TrialStatus = Literal["complete", "pruned", "failed"]
StudyStatus = Literal["complete", "interrupted", "failed"]

STUDY_TAG = "gerbil_tune.study"
"""On the parent run: the study's name."""
TRIAL_TAG = "gerbil_tune.trial"
"""On a child run: the trial's number."""
STATE_TAG = "gerbil_tune.state"
"""On every run: running, complete, pruned, failed or interrupted."""
REASON_TAG = "gerbil_tune.reason"
"""Why a trial was pruned or failed."""
NON_FINITE_TAG = "gerbil_tune.non_finite"
"""Metrics that were NaN or infinite, and when last; they are not recorded as metrics."""
LAST_EPOCH_TAG = "gerbil_tune.last_epoch"
"""The last epoch recorded, so that a resumed trial does not record an epoch twice."""
CHANGED_TAG_PREFIX = "gerbil_tune.changed/"
"""Prefix of a parameter whose value differs from that of the first time; runs keep the first value."""


class Tracker(Protocol):
    """Keeps the record of a study.

    Attributes:
        uri: Where the record is kept.
    """

    uri: str

    def start_study(
        self, name: str, parameters: Mapping[str, ParameterValue], tags: Mapping[str, str]
    ) -> str:
        """Open a study's parent run; a study of the same name goes on in the run that it has.

        Args:
            name: Name of the study.
            parameters: What holds for all trials, by config path or option name.
            tags: Free labels.

        Returns:
            The id of the parent run.

        Raises:
            LaunchError: If the store cannot be reached.
        """
        ...

    def start_trial(
        self,
        number: int,
        parameters: Mapping[str, ParameterValue],
        run_id: str | None = None,
    ) -> str:
        """Open a trial's child run.

        Args:
            number: The trial's number in its study.
            parameters: The trial's config by path.
            run_id: The run of an interrupted trial that goes on; one that no longer exists is replaced.

        Returns:
            The id of the child run.
        """
        ...

    def log_epoch(self, run_id: str, epoch: int, metrics: Mapping[str, float]) -> None:
        """Record the metrics of an epoch; an epoch that is not after the last recorded one is ignored."""
        ...

    def log_summary(
        self, run_id: str, metrics: Mapping[str, float], tags: Mapping[str, str] | None = None
    ) -> None:
        """Record metrics and tags of a run as a whole; the latest value of each counts."""
        ...

    def end_trial(self, run_id: str, status: TrialStatus, reason: str = "") -> None:
        """Close a trial's run."""
        ...

    def log_artifact(self, run_id: str, path: Path, folder: str = "") -> None:
        """Keep a copy of a file or a directory as ``<folder>/<name>``."""
        ...

    def end_study(self, status: StudyStatus) -> None:
        """Close the parent run, and as interrupted every trial that is still open."""
        ...


def split_finite(metrics: Mapping[str, float]) -> tuple[dict[str, float], list[str]]:
    """Separate metrics that a chart can show from the names of those that are NaN or infinite."""
    finite = {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
    return finite, [name for name in metrics if name not in finite]
