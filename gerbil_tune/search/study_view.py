"""What a sampler is shown of a study: its best trials and its latest, with those that wait as pruned.

The cost of a proposal grows with the trials that it learns from. Optuna's TPE takes at most 25 for good ones,
however many there are, and the rest together say where not to look: the oldest of them can be left out.
"""

import heapq
from collections.abc import Collection, Container
from typing import Any, cast

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from gerbil_tune.search.cma import how_bad

MOST_TRIALS = 250
"""Of which TPE takes its 25; fewer would let it take fewer."""
_NUM_BEST = 25


class ViewSampler(optuna.samplers.BaseSampler):
    """Proposes one trial as another sampler does that is shown a view of the study.

    Args:
        sampler: Learns from the view.
        trials: Of the study, as they are before the proposal.
        paused: Numbers of those that are RUNNING in the storage and only wait.
    """

    def __init__(
        self,
        sampler: optuna.samplers.BaseSampler,
        trials: list[FrozenTrial],
        paused: Container[int],
    ) -> None:
        self._sampler = sampler
        self._trials = shown_trials(trials, paused)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """What the sampler proposes jointly."""
        return self._sampler.infer_relative_search_space(self._view(study), trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Propose jointly."""
        return self._sampler.sample_relative(self._view(study), trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Propose a parameter that not all trials have."""
        return self._sampler.sample_independent(
            self._view(study), trial, param_name, param_distribution
        )

    def _view(self, study: optuna.Study) -> optuna.Study:
        return cast("optuna.Study", _View(study, self._trials))


class _View:
    """A study of which fewer trials are seen; in all else the study itself."""

    def __init__(self, study: optuna.Study, trials: list[FrozenTrial]) -> None:
        self._study = study
        self._trials = trials

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Collection[TrialState] | None = None,
        use_cache: bool = False,
    ) -> list[FrozenTrial]:
        """Optuna's samplers ask for trials by this name; they change none of them."""
        return [trial for trial in self._trials if states is None or trial.state in states]


def shown_trials(trials: list[FrozenTrial], paused: Container[int]) -> list[FrozenTrial]:
    """Choose what a sampler learns from, in the order of the trials' numbers.

    Of one objective these are the best 25 trials, as TPE ranks them, and the latest; of several, which TPE
    ranks by dominance, all. Those that run are shown beside them.

    Args:
        trials: Of the study.
        paused: Numbers of those that are RUNNING and only wait: a sampler would take them for trials of
            which nothing is known yet.
    """
    seen = [_as_pruned(trial) if trial.number in paused else trial for trial in trials]
    over = [trial for trial in seen if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    if len(over) <= MOST_TRIALS or any(trial.values and len(trial.values) > 1 for trial in over):
        return seen
    latest = over[_NUM_BEST - MOST_TRIALS :]
    best = heapq.nsmallest(_NUM_BEST, over[: _NUM_BEST - MOST_TRIALS], key=_rank)
    kept = {trial.number for trial in (*latest, *best)}
    return [t for t in seen if t.state is TrialState.RUNNING or t.number in kept]


def _rank(trial: FrozenTrial) -> tuple[bool, int, int, float]:
    is_infeasible = any(value > 0 for value in trial.constraints.values())
    return (is_infeasible, *how_bad(trial))


def _as_pruned(trial: FrozenTrial) -> FrozenTrial:
    pruned = optuna.trial.create_trial(
        state=TrialState.PRUNED,
        params=trial.params,
        distributions=trial.distributions,
        intermediate_values=trial.intermediate_values,
        user_attrs=trial.user_attrs,
        system_attrs=trial.system_attrs,
    )
    pruned.number = trial.number
    return pruned
