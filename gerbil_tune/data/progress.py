"""How far a long piece of work is: a bar on a terminal, a line every tenth elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LINES = 10
_LEAST_S_BETWEEN_LINES = 2.0

Advance = Callable[[int], None]


@contextmanager
def progress_bar(
    total: int, *, doing: str, unit: str = "events", show: bool = True
) -> Iterator[Advance]:
    """Give a function that is told how much more is done; all output goes to standard error.

    Args:
        total: How much there is in all.
        doing: What is done, such as "simulating".
        unit: What is counted; "bytes" are shown as MB.
        show: Whether to say anything.
    """
    if not show:
        yield lambda _: None
    elif sys.stderr.isatty():
        with _bar(total, doing, unit) as advance:
            yield advance
    else:
        yield _lines(total, doing, unit)


@contextmanager
def _bar(total: int, doing: str, unit: str) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    count = DownloadColumn() if unit == "bytes" else MofNCompleteColumn()
    columns = (TextColumn(doing), BarColumn(), count, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(unit, total=total)
        yield lambda more: progress.advance(task, more)


def _lines(total: int, doing: str, unit: str) -> Advance:
    started = told = time.monotonic()
    done = 0

    def advance(more: int) -> None:
        nonlocal done, told
        tenth_before, done = done * _LINES // max(total, 1), done + more
        now = time.monotonic()
        # Short work says nothing: lines are for whoever wonders whether anything happens.
        if done * _LINES // max(total, 1) > tenth_before and now - told > _LEAST_S_BETWEEN_LINES:
            told = now
            amount = f"{_amount(done, unit)} of {_amount(total, unit)}"
            print(f"{doing}: {amount} in {now - started:.0f} s", file=sys.stderr)

    return advance


def _amount(number: int, unit: str) -> str:
    return f"{number / 1e6:,.0f} MB" if unit == "bytes" else f"{number:,} {unit}"
