"""A study's book driven in simulated time: workers that train nothing, curves that a formula gives."""

import heapq
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field

from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.search.book import StudyBook
from gerbil_tune.search.tasks import Ending, NoTask, TrialTask

Curve = Callable[[ExperimentConfig, int], float]
"""The metric of a configuration after some epochs, from 1."""


def epoch_metrics(
    epoch: int, value: float, epochs: int, best: float | None = None
) -> dict[str, float]:
    """What the training loop reports of an epoch."""
    best = value if best is None else best
    done = epoch >= epochs
    metrics = {
        "epoch": float(epoch),
        "val_error_median_mm": value,
        "best_value": best,
        "training_done": float(done),
    }
    return {**metrics, "best_val_error_median_mm": best} if done else metrics


@dataclass
class SimulatedSearch:
    """Runs the tasks of a book on several workers, all epochs taking the same time.

    Attributes:
        book: Of the study.
        curve: Of each configuration.
        truth: The same without noise, by which the search is judged; default: the curve.
        workers: Trials at a time.
        spent: Epochs trained so far.
        lowest: The lowest true value that any epoch has had.
    """

    book: StudyBook
    curve: Curve
    workers: int = 1
    truth: Curve | None = None
    spent: int = 0
    lowest: float = math.inf
    _best_of: dict[int, float] = field(default_factory=dict)

    def run(self, trials: int, epochs: int = 10**9, target: float = -math.inf) -> None:
        """Run until the study is over, so many epochs are trained, or an epoch comes to the target."""
        order = itertools.count()
        running: list[tuple[int, int, TrialTask, int]] = []
        now = 0
        while self.spent < epochs and self.lowest > target:
            while len(running) < self.workers:
                task = self.book.next_task(may_begin=self.book.num_begun() < trials)
                if isinstance(task, NoTask):
                    break
                heapq.heappush(running, (now + 1, next(order), task, task.epochs_done + 1))
            if not running:
                return
            now, _, task, epoch = heapq.heappop(running)
            if not self._step(task, epoch):
                heapq.heappush(running, (now + 1, next(order), task, epoch + 1))

    def _step(self, task: TrialTask, epoch: int) -> bool:
        """Train an epoch; return whether the task has ended."""
        self.spent += 1
        number, last = task.number, task.config.training.epochs
        value = self.curve(task.config, epoch)
        truth = value if self.truth is None else self.truth(task.config, epoch)
        self.lowest = min(self.lowest, truth)
        best = min(value, self._best_of.get(number, value))
        self._best_of[number] = best
        metrics = epoch_metrics(epoch, value, last, best)
        ends = self.book.report(number, metrics)
        if ends or epoch >= last:
            self.book.finish(
                number, Ending("done" if epoch >= last else "interrupted", "", metrics)
            )
            return True
        return False
