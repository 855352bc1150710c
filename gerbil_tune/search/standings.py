"""How a study stands while it runs: counts, the best trials and those that run.

It keeps the best finished trials only, so a study of thousands costs no memory.
"""

import heapq
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING, Literal

from optuna.trial import FrozenTrial, TrialState

from gerbil_tune.search.storage import curve_of, is_own

if TYPE_CHECKING:
    from gerbil_tune.search.tasks import TrialTask

Standing = Literal[
    "complete", "stopped early", "replaced", "infeasible", "failed", "running", "paused"
]

_KEPT = 60
"""Finished trials; no terminal shows more."""
_LONG_TEXT = 1000
_OWN_KINDS: dict[str, Standing] = {"replaced": "replaced", "infeasible": "infeasible"}
_ENDED: dict[TrialState, Standing] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "stopped early",
    TrialState.FAIL: "failed",
}


@dataclass(slots=True)
class LiveTrial:
    """A line of the table.

    Attributes:
        number: Of the trial.
        parameters: In one line.
        epochs: Its last epoch if nothing stops it; 0 if unknown.
        epoch: The last one done.
        values: The objectives, as far as known: of the last epoch while it runs, of the best once complete.
        standing: Where it stands.
        note: Why it was stopped.
    """

    number: int
    parameters: str
    epochs: int = 0
    epoch: int = 0
    values: tuple[float, ...] = ()
    standing: Standing = "running"
    note: str = ""

    @property
    def rank(self) -> tuple[bool, float, int]:
        """Sorts by the first objective, trials without one last."""
        return (not self.values, self.values[0] if self.values else 0.0, self.number)


@dataclass
class Standings:
    """What is known of a study's trials; fed by the book's events.

    Args:
        objectives: Names of the metrics; lower is better.

    Attributes:
        counts: Trials by standing, earlier runs included.
        running: Trials that run.
        paused: Trials that wait or were interrupted.
        best: The complete trial with the lowest first objective.
        best_parameters: Its parameters, not cut short.
        epochs: Of all trials, earlier runs included.
        closed_epochs: Those of trials that are over.
        seconds: That trials took whose process is over.
        last_failure: The last trial that failed.
    """

    objectives: tuple[str, ...]
    counts: Counter[Standing] = field(default_factory=Counter)
    running: dict[int, LiveTrial] = field(default_factory=dict)
    paused: dict[int, LiveTrial] = field(default_factory=dict)
    best: LiveTrial | None = None
    best_parameters: str = ""
    epochs: int = 0
    closed_epochs: int = 0
    seconds: float = 0.0
    last_failure: LiveTrial | None = None
    _finished: list[LiveTrial] = field(default_factory=list)

    @property
    def closed(self) -> int:
        """Trials that are over; one that was replaced goes on in its copy."""
        return self.counts["complete"] + self.counts["stopped early"] + self.counts["failed"]

    def read(self, trials: Iterable[FrozenTrial]) -> None:
        """Take in the trials of earlier runs; those that are not over wait for their turn."""
        for stored in filter(is_own, trials):
            if stored.state == TrialState.WAITING:
                continue
            trial = self._read(stored)
            self.epochs += len(curve_of(stored))
            self.seconds += stored.user_attrs.get("seconds", 0.0)
            if stored.state.is_finished():
                self._close(trial, stored)
            else:
                trial.standing = "paused"
                self.paused[trial.number] = trial

    def start(self, task: "TrialTask", stored: FrozenTrial) -> LiveTrial:
        """A trial begins or goes on."""
        trial = self.paused.pop(task.number, None) or self._read(stored)
        trial.standing, trial.note = "running", ""
        trial.epochs = task.config.training.epochs
        trial.epoch = max(trial.epoch, task.epochs_done)
        self.running[task.number] = trial
        return trial

    def epoch(self, number: int, metrics: dict[str, float]) -> None:
        """A running trial has done an epoch; one that it repeats after a crash does not count."""
        trial = self.running[number]
        epoch = int(metrics["epoch"])
        if epoch > trial.epoch:
            self.epochs += 1
        trial.epoch = epoch
        trial.values = _values(metrics, self.objectives)

    def pause(self, stored: FrozenTrial, reason: str, seconds: float) -> LiveTrial:
        """A trial's process has ended, but the trial has not."""
        trial = self.running.pop(stored.number, None) or self._read(stored)
        trial.standing, trial.note = "paused", reason
        self.seconds += seconds
        self.paused[stored.number] = trial
        return trial

    def end(self, stored: FrozenTrial, reason: str, seconds: float) -> LiveTrial:
        """A trial is over."""
        running = self.running.pop(stored.number, None)
        trial = running or self.paused.pop(stored.number, None) or self._read(stored)
        trial.note = reason
        self.seconds += seconds
        self._close(trial, stored)
        return trial

    def top(self, num_rows: int) -> list[LiveTrial]:
        """The trials to show, best first: those that run before those that wait or are over."""
        others = _best_of((*self._finished, *self.paused.values()), num_rows)
        at_least = min(len(others), max(1, num_rows // 4))
        shown = _best_of(self.running.values(), num_rows - at_least)
        return sorted(shown + others[: num_rows - len(shown)], key=attrgetter("rank"))

    def _read(self, stored: FrozenTrial) -> LiveTrial:
        known = stored.user_attrs
        return LiveTrial(
            number=stored.number,
            parameters=describe_parameters(stored.params),
            epochs=int(known.get("config", {}).get("training/epochs", 0)),
            epoch=max(curve_of(stored), default=0),
            values=_values(known.get("metrics", {}), self.objectives),
            note=str(known.get("reason", "")),
        )

    def _close(self, trial: LiveTrial, stored: FrozenTrial) -> None:
        kind = stored.user_attrs.get("reason_kind", "")
        trial.standing = _OWN_KINDS.get(kind, _ENDED[stored.state])
        self.counts[trial.standing] += 1
        if trial.standing == "infeasible":
            return
        self.closed_epochs += trial.epoch
        if trial.standing == "complete":
            trial.values = tuple(stored.values)
            if self.best is None or trial.rank < self.best.rank:
                self.best = trial
                self.best_parameters = describe_parameters(stored.params, _LONG_TEXT)
        if trial.standing == "failed":
            self.last_failure = trial
        else:
            self._finished.append(trial)
        if len(self._finished) > 2 * _KEPT:
            self._finished = _best_of(self._finished, _KEPT)


def _best_of(trials: Iterable[LiveTrial], number: int) -> list[LiveTrial]:
    return heapq.nsmallest(number, trials, key=attrgetter("rank"))


def _values(metrics: dict[str, float], objectives: Sequence[str]) -> tuple[float, ...]:
    """The objectives, as far as they are known one after the other."""
    values = (metrics.get(name, math.nan) for name in objectives)
    return tuple(itertools.takewhile(math.isfinite, values))


def describe_parameters(parameters: dict[str, object], max_length: int = 120) -> str:
    """Return sampled parameters in one line: last part of the path, short numbers."""
    parts = []
    for name, value in parameters.items():
        path = name.partition("@")[0]
        label = "/".join(path.split("/")[-2:]) if path.endswith("/kind") else path.split("/")[-1]
        parts.append(f"{label}={value:.3g}" if isinstance(value, float) else f"{label}={value}")
    text = " ".join(parts)
    return text if len(text) <= max_length else text[: max_length - 1] + "…"
