"""What a study may spend, and whether it has."""

from dataclasses import dataclass

from gerbil_tune.config.study import StudyConfig
from gerbil_tune.units import format_duration


@dataclass(frozen=True)
class Budget:
    """Limits of a study; None: no limit.

    Attributes:
        trials: Configurations tried, of all runs together.
        time_s: Time of all runs of the search.
        epochs: Epochs of all trials together.
        patience_trials: Finished trials in a row that have not improved the best.
        max_failures: Failed trials of one run.
    """

    trials: int
    time_s: float | None = None
    epochs: int | None = None
    patience_trials: int | None = None
    max_failures: int | None = None

    @classmethod
    def of_study(cls, study: StudyConfig) -> "Budget":
        """The limits of a study file."""
        return cls(
            trials=study.trials,
            time_s=study.time_budget_s,
            epochs=study.epoch_budget,
            patience_trials=study.patience_trials,
            max_failures=study.max_failures,
        )


@dataclass(frozen=True)
class Spent:
    """What a study has spent; the fields are those of the budget."""

    time_s: float
    epochs: int
    trials_since_best: int
    failures: int


def spent_up(budget: Budget, spent: Spent) -> str:
    """Name the limit that is reached, in a clause; empty while there is none.

    The number of trials is none of them: when the last one begins, others still run.
    """
    if budget.time_s is not None and spent.time_s >= budget.time_s:
        return f"the time budget of {format_duration(budget.time_s)} is spent"
    if budget.epochs is not None and spent.epochs >= budget.epochs:
        return f"the budget of {budget.epochs} epochs is spent"
    patience = budget.patience_trials
    if patience is not None and spent.trials_since_best >= patience:
        return f"the last {spent.trials_since_best} trials have not improved the best"
    return ""


def too_many_failures(budget: Budget, spent: Spent) -> bool:
    """Whether so many trials have failed that the search should not go on."""
    return budget.max_failures is not None and spent.failures >= budget.max_failures
