"""The signals that ask for an orderly end: of Ctrl-C, of kill and machines that go down, of SLURM."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)

Handler = Callable[[int, FrameType | None], object]


@contextmanager
def handled(handler: Handler) -> Iterator[Callable[[], None]]:
    """Call a handler for SIGINT, SIGTERM and SIGUSR1 meanwhile; in a thread, which gets none, do nothing.

    Yields:
        To be called when others have taken the signals meanwhile, as ``ray.init`` does with SIGTERM.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return

    def listen() -> None:
        for number in SIGNALS:
            signal.signal(number, handler)

    before = {number: signal.getsignal(number) for number in SIGNALS}
    listen()
    try:
        yield listen
    finally:
        for number, handler_before in before.items():
            signal.signal(number, handler_before)
