"""Stopping a search: on a signal, at the end of its budget, or on a disk that is full.

Trials run in other processes, perhaps on other machines. They learn of it by a file in the study's folder,
which all of them reach; each writes a checkpoint and ends.
"""

import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

from gerbil_tune.training.signals import handled

STOP_FILE = "stop"
_PATIENCE_S = 90.0
"""For trials to write their checkpoints."""


Cause = Literal["", "signal", "budget", "failures", "disk full", "storage"]
"""Who or what asked; empty while nobody did."""


class StopRequest:
    """Whether the search is to stop, and why; the file tells the trials.

    Attributes:
        file: Is there while the trials are to stop.
        cause: Who or what asked first.
        reason: Why, in a clause.
    """

    def __init__(self, study_dir: Path) -> None:
        self.file = study_dir / STOP_FILE
        self.cause: Cause = ""
        self.reason = ""
        self._impatient = False
        self._since = 0.0
        self.file.unlink(missing_ok=True)  # of a run that was killed while it stopped

    def ask(self, cause: Cause, reason: str) -> None:
        """Ask all trials to stop; asking again by a signal means at once."""
        if self.cause:
            self._impatient = self._impatient or cause == "signal"
            return
        self.cause, self.reason, self._since = cause, reason, time.monotonic()
        try:
            self.file.touch()
        except OSError:  # the disk is full: the trials will not hear of it
            self._impatient = True

    @property
    def is_overdue(self) -> bool:
        """Whether to wait no longer for trials that have not stopped."""
        waited = bool(self.cause) and time.monotonic() - self._since > _PATIENCE_S
        return self._impatient or waited

    def withdraw(self) -> None:
        """Let later work run; the reason remains."""
        self.file.unlink(missing_ok=True)

    def on_signals(self) -> AbstractContextManager[Callable[[], None]]:
        """Make Ctrl-C, SIGTERM and SIGUSR1 ask to stop meanwhile."""
        return handled(lambda number, _: self.ask("signal", signal.Signals(number).name))


def signals_interrupt() -> AbstractContextManager[Callable[[], None]]:
    """Make SIGTERM and SIGUSR1 raise KeyboardInterrupt meanwhile, as Ctrl-C does."""
    return handled(signal.default_int_handler)
