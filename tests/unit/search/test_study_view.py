"""What samplers are shown of a study, and that TPE learns from it what it would learn from all."""

from collections.abc import Callable

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.samplers._tpe.sampler import _split_trials, default_gamma
from optuna.trial import FrozenTrial, TrialState, create_trial

from gerbil_tune.search.study_view import MOST_TRIALS, ViewSampler, shown_trials

MANY = 3 * MOST_TRIALS


def trial_of(
    number: int, state: TrialState, values: list[float] | None, **more: object
) -> FrozenTrial:
    trial = create_trial(
        state=state,
        values=values,
        params={"x": (number * 0.618) % 1.0},
        distributions={"x": FloatDistribution(0.0, 1.0)},
        **more,  # type: ignore[arg-type]
    )
    trial.number = number
    return trial


def mixed(number: int) -> FrozenTrial:
    """Every fifth complete, others pruned after one to three epochs, some of them beyond a limit."""
    value = 30 + 40 * ((number * 0.754) % 1.0)
    if number % 5 == 0:
        return trial_of(number, TrialState.COMPLETE, [value])
    curve = {epoch: value + 9 / epoch for epoch in range(1, 2 + number % 3)}
    limit = {"limit 0": float(number % 4 - 2)}
    return trial_of(number, TrialState.PRUNED, None, intermediate_values=curve, constraints=limit)


def few_complete(number: int) -> FrozenTrial:
    """TPE has to take some of the pruned ones for good."""
    return mixed(5 * (number // 5) if number % 97 == 0 else 5 * number + 1)


@pytest.fixture
def study() -> optuna.Study:
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))


@pytest.mark.parametrize("make", [mixed, few_complete])
def test_tpe_finds_the_same_trials_good(
    study: optuna.Study, make: Callable[[int], FrozenTrial]
) -> None:
    trials = [make(number) for number in range(MANY)]
    for number, trial in enumerate(trials):
        trial.number = number
    shown = shown_trials(trials, ())
    assert len(shown) == MOST_TRIALS
    assert [t.number for t in shown] == sorted(t.number for t in shown)
    assert default_gamma(MOST_TRIALS) == default_gamma(MANY) == 25
    good, _ = _split_trials(study, trials, 25)
    good_of_shown, _ = _split_trials(study, shown, 25)
    assert [t.number for t in good_of_shown] == [t.number for t in good]


def test_all_are_shown_of_a_small_study_and_of_several_objectives() -> None:
    small = [mixed(number) for number in range(MOST_TRIALS)]
    assert shown_trials(small, ()) == small
    several = [trial_of(n, TrialState.COMPLETE, [1.0, float(n)]) for n in range(MANY)]
    assert shown_trials(several, ()) == several


def test_those_that_wait_are_shown_as_pruned_and_those_that_run_as_running() -> None:
    trials = [mixed(number) for number in range(MANY)]
    for number in (3, 8):
        trials[number] = trial_of(number, TrialState.RUNNING, None, intermediate_values={1: 1.0})
    shown = {trial.number: trial for trial in shown_trials(trials, {8})}
    assert shown[3].state is TrialState.RUNNING
    waiting = next(trial for trial in shown_trials(trials[:20], {8}) if trial.number == 8)
    assert waiting.state is TrialState.PRUNED
    assert waiting.params == trials[8].params
    assert waiting.intermediate_values == {1: 1.0}
    assert trials[8].state is TrialState.RUNNING


@pytest.mark.parametrize("make", [optuna.samplers.TPESampler, optuna.samplers.GPSampler])
def test_a_proposal_is_the_samplers_own_where_all_are_shown(
    study: optuna.Study, make: Callable[..., optuna.samplers.BaseSampler]
) -> None:
    for number in range(80):
        study.add_trial(mixed(number))
    trials = study.get_trials(deepcopy=False)
    proposals = []
    for sampler in (make(seed=3), ViewSampler(make(seed=3), trials, ())):
        view = optuna.create_study(sampler=sampler)
        view.add_trials(trials)
        proposals.append(view.ask({"x": FloatDistribution(0.0, 1.0)}).params)
    assert proposals[0] == proposals[1]
    assert (
        proposals[0]
        != optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=3))
        .ask({"x": FloatDistribution(0.0, 1.0)})
        .params
    )
