"""Every sampler against a real storage: repeatable over restarts, quiet, within the space."""

import math
import statistics
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from gerbil_tune.config.load import compose
from gerbil_tune.config.space import SpaceFile
from gerbil_tune.search.sampler import fixed_proposal, make_sampler, num_proposals
from gerbil_tune.search.space import sample

KINDS = ("tpe", "gp", "cmaes", "random", "grid", "quasi-random")


def make_space(kind: str, **sampler: object) -> SpaceFile:
    return SpaceFile.model_validate(
        {
            "name": "s",
            "study": {"sampler": {"kind": kind, "seed": 3, "startup_trials": 4, **sampler}},
            "parameters": {
                "optimizer/learning_rate": {"type": "float", "low": 1e-4, "high": 0.1, "log": True},
                "lr_schedule/warmup_fraction": {"type": "float", "low": 0.0, "high": 0.2},
                "features/gcc/envelope": {"type": "categorical", "choices": [False, True]},
                "model/kind": {
                    "type": "branch",
                    "branches": {
                        "gcc-net": {"model/lags/hidden": {"type": "int", "low": 8, "high": 32}},
                        "densenet": {"model/growth": {"type": "int", "low": 4, "high": 8}},
                    },
                },
            },
        }
    )


def open_study(path: Path) -> optuna.Study:
    storage = JournalStorage(JournalFileBackend(str(path)))
    return optuna.create_study(storage=storage, study_name="s", load_if_exists=True)


def propose(study: optuna.Study, space: SpaceFile) -> optuna.Trial:
    named = fixed_proposal(space, len(study.trials))
    if named is not None:
        study.enqueue_trial(named)
    trials = study.trials
    number = len(trials) - (named is not None)
    study.sampler = make_sampler(space.study.sampler, space, trials[:number], number)
    trial = study.ask()
    compose({}, sample(trial, space.parameters), "proposal")
    return trial


def run(study: optuna.Study, space: SpaceFile, number: int) -> None:
    for _ in range(number):
        trial = propose(study, space)
        value = 20.0 + trial.number % 7
        if trial.number % 3:
            study.tell(trial, value)
        else:
            trial.report(value, 1)
            study.tell(trial, state=TrialState.PRUNED)


@pytest.mark.parametrize("kind", KINDS)
def test_a_continued_study_proposes_what_an_undisturbed_one_would(
    kind: str, tmp_path: Path
) -> None:
    space = make_space(kind)
    whole = open_study(tmp_path / "whole")
    run(whole, space, 7)
    storage = tmp_path / "parts"
    for number in (3, 2, 1, 1):
        run(open_study(storage), space, number)
    parts = open_study(storage)
    proposals = [trial.params for trial in whole.trials]
    assert proposals == [trial.params for trial in parts.trials]
    assert len({str(parameters) for parameters in proposals}) == 7


@pytest.mark.parametrize("kind", ["tpe", "gp", "cmaes", "random"])
def test_several_trials_at_a_time_are_different(kind: str) -> None:
    study = optuna.create_study()
    space = make_space(kind)
    run(study, space, 9)
    assert len({str(propose(study, space).params) for _ in range(4)}) == 4


def bowl(parameters: dict[str, Any]) -> float:
    rate, warmup = parameters["optimizer/learning_rate"], parameters["lr_schedule/warmup_fraction"]
    return (math.log10(rate) + 2) ** 2 + (20 * (warmup - 0.05)) ** 2


@pytest.mark.parametrize(("kind", "number"), [("tpe", 40), ("gp", 12), ("cmaes", 50)])
def test_learning_beats_an_even_spread(kind: str, number: int) -> None:
    study = optuna.create_study()
    space = make_space(kind)
    for _ in range(number):
        trial = propose(study, space)
        study.tell(trial, bowl(trial.params))
    spread = [fixed_proposal(make_space("quasi-random"), index) or {} for index in range(32)]
    late = [trial.value for trial in study.trials[number // 2 :]]
    assert statistics.median(late) < 0.7 * statistics.median(map(bowl, spread))


@pytest.mark.parametrize("kind", ["tpe", "gp", "random", "quasi-random"])
def test_several_objectives_and_constraints(kind: str) -> None:
    study = optuna.create_study(directions=["minimize", "minimize"])
    space = make_space(kind)
    for number in range(8):
        trial = propose(study, space)
        trial.set_constraint("limit 0", float(number % 2) - 0.5)
        if number % 2:
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, (float(number), -float(number)))
    assert len(study.best_trials) == 4


@pytest.mark.parametrize("kind", ["tpe", "gp", "cmaes"])
def test_the_start_is_quasi_random_or_random(kind: str) -> None:
    quasi = make_space(kind)
    start = [fixed_proposal(quasi, index) for index in range(6)]
    assert all(named is not None for named in start[:4])
    assert start[4:] == [None, None]
    assert start[:4] == [fixed_proposal(make_space("quasi-random"), index) for index in range(4)]
    assert fixed_proposal(make_space(kind, startup="random"), 0) is None


@pytest.mark.parametrize("kind", ["tpe", "gp", "cmaes"])
def test_trials_of_earlier_studies_shorten_the_start(kind: str) -> None:
    space = make_space(kind)
    start = [fixed_proposal(space, index, num_known=3) for index in range(3)]
    assert start == [fixed_proposal(space, 0), None, None]
    assert fixed_proposal(space, 0, num_known=4) is None


@pytest.mark.parametrize("kind", ["grid", "quasi-random"])
def test_a_sequence_does_not_care_for_earlier_trials(kind: str) -> None:
    space = make_space(kind)
    assert fixed_proposal(space, 7, num_known=100) == fixed_proposal(space, 7) is not None


def test_random_proposals_are_not_fixed() -> None:
    assert fixed_proposal(make_space("random"), 0) is None
    assert num_proposals(make_space("random")) is None


def test_a_grid_ends() -> None:
    space = make_space("grid", grid_points=2)
    assert num_proposals(space) == 2 * 2 * 2 * (2 + 2)
    proposals = [fixed_proposal(space, index) for index in range(33)]
    assert len({str(named) for named in proposals[:32]}) == 32
    assert proposals[32] is None
    assert any("model/growth@densenet" in (named or {}) for named in proposals)
