"""What the stored trials of a study tell: which count, which are over, which were interrupted."""

import math

from optuna.trial import FrozenTrial, TrialState

from gerbil_tune.search.storage import is_own


def num_begun(trials: list[FrozenTrial]) -> int:
    """Own trials that have begun, without copies and without those that are beyond the limits."""
    return sum(map(_counts, trials))


def num_closed(trials: list[FrozenTrial]) -> int:
    """Those of ``num_begun`` that are over; a member of a population is not while a copy of it runs."""
    places = {t.user_attrs["replaces"]: t for t in trials if "replaces" in t.user_attrs}

    def is_over(trial: FrozenTrial) -> bool:
        while trial.number in places:
            trial = places[trial.number]
        replaced = trial.user_attrs.get("reason_kind") == "replaced"
        return bool(trial.state.is_finished()) and not replaced

    return sum(_counts(trial) and is_over(trial) for trial in trials)


def is_interrupted(trial: FrozenTrial) -> bool:
    """Whether a trial's process has ended before it, and nothing says that it should wait."""
    return trial.state is TrialState.RUNNING and not trial.user_attrs.get("paused_at")


def _counts(trial: FrozenTrial) -> bool:
    """Whether a trial is one of those that the budget counts."""
    attributes = trial.user_attrs
    return (
        is_own(trial)
        and trial.state is not TrialState.WAITING
        and "parent" not in attributes
        and attributes.get("reason_kind") != "infeasible"
    )


def unfilled_places(trials: list[FrozenTrial]) -> list[tuple[int, int]]:
    """Members that were replaced when the process died before their copy had begun, with the donors."""
    filled = {trial.user_attrs.get("replaces") for trial in trials}
    return [
        (trial.number, trial.user_attrs["donor"])
        for trial in trials
        if trial.user_attrs.get("reason_kind") == "replaced"
        and trial.state.is_finished()
        and trial.number not in filled
    ]


def in_order_of_their_end(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """Own trials that are over and have taken part in the competition."""
    over = [
        trial
        for trial in trials
        if is_own(trial)
        and trial.datetime_complete is not None
        and trial.user_attrs.get("reason_kind") not in ("infeasible", "replaced")
    ]
    return sorted(over, key=lambda trial: (trial.datetime_complete, trial.number))


def value_of(trial: FrozenTrial) -> float:
    """The first objective of a complete trial; infinite for others."""
    return trial.values[0] if trial.state is TrialState.COMPLETE else math.inf
