"""Progress of a batch prediction: a bar on a terminal, a line now and then anywhere else."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

_LINE_EVERY_S = 10.0


@contextlib.contextmanager
def show_progress(num_events: int) -> Iterator[Callable[[int], None]]:
    """Show how many of some events are done, events a second and the time left, on standard error.

    Yields:
        A function that is told how many events more are done.
    """
    if sys.stderr.isatty():
        with _bar(num_events) as advance:
            yield advance
    else:
        yield _lines(num_events)


@contextlib.contextmanager
def _bar(num_events: int) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("events"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    started = time.monotonic()
    done = 0
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("events", total=num_events, rate="")

        def advance(more: int) -> None:
            nonlocal done
            done += more
            rate = done / max(time.monotonic() - started, 1e-9)
            progress.update(task, advance=more, rate=f"{rate:,.0f}/s")

        yield advance


def _lines(num_events: int) -> Callable[[int], None]:
    started = last = time.monotonic()
    done = 0

    def advance(more: int) -> None:
        nonlocal done, last
        done += more
        now = time.monotonic()
        if now - last < _LINE_EVERY_S and done < num_events:
            return
        last = now
        print(progress_line(done, num_events, now - started), file=sys.stderr, flush=True)

    return advance


def progress_line(done: int, num_events: int, elapsed_s: float) -> str:
    """One line: events done of all, their rate and the time left."""
    rate = done / max(elapsed_s, 1e-9)
    left_s = round((num_events - done) / max(rate, 1e-9))
    minutes, seconds = divmod(left_s, 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{done:,} of {num_events:,} events, {rate:,.0f} events/s, "
        f"{hours}:{minutes:02d}:{seconds:02d} left"
    )
