"""Stopping on request: on a signal here, and alike on all ranks there.

A signal reaches one process, the training runs in others. So the process that gets it leaves a file beside
the run, for which all workers look.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch
import torch.distributed

from gerbil_tune.training.session import TrainingSession
from gerbil_tune.training.signals import handled

STOP_FILE = "stop"
"""In the folder of a run that has no other."""


class StopTraining(Exception):  # noqa: N818 - it is no error
    """Ends the loop on request; raised on all ranks at once, and caught there."""


def any_rank(answer: bool, session: TrainingSession) -> bool:
    """Whether the answer is yes on any rank; every rank must ask, and gets the same."""
    if session.world_size == 1:
        return answer
    anywhere = torch.tensor(int(answer), device=session.device)
    torch.distributed.all_reduce(anywhere, torch.distributed.ReduceOp.MAX)
    return bool(anywhere)


@contextmanager
def stop_on_signals(stop_file: Path, say: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """Make SIGINT, SIGTERM and SIGUSR1 write ``stop_file``; a second one raises KeyboardInterrupt.

    Args:
        stop_file: An old one is removed first.
        say: Called with a sentence at the first signal.

    Yields:
        To be called when others have taken the signals meanwhile, as ``ray.init`` does with SIGTERM.
    """
    stop_file.unlink(missing_ok=True)
    asked = False

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        stop_file.parent.mkdir(parents=True, exist_ok=True)
        stop_file.touch()
        say("stopping after the step under way; once more to stop at once")

    with handled(on_signal) as listen:
        yield listen
