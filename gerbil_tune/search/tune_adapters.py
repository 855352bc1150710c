"""Ray Tune's questions, answered by the study's book: what runs next, does it go on, is it all over."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.tune import Callback, Stopper
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from gerbil_tune.search.book import StudyBook
from gerbil_tune.search.budget import spent_up, too_many_failures
from gerbil_tune.search.stop_request import StopRequest
from gerbil_tune.search.tasks import Ending, NoTask
from gerbil_tune.training.ray_thread import loss_of_ray

_NOTE_TIME_EVERY_S = 30.0


class BookKeeping:
    """What the adapters share: the book, the wish to stop, and what went wrong in the driver itself.

    Tune swallows or wraps what its callbacks raise; here it ends the search in order, and is raised after.
    """

    def __init__(self, book: StudyBook, stop: StopRequest) -> None:
        self.book = book
        self.stop = stop
        self.budget = book.budget()
        self.error: Exception | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Ray pickles it for a restore that this project does without."""
        return {}

    def guarded(self, work: Callable[[], Any], instead: Any) -> Any:
        """Do something with the book; after an error do no more than end."""
        if self.error is not None:
            return instead
        try:
            return work()
        except Exception as error:  # whatever it is, trials must be able to save themselves
            self.error = error
            self.stop.ask("storage", "the study could not be written")
            return instead

    def notice_loss(self) -> bool:
        """Whether Ray itself is gone; nothing that it still says of trials counts then."""
        loss = loss_of_ray()
        self.error = self.error or loss
        return loss is not None

    def look_at_budget(self) -> None:
        """Ask all to stop once a limit is reached."""
        spent = self.book.spent()
        if self.book.disk_full:
            self.stop.ask("disk full", self.book.disk_full)
        elif too_many_failures(self.budget, spent):
            self.stop.ask("failures", f"{spent.failures} trials have failed")
        elif reason := spent_up(self.budget, spent):
            self.stop.ask("budget", reason)


class BookSearcher(Searcher):
    """Proposes trials from the book and closes them in it."""

    def __init__(self, keeping: BookKeeping) -> None:
        super().__init__()
        self.keeping = keeping
        self._numbers: dict[str, int] = {}
        self._errors: dict[str, str] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the next trial as plain values, None for none now, FINISHED for none any more."""
        return self.keeping.guarded(lambda: self._suggest(trial_id), Searcher.FINISHED)

    def _suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        book = self.keeping.book
        self.keeping.look_at_budget()
        if self.keeping.stop.cause:
            return str(Searcher.FINISHED)
        task = book.next_task(may_begin=book.num_begun() < self.keeping.budget.trials)
        if task is NoTask.NOW:
            return None
        if task is NoTask.EVER:
            return str(Searcher.FINISHED)
        self._numbers[trial_id] = task.number
        return {
            "number": task.number,
            "config": task.config.model_dump_json(),
            "copy_of": task.copy_of,
        }

    def note_error(self, trial_id: str, text: str) -> None:
        """Keep what Ray says of a trial whose process has failed, until it is closed."""
        self._errors[trial_id] = text

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Close a trial, or note that it goes on later."""
        number = self._numbers.pop(trial_id)
        text = self._errors.pop(trial_id, "")
        ending = crash(text) if error else ending_of(result or {})
        self.keeping.notice_loss()
        if error and self.keeping.stop.cause == "signal":
            # Whoever stops a whole session or job signals the trials' processes too.
            ending = Ending("interrupted")
        self.keeping.guarded(lambda: self.keeping.book.finish(number, ending), None)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing: the scheduler has reported it already."""

    def save(self, checkpoint_path: str) -> None:
        """Write nothing of worth: the book is on disk already."""
        Path(checkpoint_path).write_text("{}")

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""


class BookScheduler(FIFOScheduler):
    """Runs trials in order and ends the processes of those that the book stops or lets wait."""

    def __init__(self, keeping: BookKeeping, searcher: BookSearcher) -> None:
        super().__init__()
        self.keeping = keeping
        self.searcher = searcher

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Report an epoch and say whether the process goes on."""
        if "ending" in result:
            return str(TrialScheduler.CONTINUE)
        number, metrics = trial.config["number"], numbers_of(result)
        # Once nobody notes epochs any more none is trained: only the last of a run is told again.
        ends = self.keeping.guarded(lambda: self._report(number, metrics), True)
        return str(TrialScheduler.STOP if ends else TrialScheduler.CONTINUE)

    def _report(self, number: int, metrics: dict[str, float]) -> bool:
        ends = self.keeping.book.report(number, metrics)
        self.keeping.look_at_budget()
        # Short epochs would go on for some of them before the trial sees the file that asks it to stop.
        return ends or bool(self.keeping.stop.cause)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """Keep what is known of the failure; the searcher hears next that there was one."""
        path = Path(trial.error_file) if trial.error_file else None
        text = path.read_text(errors="replace") if path and path.is_file() else ""
        self.searcher.note_error(trial.trial_id, text)


