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

Check = Callable[[ExperimentConfig], tuple[list[float], str]]
"""Constraint values (at most 0 where kept), and what is exceeded in words."""

_MOST_REFUSALS = 200


class Proposer:
    """Begins new trials of a study.

    Nothing is remembered between proposals: what a study continued in another process proposes depends on
    its storage alone.

    Args:
        study: Where they are kept.
        space: What is searched.
        check: Of the limits on a configuration; None: there are none.
    """

    def __init__(self, study: optuna.Study, space: SpaceFile, check: Check | None = None) -> None:
        self.study = study
        self.space = space
        self.check = check

    def has_more(self) -> bool:
        """Whether there is anything left to propose; a grid comes to its end."""
        most = num_proposals(self.space)
        if most is None:
            return True
        trials = self.study.get_trials(deepcopy=False)
        return len(_proposed(trials)) < len(self.space.points) + most

    def propose(self, paused: Collection[int]) -> tuple[optuna.Trial, ExperimentConfig]:
        """Begin a trial whose configuration keeps the limits.

        Args:
            paused: Trials that are RUNNING in the storage and only wait.

        Raises:
            LaunchError: If many proposals in a row are beyond the limits.
        """
        for _ in range(_MOST_REFUSALS):
            trial = self._ask(paused)
            config = self.admit(trial)
            if config is not None:
                return trial, config
        why = self.study.trials[-1].user_attrs["reason"]
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
            return config
        trial.set_user_attr("reason", why)
        trial.set_user_attr("reason_kind", "infeasible")
        self.study.tell(trial, state=TrialState.PRUNED)
        return None

    def copy(
        self, values: Mapping[str, Scalar], attributes: Mapping[str, object]
    ) -> tuple[optuna.Trial, ExperimentConfig]:
        """Begin a trial with given values by config path."""
        named = named_point(values, self.space.parameters)
        self.study.enqueue_trial(named, user_attrs=dict(attributes))
        trial = self.study.ask()
        config = self.config_of(trial.number, sample(trial, self.space.parameters))
        trial.set_user_attr("config", flatten(config))
        return trial, config

    def config_of(self, number: int, values: Mapping[str, Scalar]) -> ExperimentConfig:
        """The experiment that the space's base and a trial's values make."""
        return compose(self.space.base, dict(values), f"trial {number}")

    def _ask(self, paused: Collection[int]) -> optuna.Trial:
        trials = self.study.get_trials(deepcopy=False)
        proposed = _proposed(trials)
        waiting = any(t.state is TrialState.WAITING for t in proposed)
        named = None if waiting else self._fixed(len(proposed))
        sampler = make_sampler(self.space.study.sampler, self.space, len(trials))
        if named is None and paused and not waiting:
            # The sampler would take those that wait for trials that have only begun.
            named = _propose_beside(trials, paused, sampler, self.space)
        if named is not None:
            self.study.enqueue_trial(named)
        self.study.sampler = sampler
        return self.study.ask()

    def _fixed(self, index: int) -> dict[str, Scalar] | None:
        points = self.space.points
        if index < len(points):
            return named_point(points[index], self.space.parameters)
        return fixed_proposal(self.space, index - len(points))


def _proposed(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """Trials that came of a proposal: not those of earlier studies, and no copies."""
    return [t for t in trials if is_own(t) and "parent" not in t.user_attrs]


def _propose_beside(
    trials: list[FrozenTrial],
    paused: Collection[int],
    sampler: optuna.samplers.BaseSampler,
    space: SpaceFile,
) -> dict[str, Scalar]:
    """Let the sampler propose in a copy of the study in which paused trials count as pruned."""
    directions = ["minimize"] * len(space.study.objectives)
    view = optuna.create_study(directions=directions, sampler=sampler)
    view.add_trials([_as_pruned(trial) if trial.number in paused else trial for trial in trials])
    trial = view.ask()
    sample(trial, space.parameters)
    return dict(trial.params)


def _as_pruned(trial: FrozenTrial) -> FrozenTrial:
    return optuna.trial.create_trial(
        state=TrialState.PRUNED,
        params=trial.params,
        distributions=trial.distributions,
        intermediate_values=trial.intermediate_values,
        system_attrs=trial.system_attrs,
    )
