"""The live view of a study: the best trial, the table of trials, counts and spending."""

from rich.box import ROUNDED, SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gerbil_tune.search.standings import LiveTrial, Standings

_FEWEST_ROWS = 3
_MOST_ROWS = 20
_OTHER_LINES = 12
"""Lines of the view that are no trials."""
_CARD_LINES = 3
_BAR_WIDTH = 8
_BARE_WIDTH = 70
"""Columns of the screen that the table needs without bars."""
_STYLES = {
    "running": "",
    "paused": "dim",
    "stopped early": "dim",
    "replaced": "dim",
    "complete": "",
}
_COUNT_WORDS = {
    "complete": "complete",
    "stopped early": "stopped early",
    "replaced": "replaced",
    "failed": "failed",
    "infeasible": "beyond a constraint",
}


def live_view(
    standings: Standings, title: str, below: str, *, width: int, height: int
) -> RenderableType:
    """Everything that fits on a screen.

    Args:
        standings: Of the study.
        title: The line on top.
        below: The line at the end.
        width: Columns of the screen.
        height: Its lines.
    """
    num_rows = max(_FEWEST_ROWS, min(_MOST_ROWS, height - _OTHER_LINES))
    parts: list[RenderableType] = [Text(title, style="bold", no_wrap=True, overflow="ellipsis")]
    if standings.best is not None:
        parts.append(_best_card(standings, standings.best, width))
    parts += [_table(standings, num_rows, width), _counts(standings)]
    if standings.last_failure is not None:
        failed = standings.last_failure
        words = f"trial {failed.number} failed: {failed.note}"
        parts.append(Text(words, style="red", no_wrap=True, overflow="ellipsis"))
    parts.append(Text(below, no_wrap=True, overflow="ellipsis"))
    return Group(*parts)


def _best_card(standings: Standings, best: LiveTrial, width: int) -> Panel:
    names = [_short(name) for name in standings.objectives]
    values = "  ".join(
        f"{name} {value:.4g}" for name, value in zip(names, best.values, strict=False)
    )
    parameters = Text(standings.best_parameters, overflow="fold")
    parameters.truncate(_CARD_LINES * (width - 5), overflow="ellipsis")
    return Panel(
        parameters,
        title=f"[bold]best: trial {best.number}[/]  {values}",
        title_align="left",
        box=ROUNDED,
        border_style="green",
    )


def _table(standings: Standings, num_rows: int, width: int) -> Table:
    bars = width >= _BARE_WIDTH + _BAR_WIDTH * len(standings.objectives)
    table = Table(box=SIMPLE_HEAD, expand=True, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("trial", justify="right", min_width=5)
    table.add_column("state", min_width=len("stopped early"), no_wrap=True)
    table.add_column("epoch", justify="right", min_width=5, no_wrap=True)
    if bars:
        table.add_column("", min_width=_BAR_WIDTH, max_width=_BAR_WIDTH)
    for name in standings.objectives:
        table.add_column(_short(name), justify="right", min_width=6, no_wrap=True)
    table.add_column("parameters", overflow="ellipsis", no_wrap=True, ratio=1)
    best = standings.best.number if standings.best is not None else None
    for trial in standings.top(num_rows):
        style = "green" if trial.number == best else _STYLES.get(trial.standing, "red")
        table.add_row(*_cells(trial, len(standings.objectives), bars=bars), style=style)
    return table


def _cells(trial: LiveTrial, num_objectives: int, *, bars: bool) -> list[RenderableType]:
    values = [f"{value:#.4g}" for value in trial.values]
    values += [""] * (num_objectives - len(values))
    note = trial.note if trial.standing == "paused" else ""
    return [
        str(trial.number),
        trial.standing,
        f"{trial.epoch}/{trial.epochs}" if trial.epochs else str(trial.epoch),
        *([_bar(trial)] if bars else []),
        *values,
        Text(f"{note}; {trial.parameters}" if note else trial.parameters),
    ]


def _bar(trial: LiveTrial) -> RenderableType:
    if trial.standing != "running" or not trial.epochs:
        return ""
    return ProgressBar(total=trial.epochs, completed=trial.epoch, width=_BAR_WIDTH)


def _counts(standings: Standings) -> Text:
    counts = [
        f"{standings.counts[kind]} {word}"  # type: ignore[index]
        for kind, word in _COUNT_WORDS.items()
        if standings.counts[kind]  # type: ignore[index]
    ]
    for word, trials in (("running", standings.running), ("paused", standings.paused)):
        if trials:
            counts.append(f"{len(trials)} {word}")
    return Text(", ".join(counts) or "no trial yet", no_wrap=True, overflow="ellipsis")


def _short(metric: str) -> str:
    """A metric's name in a narrow column: error (mm), nll, calibration, ms."""
    words = metric.removeprefix("val_").removesuffix("_per_event").split("_")
    return " ".join(words[-2:] if words[-1] in ("mm", "ms", "s") else words[:1])
