"""The trials of a study as its storage holds them, read once and then one by one.

A search is its study's only writer, so it knows which trial has changed. Optuna's own cache reads every
unfinished trial again whenever it is asked for all: with hundreds that run or wait, that is seconds for each
proposal.
"""

from collections.abc import Mapping

import optuna
from optuna.trial import FrozenTrial, TrialState

from gerbil_tune.config.load import Scalar
from gerbil_tune.search.storage import is_own

_FIXED = "fixed_params"
"""Where Optuna looks for the parameters that a trial was begun with, as of those that are enqueued."""


class StoredTrials:
    """Begins trials of a study and keeps what is stored of all.

    Args:
        study: Written by nobody else meanwhile.
    """

    def __init__(self, study: optuna.Study) -> None:
        self.study = study
        self._trials: list[FrozenTrial] = []
        self.read_all()

    def __getitem__(self, number: int) -> FrozenTrial:
        return self._trials[number]

    def __len__(self) -> int:
        return len(self._trials)

    def read_all(self) -> None:
        """Read all anew, for example after some were added."""
        self._trials = self.study.get_trials(deepcopy=False)

    def all(self) -> list[FrozenTrial]:
        """All, in the order of their numbers."""
        return list(self._trials)

    def proposed(self) -> list[FrozenTrial]:
        """Those that came of a proposal: not those of earlier studies, and no copies."""
        return [t for t in self._trials if is_own(t) and "parent" not in t.user_attrs]

    def in_state(self, state: TrialState) -> list[FrozenTrial]:
        """Those in one state."""
        return [trial for trial in self._trials if trial.state is state]

    def read(self, trial: optuna.Trial | FrozenTrial) -> FrozenTrial:
        """Read one that has changed."""
        frozen = self.study._storage.get_trial(trial._trial_id)
        self._trials[frozen.number] = frozen
        return frozen

    def begin(
        self,
        fixed: Mapping[str, Scalar] | None = None,
        attributes: Mapping[str, object] | None = None,
    ) -> optuna.Trial:
        """Begin a trial; in one step with what is known of it, so that a kill leaves no half of it.

        Args:
            fixed: Parameters by Optuna's name; the study's sampler proposes all others.
            attributes: User attributes.
        """
        template = optuna.trial.create_trial(
            state=TrialState.RUNNING,
            user_attrs=dict(attributes or {}),
            system_attrs={} if fixed is None else {_FIXED: dict(fixed)},
        )
        trial_id = self.study._storage.create_new_trial(
            self.study._study_id, template_trial=template
        )
        self._trials.append(self.study._storage.get_trial(trial_id))
        return optuna.Trial(self.study, trial_id)

    def handle(self, number: int) -> optuna.Trial:
        """To write on one that has begun."""
        self.study.sampler = optuna.samplers.RandomSampler()  # Optuna asks it to propose once more
        return optuna.Trial(self.study, self._trials[number]._trial_id)
