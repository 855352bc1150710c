"""What the user sees of a running study: a live view on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import optuna
from optuna.trial import FrozenTrial
from rich.console import Console
from rich.live import Live

from gerbil_tune.search.progress_view import live_view
from gerbil_tune.search.standings import LiveTrial, Standings, describe_parameters
from gerbil_tune.units import format_duration

if TYPE_CHECKING:
    from gerbil_tune.search.tasks import TrialTask

_REDRAW_S = 0.25


@dataclass(frozen=True)
class BudgetView:
    """What a study may spend, and what a trial takes of the machine.

    Attributes:
        total_trials: Trials that the study shall hold.
        time_budget_s: Of all runs of the search together; None: no limit.
        epoch_budget: Of all trials together; None: no limit.
        cpus_per_trial: CPUs of one trial, all its workers together.
        gpus_per_trial: GPUs of one trial, perhaps a fraction.
    """

    total_trials: int
    time_budget_s: float | None = None
    epoch_budget: int | None = None
    cpus_per_trial: float = 1.0
    gpus_per_trial: float = 0.0


@dataclass
class StudyProgress:
    """Shows trials as they run; listens to the study's book.

    Args:
        console: Where to print.
        objectives: Names of the metrics that are minimized, the first one first.
        budget: What the study may spend.
        clock: Tells seconds.
    """

    console: Console
    objectives: tuple[str, ...]
    budget: BudgetView
    clock: Callable[[], float] = time.monotonic
    name: str = ""
    _standings: Standings = field(init=False)
    _began: float = field(init=False)
    _spent_before_s: float = 0.0
    _epochs_before: int = 0
    _running_since: dict[int, float] = field(default_factory=dict)
    _live: Live | None = None
    _drawn: float = float("-inf")

    def __post_init__(self) -> None:
        self._standings = Standings(self.objectives)
        self._began = self.clock()

    def begin(self, study: optuna.Study) -> None:
        """Take in what earlier runs have left; the time of this run counts from here."""
        self.name = study.study_name
        self._standings = Standings(self.objectives)
        self._standings.read(study.get_trials(deepcopy=False))
        self._epochs_before = self._standings.epochs
        self._spent_before_s = study.user_attrs.get("spent_s", 0.0)
        self._began = self.clock()

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Keep the live view on the screen meanwhile, where there is a screen."""
        if not self.console.is_terminal:
            yield
            return
        with Live(console=self.console, auto_refresh=False) as self._live:
            self._draw()
            try:
                yield
            finally:
                self._draw()
                self._live = None

    def redraw(self) -> None:
        """Refresh the live view, but not more often than anyone can read."""
        if self._live is not None and self.clock() - self._drawn >= _REDRAW_S:
            self._draw()

    def on_start(self, task: "TrialTask", trial: FrozenTrial) -> None:
        """A trial begins or goes on."""
        shown = self._standings.start(task, trial)
        self._running_since[task.number] = self.clock()
        how = ""
        if task.epochs_done:
            how = f", on from epoch {task.epochs_done}"
        elif task.copy_of is not None:
            how = f" as a copy of trial {task.copy_of}"
        self._say(f"trial {shown.number} starts{how}: {describe_parameters(trial.params, 200)}")

    def on_epoch(self, number: int, metrics: dict[str, float]) -> None:
        """A trial has done an epoch."""
        self._standings.epoch(number, metrics)
        self.redraw()

    def on_pause(self, trial: FrozenTrial, reason: str) -> None:
        """A trial's process has ended, but the trial is not over."""
        shown = self._standings.pause(trial, reason, self._seconds_of(trial.number))
        self._tell(shown, "waits")

    def on_end(self, trial: FrozenTrial, reason: str) -> None:
        """A trial is over."""
        shown = self._standings.end(trial, reason, self._seconds_of(trial.number))
        self._tell(shown, shown.standing)

    def headline(self) -> str:
        """Trials done, the best value and the time, in one line."""
        standings = self._standings
        best = f"best {standings.best.values[0]:.4g}" if standings.best else "none complete yet"
        elapsed = format_duration(self.spent_s)
        return f"{standings.closed} of {self.budget.total_trials} trials, {best}, {elapsed}"

    @property
    def spent_s(self) -> float:
        """Time of searching so far, earlier runs included."""
        return self._spent_before_s + self.clock() - self._began

    def spending(self) -> str:
        """What was spent so far, in one line."""
        now = self.clock()
        running_s = sum(now - since for since in self._running_since.values())
        hours = (self._standings.seconds + running_s) / 3600
        parts = [f"{hours * self.budget.cpus_per_trial:.2f} CPU hours"]
        if self.budget.gpus_per_trial:
            parts.append(f"{hours * self.budget.gpus_per_trial:.2f} GPU hours")
        return f"spent {', '.join(parts)}, {self._standings.epochs} epochs"

    def time_left(self) -> str:
        """How long the search will still take, and which limit ends it; empty while nobody can know."""
        limits = []
        if self.budget.time_budget_s is not None:
            limits.append((self.budget.time_budget_s - self.spent_s, "time budget"))
        elapsed = self.clock() - self._began
        epochs = self._standings.epochs - self._epochs_before
        if epochs > 0 and elapsed > 0:
            pace = epochs / elapsed
            limits.append((self._epochs_to_come() / pace, f"{self.budget.total_trials} trials"))
            if self.budget.epoch_budget is not None:
                rest = self.budget.epoch_budget - self._standings.epochs
                limits.append((rest / pace, f"{self.budget.epoch_budget} epochs"))
        if not limits:
            return ""
        seconds, limit = min(limits)
        if seconds <= 0:
            return ""
        step = 60 if seconds > 600 else 1
        return f"about {format_duration(step * round(seconds / step))} left ({limit})"

    def _epochs_to_come(self) -> float:
        """Epochs until all trials are over, if those to come take as many as those that are over."""
        standings = self._standings
        going_on = [*standings.running.values(), *standings.paused.values()]
        longest = max((trial.epochs for trial in going_on), default=0)
        usual = standings.closed_epochs / standings.closed if standings.closed else longest
        rest = sum(
            (usual if trial.epoch < usual else trial.epochs) - trial.epoch for trial in going_on
        )
        begun = standings.closed + len(going_on)
        return rest + usual * max(0, self.budget.total_trials - begun)

    def _seconds_of(self, number: int) -> float:
        now = self.clock()
        return now - self._running_since.pop(number, now)

    def _tell(self, trial: LiveTrial, what: str) -> None:
        value = f" {self.objectives[0]} {trial.values[0]:.4g}" if trial.values else ""
        note = f" ({trial.note})" if trial.note else ""
        plural = "" if trial.epoch == 1 else "s"
        self._say(
            f"trial {trial.number} {what} after {trial.epoch} epoch{plural}:{value}{note}; "
            f"{self.headline()}"
        )
        self.redraw()

    def _say(self, line: str) -> None:
        if self._live is None:
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _draw(self) -> None:
        if self._live is None:
            return
        self._drawn = self.clock()
        title = f"{self.name}: {self.headline()}" if self.name else self.headline()
        below = "; ".join(filter(None, (self.spending(), self.time_left())))
        width, height = self.console.size
        view = live_view(self._standings, title, below, width=width, height=height)
        self._live.update(view, refresh=True)
