"""What the user sees of a running study: a live table on a terminal, plain lines elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.live import Live
from rich.table import Table

from gerbil_tune.search.book import TrialTask

_ROWS = 12
_SYMBOLS = {
    TrialState.COMPLETE: "done",
    TrialState.PRUNED: "stopped early",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
}


@dataclass
class _Row:
    summary: str
    epochs: int
    epoch: int = 0
    value: float | None = None
    state: TrialState = TrialState.RUNNING
    note: str = ""


@dataclass
class StudyProgress:
    """Shows trials as they run; listens to the study's book.

    Args:
        total_trials: Trials that the study shall hold.
        metric: The objective's name.
        console: Where to print.
        done_before: Trials closed by earlier runs of the same study.
        best_before: Lowest value of those.
    """

    total_trials: int
    metric: str
    console: Console
    done_before: int = 0
    best_before: float | None = None
    _rows: dict[int, _Row] = field(default_factory=dict)
    _started: float = field(default_factory=time.monotonic)
    _live: Live | None = None

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Keep the live table on the screen meanwhile, where there is a screen."""
        if not self.console.is_terminal:
            yield
            return
        with Live(self._table(), console=self.console, auto_refresh=False) as self._live:
            yield
            self._live.update(self._table(), refresh=True)
        self._live = None

    def redraw(self) -> None:
        """Refresh the live table; cheap to call often."""
        if self._live is not None:
            self._live.update(self._table(), refresh=True)

    def on_start(self, task: TrialTask, trial: FrozenTrial) -> None:
        """A trial begins or goes on."""
        self._rows[task.number] = _Row(
            describe_parameters(trial.params), task.config.training.epochs, task.epochs_done
        )
        again = f", on from epoch {task.epochs_done}" if task.epochs_done else ""
        self._say(f"trial {task.number} starts{again}: {describe_parameters(trial.params, 200)}")

    def on_epoch(self, number: int, metrics: dict[str, float]) -> None:
        """A trial has done an epoch."""
        row = self._rows[number]
        row.epoch = int(metrics["epoch"])
        row.value = metrics[self.metric]
        self.redraw()

    def on_end(self, trial: FrozenTrial, reason: str) -> None:
        """A trial is over."""
        row = self._rows[trial.number]
        row.state, row.note = trial.state, reason
        if trial.value is not None:
            row.value = trial.value
        value = f" {self.metric} {row.value:.1f}" if row.value is not None else ""
        note = f" ({reason})" if reason else ""
        self._say(
            f"trial {trial.number} {_SYMBOLS[trial.state]} after {row.epoch} epochs:{value}{note}; "
            f"{self._headline()}"
        )
        self.redraw()

    def _say(self, line: str) -> None:
        if self._live is None:
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _headline(self) -> str:
        closed = self.done_before + sum(row.state.is_finished() for row in self._rows.values())
        finished = [
            row.value
            for row in self._rows.values()
            if row.state is TrialState.COMPLETE and row.value is not None
        ]
        if self.best_before is not None:
            finished.append(self.best_before)
        best = f"best {min(finished):.1f}" if finished else "none finished yet"
        minutes, seconds = divmod(int(time.monotonic() - self._started), 60)
        return f"{closed}/{self.total_trials} trials, {best}, {minutes}:{seconds:02d}"

    def _table(self) -> Table:
        table = Table(
            title=f"{self._headline()}   ({self.metric})", title_justify="left", expand=True
        )
        table.add_column("trial", justify="right", min_width=5)
        table.add_column("state", min_width=len(_SYMBOLS[TrialState.PRUNED]))
        table.add_column("epoch", justify="right", min_width=7)
        table.add_column("value", justify="right", min_width=6)
        table.add_column("parameters", overflow="ellipsis", no_wrap=True, ratio=1)
        shown = sorted(self._rows.items())[-_ROWS:]
        for number, row in shown:
            table.add_row(
                str(number),
                _SYMBOLS[row.state],
                f"{row.epoch}/{row.epochs}",
                "" if row.value is None else f"{row.value:.1f}",
                row.note or row.summary,
                style="dim" if row.state in (TrialState.PRUNED, TrialState.FAIL) else None,
            )
        return table


def describe_parameters(parameters: dict[str, object], max_length: int = 120) -> str:
    """Return sampled parameters in one line: last part of the path, short numbers."""
    parts = []
    for name, value in parameters.items():
        path = name.partition("@")[0]
        label = "/".join(path.split("/")[-2:]) if path.endswith("/kind") else path.split("/")[-1]
        parts.append(f"{label}={value:.3g}" if isinstance(value, float) else f"{label}={value}")
    text = " ".join(parts)
    return text if len(text) <= max_length else text[: max_length - 1] + "…"
