"""What a run keeps of an epoch under way, and when: so that it can go on at the next step.

The state of a run is the same on all ranks after each step, but for two things. Each has a sum of losses of
its own, so they are joined before they are saved. With local batch norm each has running statistics of its
own, but DDP gives all those of rank 0 at the next step, and rank 0 is the one that saves.

Nothing in it depends on the number of ranks, so a run may go on with another number.
"""

import math
import time
from enum import IntEnum

import torch
import torch.distributed
from torch import Tensor

from gerbil_tune.errors import NonFiniteLossError
from gerbil_tune.training.checkpoints import PartialEpoch
from gerbil_tune.training.session import TrainingSession

_LONGEST_WITHOUT_LOOK_S = 1.0


class EpochTally:
    """Counts the steps of an epoch on one rank.

    Args:
        partial: What was done of the epoch before this process began.
        session: The place of this worker.
    """

    def __init__(self, partial: PartialEpoch, session: TrainingSession) -> None:
        self._partial = partial
        self._session = session
        self._started = time.perf_counter()
        self._steps = 0
        self._events = 0
        # In float64 the sum of float32 losses is exact in practice, so it does not matter who adds what.
        before = partial.loss_sum if session.rank == 0 else 0.0
        self._loss_sum = torch.tensor(before, dtype=torch.float64, device=session.device)

    def add(self, loss: Tensor, num_events: int) -> None:
        """Count a step of this rank without waiting for the device."""
        self._steps += 1
        self._events += num_events * self._session.world_size
        self._loss_sum += loss.double() * num_events

    def joined(self) -> PartialEpoch:
        """What all ranks have done of the epoch; every rank must ask, and gets the same.

        Raises:
            NonFiniteLossError: If a loss was NaN or infinite: such a state is not worth keeping.
        """
        loss_sum = self._loss_sum.clone()
        if self._session.world_size > 1:
            torch.distributed.all_reduce(loss_sum)
        if not math.isfinite(float(loss_sum)):
            raise NonFiniteLossError(f"the loss became {float(loss_sum)}")
        return PartialEpoch(
            step=self._partial.step + self._steps,
            loss_sum=float(loss_sum),
            num_events=self._partial.num_events + self._events,
            seconds=self._partial.seconds + time.perf_counter() - self._started,
        )


class Due(IntEnum):
    """What is to be done after a step."""

    NOTHING = 0
    SAVE = 1
    STOP = 2


class CheckpointClock:
    """Says after which steps to save within an epoch or to stop, alike on all ranks.

    What rank 0 says counts. Alone it looks at the clock and the stop request after every step. Several ranks
    look together, for which they have to wait for each other: rank 0 tells all what to do, and after how many
    steps to look again, which is about a second later, or when the next checkpoint will be due.

    Args:
        interval_s: Least time between checkpoints.
        session: The place of this worker.
    """

    def __init__(self, interval_s: float, session: TrainingSession) -> None:
        self._interval_s = interval_s
        self._session = session
        self._saved = self._looked = time.perf_counter()
        self._steps_since_look = 0
        self._look_after = 1

    def restart(self) -> None:
        """Count from now, when a checkpoint was written."""
        self._saved = time.perf_counter()

    def due(self) -> Due:
        """What is to be done; every rank asks after every step."""
        if self._session.world_size == 1:
            return self._due(time.perf_counter())
        self._steps_since_look += 1
        if self._steps_since_look < self._look_after:
            return Due.NOTHING
        answer = torch.tensor(self._look(), device=self._session.device)
        torch.distributed.broadcast(answer, src=0)
        due, self._look_after = answer.tolist()
        self._looked, self._steps_since_look = time.perf_counter(), 0
        return Due(due)

    def _due(self, now: float) -> Due:
        if self._session.stop_requested():
            return Due.STOP
        return Due.SAVE if now - self._saved >= self._interval_s else Due.NOTHING

    def _look(self) -> tuple[int, int]:
        """What is due, and after how many steps to look again; that of rank 0 counts."""
        now = time.perf_counter()
        due = self._due(now)
        left_s = self._interval_s if due else self._interval_s - (now - self._saved)
        step_s = max((now - self._looked) / self._steps_since_look, 1e-6)
        return int(due), max(1, int(min(left_s, _LONGEST_WITHOUT_LOOK_S) / step_s))
