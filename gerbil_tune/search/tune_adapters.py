"""Ray Tune's two questions, answered by the study's book: what runs next, and does it go on."""

from pathlib import Path
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from gerbil_tune.search.book import StudyBook


class BookSearcher(Searcher):
    """Proposes trials from the book and closes them in it."""

    def __init__(self, book: StudyBook) -> None:
        super().__init__()
        self.book = book
        self._numbers: dict[str, int] = {}

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """Return the next trial as plain values."""
        task = self.book.next_task()
        self._numbers[trial_id] = task.number
        return {"number": task.number, "config": task.config.model_dump_json()}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Close a trial."""
        number = self._numbers.pop(trial_id)
        reason = "its process died; see the log folder of Ray" if error else ""
        self.book.finish(number, result, reason)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing: the scheduler has reported it already."""

    def save(self, checkpoint_path: str) -> None:
        """Write nothing of worth: the book is on disk already."""
        Path(checkpoint_path).write_text("{}")

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""


class BookScheduler(FIFOScheduler):
    """Runs trials in order and stops those that the book gives up."""

    def __init__(self, book: StudyBook) -> None:
        super().__init__()
        self.book = book

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Report an epoch and say whether the trial goes on."""
        if "failure" in result:
            return str(TrialScheduler.CONTINUE)
        metrics = {
            key: float(value)
            for key, value in result.items()
            if key.startswith(("val_", "train_"))
            or key in ("epoch", "epoch_s", "best_value", "learning_rate", "training_done")
        }
        stop = self.book.report(trial.config["number"], metrics)
        return str(TrialScheduler.STOP if stop else TrialScheduler.CONTINUE)


class Heartbeat(Callback):
    """Lets a display redraw while trials run."""

    def __init__(self, redraw: Any) -> None:
        self.redraw = redraw

    def __getstate__(self) -> dict[str, Any]:
        """A display does not travel."""
        return {"redraw": None}

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Redraw."""
        if self.redraw is not None:
            self.redraw()
