"""The trials of a study, read once."""

from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from gerbil_tune.search.book import StudyBook
from gerbil_tune.search.storage import storage_url
from gerbil_tune.search.stored_trials import StoredTrials
from tests.benchmarks.simulated_search import SimulatedSearch
from tests.unit.search.test_book import learning_curve, make_space


@pytest.mark.parametrize("kind", ["asha", "promotion-asha", "pbt", "median"])
@pytest.mark.parametrize("sampler", ["tpe", "cmaes"])
def test_a_search_reads_all_trials_only_when_it_opens_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, sampler: str
) -> None:
    space = make_space(trial_scheduler={"kind": kind}, sampler={"kind": sampler})
    book = StudyBook(storage_url(tmp_path), "s", space)
    storage = book.study._storage
    real, calls = storage.get_all_trials, []

    def counted(*arguments: object, **options: object) -> object:
        calls.append(arguments)
        return real(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(storage, "get_all_trials", counted)
    SimulatedSearch(book, learning_curve, workers=3).run(trials=20)
    book.close_unfinished("the study ended")
    assert book.num_closed() == 20
    assert calls == []
    known = [(t.number, t.state, t.values, t.params, t.user_attrs) for t in book.trials.all()]
    stored = StoredTrials(book.study).all()
    assert known == [(t.number, t.state, t.values, t.params, t.user_attrs) for t in stored]


def test_a_trial_begins_with_what_is_known_of_it() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    trials = StoredTrials(study)
    trial = trials.begin({"x": 0.25}, {"parent": 3})
    stored = study.trials[0]
    assert stored.state is TrialState.RUNNING
    assert stored.user_attrs == {"parent": 3}
    assert stored.datetime_start is not None
    assert trial.suggest_float("x", 0.0, 1.0) == 0.25
    assert trial.suggest_float("y", 0.0, 1.0) != 0.25
    trials.read(trial)
    assert trials[0].params == study.trials[0].params
    assert trials.handle(0).suggest_float("x", 0.0, 1.0) == 0.25
    assert [len(trials), len(trials.proposed())] == [1, 0]
