"""The replayed CMA-ES: what it learns from, and that it finds the bottom of a bowl."""

import datetime
import time

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from gerbil_tune.config.parameters import FloatParameter, IntParameter
from gerbil_tune.search.cma import CmaSampler, generations, how_bad, shares_of

X = FloatParameter(type="float", low=0.0, high=1.0)
PARAMETERS = {"x": X, "y": FloatParameter(type="float", low=1e-3, high=1e1, log=True)}


def finished(x, state=TrialState.COMPLETE, value=None, curve=None, **attributes):
    return create_trial(
        state=state,
        value=value,
        params={"x": x},
        distributions={"x": FloatDistribution(0.0, 1.0)},
        intermediate_values=curve or {},
        user_attrs=attributes,
    )


def test_trials_rank_by_epochs_then_value():
    best_first = [
        finished(0.1, value=30.0, curve={9: 29.0}),
        finished(0.2, value=40.0),
        finished(0.3, TrialState.PRUNED, curve={3: 50.0, 6: 45.0}),
        finished(0.4, TrialState.PRUNED, curve={3: 20.0}),
        finished(0.5, TrialState.PRUNED, curve={3: 60.0}),
        finished(0.6, TrialState.FAIL, reason_kind="diverged"),
    ]
    shuffled = [best_first[i] for i in (3, 5, 0, 4, 2, 1)]
    assert [t.params for t in sorted(shuffled, key=how_bad)] == [t.params for t in best_first]
    infeasible = finished(0.7, TrialState.PRUNED, reason_kind="infeasible")
    assert how_bad(infeasible) > how_bad(best_first[4])


def test_a_crash_teaches_nothing_and_generations_are_whole():
    trials = [
        finished(0.1, value=1.0),
        finished(0.2, TrialState.FAIL, reason_kind="crashed"),
        finished(0.3, TrialState.FAIL, reason_kind="error"),
        finished(0.4, TrialState.FAIL, reason_kind="out of memory"),
        create_trial(state=TrialState.RUNNING),
        finished(0.5, value=1.0),
        finished(0.6, value=1.0),
        finished(0.7, value=1.0),
    ]
    found = [[t.params["x"] for t in g] for g in generations(trials, {"x": X}, 2)]
    assert found == [[0.1, 0.4], [0.5, 0.6]]


def test_trials_are_taken_in_the_order_in_which_they_ended():
    early, late = finished(0.1, value=1.0), finished(0.9, value=2.0)
    late.datetime_complete = early.datetime_complete + datetime.timedelta(seconds=5)
    early.number, late.number = 8, 3
    assert [[t.number for t in g] for g in generations([late, early], {"x": X}, 2)] == [[8, 3]]


def test_a_trial_is_a_point_of_the_unit_cube():
    trial = create_trial(
        value=1.0,
        params={"a": 0.1, "n": 3},
        distributions={
            "a": FloatDistribution(1e-3, 10.0, log=True),
            "n": optuna.distributions.IntDistribution(1, 4),
        },
    )
    numeric = {
        "a": FloatParameter(type="float", low=1e-3, high=10.0, log=True),
        "n": IntParameter(type="int", low=1, high=4),
    }
    np.testing.assert_allclose(shares_of(trial, numeric), [0.5, 0.625])


def minimize(study, parameters, objective, number):
    for _ in range(number):
        study.sampler = CmaSampler(
            parameters, study.trials, seed=len(study.trials), startup_trials=0
        )
        trial = study.ask()
        x = trial.suggest_float("x", 0.0, 1.0)
        y = trial.suggest_float("y", 1e-3, 1e1, log=True)
        trial.suggest_categorical("c", ["a", "b"])
        study.tell(trial, objective(x, np.log10(y)))


def test_it_finds_the_bottom_of_a_bowl():
    study = optuna.create_study()
    minimize(study, PARAMETERS, lambda x, y: (x - 0.8) ** 2 + (y + 2) ** 2 / 16, 120)
    assert study.best_value < 1e-3
    late = [trial.params for trial in study.trials[-20:]]
    assert np.mean([params["x"] for params in late]) == pytest.approx(0.8, abs=0.05)
    assert {params["c"] for params in late} == {"a", "b"}


def test_it_starts_anew_when_it_has_collapsed():
    study = optuna.create_study()
    minimize(study, PARAMETERS, lambda x, y: 0.0 if x < 1e-9 else 1.0 + x, 6)
    one_place = [
        create_trial(
            value=1.0,
            params={"x": 0.5, "y": 0.1},
            distributions={
                "x": FloatDistribution(0.0, 1.0),
                "y": FloatDistribution(1e-3, 1e1, log=True),
            },
        )
        for _ in range(600)
    ]
    study.add_trials(one_place)
    sampler = CmaSampler(PARAMETERS, study.trials, seed=1, startup_trials=0)
    drawn = [sampler.sample_relative(study, study.trials[-1], {})["x"]]
    study.add_trials(one_place[:60])
    drawn += [
        CmaSampler(PARAMETERS, study.trials, seed=seed, startup_trials=0).sample_relative(
            study, study.trials[-1], {}
        )["x"]
        for seed in range(2, 8)
    ]
    assert all(0.0 <= x <= 1.0 for x in drawn)


def test_one_number_is_enough_and_a_thousand_trials_take_no_time():
    study = optuna.create_study()
    generator = np.random.default_rng(0)
    study.add_trials([finished(float(x), value=float(x)) for x in generator.random(1000)])
    sampler = CmaSampler({"x": X}, study.trials, seed=1, startup_trials=0)
    started = time.process_time()
    drawn = sampler.sample_relative(study, study.trials[-1], {})
    assert time.process_time() - started < 1.0
    assert drawn.keys() == {"x"}
