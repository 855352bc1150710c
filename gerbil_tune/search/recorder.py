"""Sends what happens in a study to a tracker; the driver alone talks to it, workers never do."""

from optuna.trial import FrozenTrial, TrialState

from gerbil_tune.config.load import flatten
from gerbil_tune.search.book import StudyBook, TrialTask
from gerbil_tune.tracking.tracker import Tracker, TrialStatus

_RUN_ID = "tracking_run_id"
_NOT_CHARTED = ("epoch", "training_done")  # the step says the one, the run's state the other
_STATUS: dict[TrialState, TrialStatus] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


class StudyRecorder:
    """A listener of the book that keeps one tracking run for each trial, across interruptions."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker
        self.book: StudyBook | None = None
        self._run_ids: dict[int, str] = {}

    def on_start(self, task: TrialTask, trial: FrozenTrial) -> None:
        """Begin or reopen the trial's run; its parameters are config paths."""
        assert self.book is not None
        run_id = self.tracker.start_trial(
            task.number, flatten(task.config), run_id=trial.user_attrs.get(_RUN_ID)
        )
        self._run_ids[task.number] = run_id
        self.book.set_trial_attribute(task.number, _RUN_ID, run_id)

    def on_epoch(self, number: int, metrics: dict[str, float]) -> None:
        """Log an epoch."""
        charted = {key: value for key, value in metrics.items() if key not in _NOT_CHARTED}
        self.tracker.log_epoch(self._run_ids[number], int(metrics["epoch"]), charted)

    def on_end(self, trial: FrozenTrial, reason: str) -> None:
        """Close the run."""
        run_id = self._run_ids.pop(trial.number)
        if trial.value is not None:
            self.tracker.log_summary(run_id, {"objective": trial.value})
        self.tracker.end_trial(run_id, _STATUS[trial.state], reason)
