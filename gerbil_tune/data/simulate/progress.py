"""How far a simulation is: a bar on a terminal, a line every tenth elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LINES = 10

Advance = Callable[[int], None]


@contextmanager
def event_progress(total: int, *, show: bool) -> Iterator[Advance]:
    """Give a function that is told how many more events are done; all output goes to standard error.

    Args:
        total: Events in all.
        show: Whether to say anything.
    """
    if not show:
        yield lambda _: None
    elif sys.stderr.isatty():
        with _bar(total) as advance:
            yield advance
    else:
        yield _lines(total)


@contextmanager
def _bar(total: int) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("simulating"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("events", total=total)
        yield lambda count: progress.advance(task, count)


def _lines(total: int) -> Advance:
    started, done = time.monotonic(), 0

    def advance(count: int) -> None:
        nonlocal done
        tenth_before, done = done * _LINES // total, done + count
        if done * _LINES // total > tenth_before:
            seconds = time.monotonic() - started
            print(f"simulated {done} of {total} events in {seconds:.0f} s", file=sys.stderr)

    return advance
