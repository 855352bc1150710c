"""Asks Optuna for the next configuration, and refuses what is beyond the study's limits."""

from collections.abc import Callable, Collection, Mapping

import optuna
from optuna.trial import FrozenTrial, TrialState

from gerbil_tune.config.load import Scalar, compose, flatten
from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.config.space import SpaceFile
from gerbil_tune.errors import LaunchError
from gerbil_tune.search.sampler import fixed_proposal, make_sampler, num_proposals
from gerbil_tune.search.space import named_point, sample
from gerbil_tune.search.storage import is_own
from gerbil_tune.search.stored_trials import StoredTrials

Check = Callable[[ExperimentConfig], tuple[list[float], str]]
"""Constraint values (at most 0 where kept), and what is exceeded in words."""

_MOST_REFUSALS = 200


class Proposer:
    """Begins new trials of a study.

    Nothing is remembered between proposals: what a study continued in another process proposes depends on
    its storage alone.

    Args:
        trials: The study's.
        space: What is searched.
        check: Of the limits on a configuration; None: there are none.
        on_refusal: Told of each trial that is over because it is beyond them.
    """

    def __init__(
        self,
        trials: StoredTrials,
        space: SpaceFile,
        check: Check | None = None,
        on_refusal: Callable[[FrozenTrial], None] = lambda trial: None,
    ) -> None:
        self.trials = trials
        self.space = space
        self.check = check
        self.on_refusal = on_refusal

    def has_more(self) -> bool:
        """Whether there is anything left to propose; a grid comes to its end."""
        most = num_proposals(self.space)
        if most is None:
            return True
        return len(self.trials.proposed()) < len(self.space.points) + most

    def propose(self, paused: Collection[int]) -> tuple[optuna.Trial, ExperimentConfig] | None:
        """Begin a trial whose configuration keeps the limits; None where nothing is left to propose.

        Args:
            paused: Trials that are RUNNING in the storage and only wait.

        Raises:
            LaunchError: If many proposals in a row are beyond the limits, and there is no end of them.
        """
        refusals = 0
        while refusals < _MOST_REFUSALS or num_proposals(self.space) is not None:
            if not self.has_more():
                return None
            trial = self._begin(paused)
            config = self.admit(trial)
            if config is not None:
                return trial, config
            refusals += 1
        why = self.trials[-1].user_attrs["reason"]
        raise LaunchError(
            f"{_MOST_REFUSALS} proposals in a row were beyond study/constraints (the last one: {why}); "
            "relax them or change the space"
        )

    def admit(self, trial: optuna.Trial) -> ExperimentConfig | None:
        """Give a new trial its configuration; None for one beyond the limits, which is then over."""
        config = self.config_of(trial.number, sample(trial, self.space.parameters))
        numbers, why = self.check(config) if self.check is not None else ([], "")
        for index, number in enumerate(numbers):
            trial.set_constraint(f"limit {index}", number)
        if not why:
            trial.set_user_attr("config", flatten(config))
            self.trials.read(trial)
            return config
        trial.set_user_attr("reason", why)
        trial.set_user_attr("reason_kind", "infeasible")
        self.trials.study.tell(trial, state=TrialState.PRUNED)
        self.on_refusal(self.trials.read(trial))
        return None

    def copy(
        self, values: Mapping[str, Scalar], attributes: Mapping[str, object]
    ) -> tuple[optuna.Trial, ExperimentConfig]:
        """Begin a trial with given values by config path."""
        trial = self.trials.begin(named_point(values, self.space.parameters), attributes)
        config = self.config_of(trial.number, sample(trial, self.space.parameters))
        trial.set_user_attr("config", flatten(config))
        self.trials.read(trial)
        return trial, config

    def config_of(self, number: int, values: Mapping[str, Scalar]) -> ExperimentConfig:
        """The experiment that the space's base and a trial's values make."""
        return compose(self.space.base, dict(values), f"trial {number}")

    def begin_again(self, number: int, paused: Collection[int]) -> ExperimentConfig | None:
        """Give a trial its configuration of which no more than the number was stored, as ``propose`` does."""
        trial = self.trials.handle(number)
        self._set_sampler(self.trials.all()[:number], number, paused)
        return self.admit(optuna.Trial(self.trials.study, trial._trial_id))

    def _begin(self, paused: Collection[int]) -> optuna.Trial:
        trials = self.trials.all()
        self._set_sampler(trials, len(trials), paused)
        return self.trials.begin(self._fixed(len(self.trials.proposed())))

    def _set_sampler(self, trials: list[FrozenTrial], number: int, paused: Collection[int]) -> None:
        config = self.space.study.sampler
        self.trials.study.sampler = make_sampler(config, self.space, trials, number, paused)

    def _fixed(self, index: int) -> dict[str, Scalar] | None:
        points = self.space.points
        if index < len(points):
            return named_point(points[index], self.space.parameters)
        num_known = sum(not is_own(trial) for trial in self.trials.all())
        return fixed_proposal(self.space, index - len(points), num_known)
