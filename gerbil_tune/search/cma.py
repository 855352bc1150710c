"""CMA-ES without a memory of its own: each proposal replays the study (Hansen 2016, arXiv:1604.00772).

Optuna's own sampler of that name keeps a pickled optimizer in the storage. Replaying a thousand trials takes
some milliseconds, leaves nothing to lose and learns from every trial that has ended, whoever proposed it.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from cmaes import CMA
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from gerbil_tune.config.parameters import FloatParameter, IntParameter, Parameter, always_numeric
from gerbil_tune.search.space import distribution
from gerbil_tune.search.storage import curve_of

_FIRST_SD = 0.3
"""Of the unit cube's side: about that of a uniform distribution, so startup trials are a first generation."""
_TEACHING_FAILURES = ("diverged", "out of memory")


class CmaSampler(optuna.samplers.BaseSampler):
    """Adapts a Gaussian to the numbers that are searched outside branches; the rest is drawn at random.

    Trials are taken in the order in which they ended, a generation at a time, and ranked by the epochs that
    they reached, then by their value: so those that were stopped early teach too. When the distribution has
    collapsed, it starts anew.

    Args:
        parameters: As in the space file.
        trials: Of the study, as they are before the proposal.
        seed: Of this proposal.
        startup_trials: Trials that are drawn at random before it models anything.
    """

    def __init__(
        self,
        parameters: Mapping[str, Parameter],
        trials: Sequence[FrozenTrial],
        *,
        seed: int,
        startup_trials: int,
    ) -> None:
        self._trials = trials
        self._numeric = always_numeric(parameters)
        self._seed = seed
        self._startup_trials = startup_trials
        self._random = optuna.samplers.RandomSampler(seed=seed)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The numbers that it adapts."""
        return {path: distribution(parameter) for path, parameter in self._numeric.items()}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw those numbers from the Gaussian as it stands after all whole generations."""
        if trial.number < self._startup_trials:
            return {}
        shares = self._replayed(self._trials).ask().tolist()
        return {
            path: parameter.at(share)
            for (path, parameter), share in zip(self._numeric.items(), shares, strict=True)
        }

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Draw another parameter at random."""
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def _replayed(self, trials: Sequence[FrozenTrial]) -> CMA:
        optimizer = self._fresh()
        for generation in generations(trials, self._numeric, optimizer.population_size):
            if optimizer.should_stop():
                optimizer = self._fresh()
            ranked = sorted(generation, key=how_bad)
            optimizer.tell(
                [
                    (shares_of(trial, self._numeric), float(rank))
                    for rank, trial in enumerate(ranked)
                ]
            )
        return self._fresh() if optimizer.should_stop() else optimizer

    def _fresh(self) -> CMA:
        dimensions = len(self._numeric)
        return CMA(
            mean=np.full(dimensions, 0.5),
            sigma=_FIRST_SD,
            bounds=np.tile([0.0, 1.0], (dimensions, 1)),
            seed=self._seed % 2**32,
        )


def generations(
    trials: Sequence[FrozenTrial],
    numeric: Mapping[str, FloatParameter | IntParameter],
    size: int,
) -> Iterator[list[FrozenTrial]]:
    """Yield trials that teach, so many at a time, in the order in which they ended."""
    teaching = [t for t in trials if _teaches(t) and numeric.keys() <= t.params.keys()]
    teaching.sort(key=lambda trial: (trial.datetime_complete, trial.number))
    for start in range(0, len(teaching) - size + 1, size):
        yield teaching[start : start + size]


def _teaches(trial: FrozenTrial) -> bool:
    """Whether a trial's end says something about its parameters; a crash or a mistake does not."""
    if trial.state is TrialState.FAIL:
        return trial.user_attrs.get("reason_kind") in _TEACHING_FAILURES
    return trial.state in (TrialState.COMPLETE, TrialState.PRUNED)


def how_bad(trial: FrozenTrial) -> tuple[int, int, float]:
    """Sorts trials, the best first: complete ones by value, then others by epochs and last value."""
    if trial.state is TrialState.COMPLETE:
        return 0, 0, trial.values[0]
    curve = curve_of(trial)
    if trial.state is TrialState.FAIL or not curve:
        return 2, 0, 0.0
    epoch = max(curve)
    return 1, -epoch, curve[epoch]


def shares_of(
    trial: FrozenTrial, numeric: Mapping[str, FloatParameter | IntParameter]
) -> np.ndarray:
    """A trial's numbers as a point of the unit cube."""
    shares = [parameter.share(trial.params[path]) for path, parameter in numeric.items()]
    return np.array([min(max(share, 0.0), 1.0) for share in shares])
