"""The runs of the search command on one study: when it searched, with what, and how each run ended."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import zip_longest
from typing import Any, Literal

StudyState = Literal["running", "interrupted", "complete", "failed"]


@dataclass(frozen=True, slots=True)
class StudyRun:
    """One run of the command.

    Attributes:
        started: With its time zone.
        ended: None while it runs, and of a run that was killed.
        status: As the run noted it.
        cpus: Of all trials that run at a time.
        gpus: Of all trials that run at a time.
        trials_at_once: Trials that run at a time, None where unknown.
    """

    started: datetime
    ended: datetime | None
    status: str
    cpus: float
    gpus: float
    trials_at_once: int | None


def read_runs(attributes: Mapping[str, Any]) -> tuple[StudyRun, ...]:
    """The runs that a study's attributes tell of, in order."""
    return tuple(
        StudyRun(
            started=_moment(run["started"]),
            ended=_moment(run["ended"]) if run.get("ended") else None,
            status=str(run.get("status", "running")),
            cpus=float(run.get("cpus", 0.0)),
            gpus=float(run.get("gpus", 0.0)),
            trials_at_once=run.get("trials_at_once"),
        )
        for run in attributes.get("runs", ())
    )


def study_state(runs: Sequence[StudyRun], *, locked: bool) -> StudyState:
    """How a study stands.

    Args:
        runs: Its runs.
        locked: Whether a search holds the study just now. A last run that calls itself running without
            holding it was killed.
    """
    status = runs[-1].status if runs else "running"
    if status == "complete":
        return "complete"
    if status == "failed":
        return "failed"
    return "running" if locked and status == "running" else "interrupted"


def closed_runs(runs: Sequence[StudyRun], signs: Sequence[datetime]) -> list[StudyRun]:
    """The runs, each with an end: a killed one ends with its last sign of life.

    Args:
        runs: Of the study, in order.
        signs: When trials began and ended; of a running study, now too.
    """
    closed = []
    for run, following in zip_longest(runs, runs[1:]):
        alive = [
            sign
            for sign in signs
            if run.started <= sign and (following is None or sign <= following.started)
        ]
        ended = run.ended or max(alive, default=run.started)
        closed.append(replace(run, ended=ended))
    return closed


def searched_hours(moment: datetime, runs: Sequence[StudyRun]) -> float:
    """Hours of searching before a moment, the pauses between runs left out.

    Args:
        moment: With its time zone.
        runs: Each with an end.
    """
    seconds = 0.0
    for run in runs:
        ended = run.ended or moment
        seconds += max(0.0, (min(moment, ended) - run.started).total_seconds())
    return seconds / 3600


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone()
