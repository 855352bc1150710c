"""What surrounds Ray Train's ``fit``; with Ray itself it runs in the integration tests."""

import signal
import sys

import pytest

from gerbil_tune.training.trainer import interrupted_as_usual


def test_an_interrupt_is_no_silent_exit():
    """Ray's handler for SIGINT leaves by SystemExit."""
    before = signal.getsignal(signal.SIGINT)

    def fit():
        signal.signal(signal.SIGINT, lambda *_: sys.exit(1))
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt), interrupted_as_usual():
        fit()
    assert signal.getsignal(signal.SIGINT) is before


def test_a_later_interrupt_is_not_swallowed():
    before = signal.getsignal(signal.SIGINT)
    with interrupted_as_usual():
        signal.signal(signal.SIGINT, lambda *_: None)
    assert signal.getsignal(signal.SIGINT) is before