class Heartbeat(Callback):
    """Between results: watches the budget, and lets a display redraw."""

    def __init__(self, keeping: BookKeeping, redraw: Callable[[], None]) -> None:
        self.keeping = keeping
        self.redraw = redraw
        self._noted = time.monotonic()

    def __getstate__(self) -> dict[str, Any]:
        """A display does not travel."""
        return {}

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Look at the budget and redraw."""
        self.keeping.guarded(self._beat, None)

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Let Tune forget what it would keep of every trial to the end: the book has it."""
        forget(trial)

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """The same of one whose process has died."""
        forget(trial)

    def _beat(self) -> None:
        self.redraw()
        self.keeping.look_at_budget()
        if time.monotonic() - self._noted > _NOTE_TIME_EVERY_S:
            self.keeping.book.note_time()
            self._noted = time.monotonic()


class OverdueStopper(Stopper):
    """Ends the trials that have not ended by themselves when they were asked to."""

    def __init__(self, stop: StopRequest) -> None:
        self.stop = stop

    def __getstate__(self) -> dict[str, Any]:
        """A wish does not travel."""
        return {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No single trial is ended here."""
        return False

    def stop_all(self) -> bool:
        """Whether patience is at its end."""
        return self.stop.is_overdue


def forget(trial: Trial) -> None:
    """Drop the statistics of a trial's results and its config, tens of kilobytes of each trial."""
    known = trial.run_metadata
    known.metric_analysis = {}
    known.metric_n_steps = {}
    trial.config = {}
    trial.evaluated_params = {}
    trial.invalidate_json_state()


def numbers_of(result: dict[str, Any]) -> dict[str, float]:
    """The loop's own metrics out of all that Tune adds."""
    return {
        key: float(value)
        for key, value in result.items()
        if key.startswith(("val_", "train_", "best_", "predict_"))
        or key in ("epoch", "epoch_s", "learning_rate", "training_done")
    }


def ending_of(result: dict[str, Any]) -> Ending:
    """How a process ended that came to an end of its own."""
    last = numbers_of(result)
    if "ending" in result:
        return Ending(result["ending"], str(result["reason"]), last)
    return Ending("done" if last.get("training_done") else "interrupted", "", last)


def crash(text: str) -> Ending:
    """What Ray's report of a dead process says."""
    said = " ".join(text.split())
    # Of any process that dies Ray says that the "OOM killer" may have been it: that tells nothing.
    if re.search(r"OutOfMemoryError|NODE_OUT_OF_MEMORY|the node running low on memory", said):
        return Ending(
            "out of memory", "its process was ended because the machine ran out of memory"
        )
    if re.search(r"node (which|it was on|the actor was on).*(died|dead|terminated|removed)", said):
        return Ending("crashed", "the machine that it ran on was lost")
    gone = r"ActorDiedError|ActorUnavailableError|actor died|temporarily unavailable|WorkerCrashed"
    if re.search(gone, said):
        return Ending("crashed", "its process was killed or died")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return Ending(
        "crashed", f"its process failed: {lines[-1][:300] if lines else 'nothing was said'}"
    )
