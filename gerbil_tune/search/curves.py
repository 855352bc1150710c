"""What the trial schedulers know of each trial: its curve and where it stands."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from optuna.trial import FrozenTrial, TrialState

from gerbil_tune.search.storage import curve_of, is_own


@dataclass
class TrialCurve:
    """What is known of a trial.

    Attributes:
        number: The trial's.
        epochs: Its last epoch.
        values: Its metric by epoch; lower is better.
        paused_at: Epoch at which it waits to go on; 0 where it does not.
        cleared_epoch: Epoch up to which nothing is to be decided any more.
        is_over: Complete, pruned or failed.
    """

    number: int
    epochs: int
    values: dict[int, float] = field(default_factory=dict)
    paused_at: int = 0
    cleared_epoch: int = 0
    is_over: bool = False


Curves = Mapping[int, TrialCurve]


def read_curves(trials: Sequence[FrozenTrial]) -> dict[int, TrialCurve]:
    """The curves of a study's own trials, by number."""
    return {
        trial.number: _read_curve(trial)
        for trial in trials
        if is_own(trial) and trial.state is not TrialState.WAITING and "config" in trial.user_attrs
    }


def _read_curve(trial: FrozenTrial) -> TrialCurve:
    attributes = trial.user_attrs
    return TrialCurve(
        number=trial.number,
        epochs=int(attributes["config"].get("training/epochs", 0)),
        values=curve_of(trial),
        paused_at=attributes.get("paused_at", 0),
        cleared_epoch=attributes.get("cleared_epoch", 0),
        is_over=trial.state.is_finished(),
    )
