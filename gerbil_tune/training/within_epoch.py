"""What a run keeps of an epoch under way, and when: so that it can go on at the next step.

The state of a run is the same on all ranks after each step, but for two things. Each has a sum of losses of
its own, so they are joined before they are saved. Each has running statistics of batch norm of its own, but
DDP gives all those of rank 0 at the next step, and rank 0 is the one that saves.
"""

import math
import time

import torch
import torch.distributed
from torch import Tensor

from gerbil_tune.errors import NonFiniteLossError
from gerbil_tune.training.session import TrainingSession
from gerbil_tune.training.state import PartialEpoch


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
        self._loss_sum += loss

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


class CheckpointClock:
    """Says after which steps to save within an epoch, alike on all ranks.

    Time is that of rank 0. Alone it looks at the clock after every step. Several ranks look together, for
    which they have to wait for each other: rank 0 tells all whether to save, and after how many steps to look
    again, which is about when the next checkpoint will be due.

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

    def is_due(self) -> bool:
        """Whether to save; every rank asks after every step."""
        if self._session.world_size == 1:
            return time.perf_counter() - self._saved >= self._interval_s
        self._steps_since_look += 1
        if self._steps_since_look < self._look_after:
            return False
        answer = torch.tensor(self._look(), device=self._session.device)
        torch.distributed.broadcast(answer, src=0)
        is_due, self._look_after = answer.tolist()
        self._looked, self._steps_since_look = time.perf_counter(), 0
        return bool(is_due)

    def _look(self) -> tuple[int, int]:
        """Whether to save, and after how many steps to look again; that of rank 0 counts."""
        now = time.perf_counter()
        is_due = now - self._saved >= self._interval_s
        left_s = self._interval_s if is_due else self._interval_s - (now - self._saved)
        step_s = (now - self._looked) / self._steps_since_look
        return int(is_due), max(1, int(min(left_s / max(step_s, 1e-6), 1e6)))
