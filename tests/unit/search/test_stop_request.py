"""Asking a search to stop: the file for the trials, the signals, the patience."""

import os
import signal
from pathlib import Path

import pytest

from gerbil_tune.search.stop_request import STOP_FILE, StopRequest, signals_interrupt


def test_the_file_is_there_while_trials_are_to_stop(tmp_path: Path) -> None:
    (tmp_path / STOP_FILE).touch()  # left by a process that was killed
    stop = StopRequest(tmp_path)
    assert not stop.file.exists()
    stop.ask("budget", "the time is up")
    assert stop.file.exists()
    assert (stop.cause, stop.reason) == ("budget", "the time is up")
    stop.withdraw()
    assert not stop.file.exists()
    assert stop.cause == "budget"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_signals_ask_and_a_second_one_is_impatient(tmp_path: Path, number: signal.Signals) -> None:
    stop = StopRequest(tmp_path)
    before = signal.getsignal(number)
    with stop.on_signals():
        os.kill(os.getpid(), number)
        assert (stop.cause, stop.reason) == ("signal", number.name)
        assert not stop.is_overdue
        os.kill(os.getpid(), number)
        assert stop.is_overdue
    assert signal.getsignal(number) is before


def test_the_first_cause_counts(tmp_path: Path) -> None:
    stop = StopRequest(tmp_path)
    stop.ask("budget", "the time is up")
    stop.ask("failures", "3 trials have failed")
    assert stop.cause == "budget"
    assert not stop.is_overdue


def test_a_disk_that_takes_no_file_is_not_waited_for(tmp_path: Path) -> None:
    stop = StopRequest(tmp_path)
    stop.file = tmp_path / "gone" / STOP_FILE
    stop.ask("disk full", "No space left on device")
    assert stop.is_overdue


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_elsewhere_signals_interrupt(number: signal.Signals) -> None:
    with signals_interrupt(), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), number)
