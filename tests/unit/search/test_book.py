"""The study's book against a real SQLite storage: truthful states, continuation, repeatability."""

import math
from pathlib import Path

import pytest
from optuna.trial import TrialState

from gerbil_tune.config.space import SpaceFile
from gerbil_tune.errors import ConfigError
from gerbil_tune.search.book import StudyBook, storage_url, stored_study, write_study_file

EPOCHS = 9


def make_space(**study: object) -> SpaceFile:
    return SpaceFile.model_validate(
        {
            "name": "s",
            "study": {"trial_scheduler": {"kind": "asha", "grace_epochs": 1}, **study},
            "base": {"training": {"epochs": EPOCHS}},
            "parameters": {
                "optimizer/learning_rate": {
                    "type": "float",
                    "low": 1e-4,
                    "high": 1e-2,
                    "log": True,
                },
                "features/gcc/envelope": {"type": "categorical", "choices": [False, True]},
            },
            "points": [{"optimizer/learning_rate": 1e-3}],
        }
    )


def open_book(folder: Path, **study: object) -> StudyBook:
    return StudyBook(storage_url(folder), "s", make_space(**study))


def metrics(epoch: int, value: float) -> dict[str, float]:
    return {
        "epoch": epoch,
        "val_error_median_mm": value,
        "best_value": value,
        "training_done": float(epoch == EPOCHS),
    }


def run_to_the_end(book: StudyBook, value: float) -> int:
    """Run a trial whose metric is always ``value``, unless it is stopped; return its number."""
    task = book.next_task()
    last: dict[str, float] = {}
    for epoch in range(task.epochs_done + 1, EPOCHS + 1):
        last = metrics(epoch, value)
        if book.report(task.number, last):
            break
    book.finish(task.number, last)
    return task.number


def test_states_mean_what_they_say(tmp_path: Path) -> None:
    book = open_book(tmp_path)
    for value in (50.0, 40.0, 30.0, 90.0):
        run_to_the_end(book, value)
    diverged = book.next_task()
    book.report(diverged.number, metrics(1, 20.0))
    book.finish(diverged.number, {"failure": "NonFiniteLossError: the loss became nan"})
    crashed = book.next_task()
    book.finish(crashed.number, None, error="its process died")

    trials = book.study.trials
    assert [trial.state for trial in trials[:4]] == [
        TrialState.COMPLETE,
        TrialState.COMPLETE,
        TrialState.COMPLETE,
        TrialState.PRUNED,
    ]
    assert [trial.value for trial in trials[:3]] == [50.0, 40.0, 30.0]
    assert trials[3].intermediate_values == {1: 90.0}
    assert trials[3].user_attrs["reason"] == "not among the best after 1 epochs"
    assert trials[4].state is TrialState.FAIL
    assert trials[4].user_attrs["reason"].startswith("NonFiniteLossError")
    assert trials[5].state is TrialState.FAIL
    best = book.best()
    assert best is not None
    assert best.number == 2
    assert book.num_closed() == 6


def test_the_known_good_point_comes_first(tmp_path: Path) -> None:
    book = open_book(tmp_path)
    assert book.next_task().config.optimizer.learning_rate == 1e-3
    assert book.next_task().config.optimizer.learning_rate != 1e-3


def test_a_non_finite_metric_is_never_reported(tmp_path: Path) -> None:
    book = open_book(tmp_path)
    task = book.next_task()
    assert book.report(task.number, metrics(1, math.nan)) is False
    assert book.study.trials[0].intermediate_values == {}


def test_an_interrupted_trial_goes_on_under_its_number(tmp_path: Path) -> None:
    book = open_book(tmp_path)
    run_to_the_end(book, 50.0)
    task = book.next_task()
    for epoch in (1, 2):
        book.report(task.number, metrics(epoch, 45.0))
    book.finish(task.number, metrics(2, 45.0))  # as when Ctrl-C ends the search
    assert book.study.trials[1].state is TrialState.RUNNING

    again = open_book(tmp_path)
    resumed = again.next_task()
    assert (resumed.number, resumed.epochs_done) == (task.number, 2)
    assert resumed.config == task.config
    # A restart may repeat an epoch: the value that was reported first stays.
    again.report(resumed.number, metrics(2, 99.0))
    for epoch in range(3, EPOCHS + 1):
        assert not again.report(resumed.number, metrics(epoch, 44.0))
    again.finish(resumed.number, metrics(EPOCHS, 44.0))
    trial = again.study.trials[1]
    assert trial.state is TrialState.COMPLETE
    assert trial.intermediate_values[2] == 45.0
    assert len(again.study.trials) == 2


def propose(folder: Path, restarts: bool) -> list[dict[str, object]]:
    """Parameters of twelve trials, with the book opened anew before each or never."""
    folder.mkdir()
    book = open_book(folder, sampler={"kind": "tpe", "seed": 3, "startup_trials": 4})
    for number in range(12):
        if restarts:
            book = open_book(folder, sampler={"kind": "tpe", "seed": 3, "startup_trials": 4})
        run_to_the_end(book, 40.0 + number % 5)
    return [trial.params for trial in book.study.trials]


def test_proposals_repeat_and_do_not_depend_on_restarts(tmp_path: Path) -> None:
    first = propose(tmp_path / "a", restarts=False)
    assert first == propose(tmp_path / "b", restarts=False)
    assert first == propose(tmp_path / "c", restarts=True)
    assert len({str(parameters) for parameters in first}) == len(first)


def test_another_space_under_the_same_name_is_refused(tmp_path: Path) -> None:
    open_book(tmp_path)
    other = make_space().model_copy(update={"base": {"training": {"epochs": 5}}})
    with pytest.raises(ConfigError, match=r"'s' already holds 1 trials of another space.*--name"):
        StudyBook(storage_url(tmp_path), "s", other)


def test_a_larger_budget_of_the_same_space_is_welcome(tmp_path: Path) -> None:
    open_book(tmp_path, trials=3)
    open_book(tmp_path, trials=9)


def test_a_storage_that_cannot_be_opened_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be opened"):
        StudyBook(f"sqlite:///{tmp_path}/missing/folder/optuna.db", "s", make_space())


def test_the_study_file_leads_back_to_the_study(tmp_path: Path) -> None:
    book = open_book(tmp_path)
    run_to_the_end(book, 50.0)
    write_study_file(tmp_path, "s", storage_url(tmp_path), book.space)
    assert stored_study(tmp_path).trials[0].value == 50.0


def test_the_config_of_a_stored_trial_is_rebuilt(tmp_path: Path) -> None:
    book = open_book(tmp_path)
    task = book.next_task()
    assert book.config_of(book.study.trials[0]) == task.config


def test_median_pruner_and_none(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    book = open_book(tmp_path / "none", trial_scheduler={"kind": "none"})
    for value in (10.0, 20.0, 90.0, 99.0):
        run_to_the_end(book, value)
    assert all(trial.state is TrialState.COMPLETE for trial in book.study.trials)
    (tmp_path / "median").mkdir()
    book = open_book(tmp_path / "median", trial_scheduler={"kind": "median", "grace_epochs": 2})
    for value in (10.0, 20.0, 30.0, 40.0, 90.0):
        run_to_the_end(book, value)
    assert book.study.trials[-1].state is TrialState.PRUNED
    assert max(book.study.trials[-1].intermediate_values) == 2
