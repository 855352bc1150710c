"""The study's book against a real SQLite storage: truthful states, continuation, repeatability."""

import math
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState

from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.config.space import SpaceFile
from gerbil_tune.errors import ConfigError
from gerbil_tune.search.book import StudyBook
from gerbil_tune.search.storage import curve_of, storage_url, stored_study, write_study_file
from gerbil_tune.search.tasks import Ending, NoTask, TrialTask
from tests.benchmarks.simulated_search import SimulatedSearch, epoch_metrics

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


def run_to_the_end(book: StudyBook, value: float) -> int:
    """Run a trial whose metric is always ``value``, unless it is stopped; return its number."""
    task = begin(book)
    last: dict[str, float] = {}
    for epoch in range(task.epochs_done + 1, EPOCHS + 1):
        last = epoch_metrics(epoch, value, EPOCHS)
        if book.report(task.number, last):
            break
    book.finish(task.number, Ending("done" if last["training_done"] else "interrupted", "", last))
    return task.number


def begin(book: StudyBook) -> TrialTask:
    task = book.next_task()
    assert isinstance(task, TrialTask)
    return task


def test_states_mean_what_they_say(tmp_path: Path) -> None:
    book = open_book(tmp_path)
    for value in (50.0, 40.0, 30.0, 90.0):
        run_to_the_end(book, value)
    diverged = begin(book)
    book.report(diverged.number, epoch_metrics(1, 20.0, EPOCHS))
    book.finish(diverged.number, Ending("diverged", "the loss became nan in epoch 2"))

    trials = book.study.trials
    assert [trial.state for trial in trials[:4]] == [
        TrialState.COMPLETE,
        TrialState.COMPLETE,
        TrialState.COMPLETE,
        TrialState.PRUNED,
    ]
    assert [trial.value for trial in trials[:3]] == [50.0, 40.0, 30.0]
    assert trials[3].intermediate_values == {1: 90.0}
    assert trials[3].user_attrs["reason"] == "not among the best 1 of 4 after 1 epochs"
    assert trials[3].user_attrs["reason_kind"] == "early stop"
    assert trials[4].state is TrialState.FAIL
    assert trials[4].user_attrs["reason_kind"] == "diverged"
    assert trials[4].user_attrs["reason"] == "the loss became nan in epoch 2"
    best = book.best()
    assert best is not None
    assert best.number == 2
    assert book.num_closed() == 5


def test_a_crashed_trial_goes_on_twice_and_then_fails(tmp_path: Path) -> None:
    book = open_book(tmp_path)
    first = begin(book)
    book.report(first.number, epoch_metrics(1, 20.0, EPOCHS))
    for _ in range(2):
        book.finish(first.number, Ending("crashed", "its process was killed or died"))
        assert book.study.trials[0].state is TrialState.RUNNING
        again = begin(book)
        assert (again.number, again.epochs_done) == (first.number, 1)
    book.finish(first.number, Ending("crashed", "its process was killed or died"))
    failed = book.study.trials[0]
    assert failed.state is TrialState.FAIL
    assert failed.user_attrs["mishaps"] == ["its process was killed or died"] * 3
    assert failed.user_attrs["reason_kind"] == "crashed"
    assert begin(book).number == 1


def test_out_of_memory_is_tried_once_more_in_halves_even_by_another_process(tmp_path: Path) -> None:
    book = open_book(tmp_path)
    first = begin(book)
    assert first.config.training.accumulate_steps == 1
    book.finish(first.number, Ending("out of memory", "out of memory: 3 GB"))
    again = begin(open_book(tmp_path))
    assert again.number == first.number
    assert again.config.training.accumulate_steps == 2
    batch = first.config.training.global_batch_size
    assert again.config.training.global_batch_size == batch
    book = open_book(tmp_path)
    begin(book)
    book.finish(first.number, Ending("out of memory", "out of memory: 3 GB"))
    assert book.study.trials[0].state is TrialState.FAIL
    assert book.study.trials[0].user_attrs["reason_kind"] == "out of memory"


def test_a_full_disk_leaves_the_trial_to_go_on(tmp_path: Path) -> None:
    book = open_book(tmp_path)
    first = begin(book)
    book.finish(first.number, Ending("disk full", "No space left on device: x"))
    assert book.disk_full == "No space left on device: x"
    assert begin(open_book(tmp_path)).number == first.number


def test_the_known_good_point_comes_first(tmp_path: Path) -> None:
    book = open_book(tmp_path)
    assert begin(book).config.optimizer.learning_rate == 1e-3
    assert begin(book).config.optimizer.learning_rate != 1e-3


def test_a_non_finite_metric_is_never_reported(tmp_path: Path) -> None:
    book = open_book(tmp_path)
    task = begin(book)
    assert book.report(task.number, epoch_metrics(1, math.nan, EPOCHS)) is False
    assert book.study.trials[0].intermediate_values == {}


def test_an_interrupted_trial_goes_on_under_its_number(tmp_path: Path) -> None:
    book = open_book(tmp_path)
    run_to_the_end(book, 50.0)
    task = begin(book)
    for epoch in (1, 2):
        book.report(task.number, epoch_metrics(epoch, 45.0, EPOCHS))
    book.finish(task.number, Ending("interrupted"))  # as when Ctrl-C ends the search
    assert book.study.trials[1].state is TrialState.RUNNING

    again = open_book(tmp_path)
    resumed = begin(again)
    assert (resumed.number, resumed.epochs_done) == (task.number, 2)
    assert resumed.config == task.config
    # A restart may repeat an epoch: the value that was reported first stays.
    again.report(resumed.number, epoch_metrics(2, 99.0, EPOCHS))
    for epoch in range(3, EPOCHS + 1):
        assert not again.report(resumed.number, epoch_metrics(epoch, 44.0, EPOCHS))
    again.finish(resumed.number, Ending("done", "", epoch_metrics(EPOCHS, 44.0, EPOCHS)))
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
    with pytest.raises(ConfigError, match=r"'s' already holds 0 trials of another space.*--name"):
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
    task = begin(book)
    assert book.config_of(book.study.trials[0]) == task.config


def test_the_median_rule_and_none(tmp_path: Path) -> None:
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


def learning_curve(config: ExperimentConfig, epoch: int) -> float:
    """Better near a learning rate of 1e-3, and with epochs."""
    rate = math.log10(config.optimizer.learning_rate) + 3
    return 20 + 30 * rate**2 + 40 / epoch


def test_promotion_pauses_all_and_lets_the_best_go_on(tmp_path: Path) -> None:
    scheduler = {"kind": "promotion-asha", "grace_epochs": 1, "reduction_factor": 3}
    book = open_book(tmp_path, trial_scheduler=scheduler)
    SimulatedSearch(book, learning_curve, workers=2).run(trials=9)
    book.close_unfinished("the study ended")
    trials = book.study.trials
    reached = sorted(max(trial.intermediate_values) for trial in trials)
    assert reached == [1] * 6 + [3] * 2 + [9]
    best = min(trials, key=lambda trial: trial.intermediate_values[1])
    assert best.state is TrialState.COMPLETE
    assert list(best.intermediate_values) == list(range(1, 10))
    others = [trial for trial in trials if trial is not best]
    assert all(trial.state is TrialState.PRUNED for trial in others)
    assert {trial.user_attrs["reason"] for trial in others} == {
        f"waited after {rung} epochs when the study ended" for rung in (1, 3)
    }


def test_promotion_completes_one_even_of_two(tmp_path: Path) -> None:
    book = open_book(tmp_path, trial_scheduler={"kind": "promotion-asha", "grace_epochs": 1})
    SimulatedSearch(book, learning_curve).run(trials=2)
    assert sum(trial.state is TrialState.COMPLETE for trial in book.study.trials) == 1


def test_promotion_goes_on_as_before_in_another_process(tmp_path: Path) -> None:
    scheduler = {"kind": "promotion-asha", "grace_epochs": 1, "reduction_factor": 3}
    studies = []
    for name, cuts in (("whole", [10**9]), ("cut", [2, 7, 15, 16, 10**9])):
        (tmp_path / name).mkdir()
        spent = 0
        for cut in cuts:
            book = open_book(tmp_path / name, trial_scheduler=scheduler)
            search = SimulatedSearch(book, learning_curve)
            search.run(trials=9, epochs=cut - spent)
            spent += search.spent
        studies.append([(t.params, t.state, t.intermediate_values) for t in book.study.trials])
    assert studies[0] == studies[1]


def test_a_population_replaces_its_worst_by_changed_copies_of_its_best(tmp_path: Path) -> None:
    book = open_book(tmp_path, trial_scheduler={"kind": "pbt", "interval_epochs": 3})
    SimulatedSearch(book, learning_curve, workers=2).run(trials=4)
    assert book.next_task(may_begin=False) is NoTask.EVER
    trials = book.study.trials
    copies = [trial for trial in trials if "parent" in trial.user_attrs]
    replaced = [t for t in trials if t.user_attrs.get("reason_kind") == "replaced"]
    assert len(copies) == len(replaced) == len(trials) - 4 > 0
    assert sum(trial.state is TrialState.COMPLETE for trial in trials) == 4
    assert book.num_begun() == book.num_closed() == 4
    for copy in copies:
        parent = trials[copy.user_attrs["parent"]]
        assert copy.params != parent.params
        assert copy.params["features/gcc/envelope"] == parent.params["features/gcc/envelope"]


def test_several_objectives_and_limits(tmp_path: Path) -> None:
    study = make_space(further_objectives=["val_nll"]).study
    space = make_space().model_copy(update={"study": study})

    def check(config: ExperimentConfig) -> tuple[list[float], str]:
        too_fast = config.optimizer.learning_rate - 2e-3
        return [too_fast], "too fast" if too_fast > 0 else ""

    book = StudyBook(storage_url(tmp_path), "s", space, check=check)
    for value in (50.0, 40.0):
        task = begin(book)
        assert task.config.optimizer.learning_rate <= 2e-3
        last: dict[str, float] = {}
        for epoch in range(1, EPOCHS + 1):
            last = epoch_metrics(epoch, value, EPOCHS) | {"best_val_nll": value / 10}
            assert not book.report(task.number, last)
        book.finish(task.number, Ending("done", "", last))
    own = [t for t in book.study.trials if t.state is TrialState.COMPLETE]
    assert [trial.values for trial in own] == [[50.0, 5.0], [40.0, 4.0]]
    assert curve_of(own[0]) == dict.fromkeys(range(1, EPOCHS + 1), 50.0)
    others = [t for t in book.study.trials if t.state is TrialState.PRUNED]
    assert all(trial.user_attrs["reason"] == "too fast" for trial in others)
    assert book.num_begun() == 2


def test_what_has_been_spent(tmp_path: Path) -> None:
    book = open_book(tmp_path, trial_scheduler={"kind": "none"})
    for value in (30.0, 40.0, 50.0, 20.0, 60.0):
        run_to_the_end(book, value)
    spent = book.spent()
    assert (spent.epochs, spent.trials_since_best, spent.failures) == (45, 1, 0)
    again = open_book(tmp_path).spent()
    assert (again.epochs, again.trials_since_best) == (45, 1)


def test_a_grid_comes_to_its_end(tmp_path: Path) -> None:
    book = open_book(
        tmp_path,
        sampler={"kind": "grid", "grid_points": 2},
        trial_scheduler={"kind": "none"},
    )
    SimulatedSearch(book, learning_curve).run(trials=50)
    assert len(book.study.trials) == 1 + 2 * 2  # the point, then the grid
    grid = {
        (round(t.params["optimizer/learning_rate"], 9), t.params["features/gcc/envelope"])
        for t in book.study.trials[1:]
    }
    assert grid == {(rate, on) for rate in (1e-4, 1e-2) for on in (False, True)}


def test_a_grid_within_limits_ends_where_the_grid_ends(tmp_path: Path) -> None:
    """The last of its points are beyond the limits; nothing beside the grid is tried in their place."""
    grid = {"kind": "grid", "grid_points": 2}
    space = make_space(sampler=grid, trial_scheduler={"kind": "none"})
    told: list[str] = []

    class Listener:
        def on_start(self, task: TrialTask, trial: FrozenTrial) -> None: ...
        def on_epoch(self, number: int, metrics: dict[str, float]) -> None: ...
        def on_pause(self, trial: FrozenTrial, reason: str) -> None: ...
        def on_end(self, trial: FrozenTrial, reason: str) -> None:
            told.append(reason)

    def check(config: ExperimentConfig) -> tuple[list[float], str]:
        rate = config.optimizer.learning_rate
        return [rate - 2e-3], "too fast" if rate > 2e-3 else ""

    book = StudyBook(storage_url(tmp_path), "s", space, (Listener(),), check=check)
    SimulatedSearch(book, learning_curve).run(trials=50)
    rates = [round(t.params["optimizer/learning_rate"], 9) for t in book.study.trials]
    assert rates[0] == 1e-3
    assert sorted(rates[1:]) == [1e-4, 1e-4, 1e-2, 1e-2]
    states = [trial.state for trial in book.study.trials]
    assert states.count(TrialState.COMPLETE) == 3
    assert sorted(told) == ["", "", "", "too fast", "too fast"]


def test_promotion_with_one_at_a_time_trains_none_whole_before_others_have_begun(
    tmp_path: Path,
) -> None:
    scheduler = {"kind": "promotion-asha", "grace_epochs": 1, "reduction_factor": 3}
    book = open_book(tmp_path, trial_scheduler=scheduler)
    tasks: list[tuple[int, int]] = []
    for _ in range(4):
        task = begin(book)
        tasks.append((task.number, task.epochs_done))
        epoch, ends = task.epochs_done, False
        while not ends:
            epoch += 1
            ends = book.report(task.number, epoch_metrics(epoch, 50.0 - task.number, EPOCHS))
        book.finish(task.number, Ending("interrupted"))
    assert tasks == [(0, 0), (1, 0), (2, 0), (2, 1)]


POPULATION = {"kind": "pbt", "interval_epochs": 3}


def replaced_population(tmp_path: Path) -> StudyBook:
    """A population of which member 3 has just been replaced, and nothing else has happened."""
    book = open_book(tmp_path, trial_scheduler=POPULATION)
    for number in range(4):
        task = begin(book)
        for epoch in range(1, 4):
            book.report(number, epoch_metrics(epoch, 20.0 + number, EPOCHS))
        book.finish(task.number, Ending("interrupted"))
    for number in range(3):  # the good ones go first
        task = book.next_task(may_begin=False)
        assert isinstance(task, TrialTask)
        assert task.number == number
        for epoch in range(4, 7):
            book.report(number, epoch_metrics(epoch, 19.0 + number, EPOCHS))
        book.finish(number, Ending("interrupted"))
    return book


def test_a_copy_begins_as_a_copy_though_its_process_died_in_making_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = replaced_population(tmp_path)
    begin_trial = book.trials.begin

    def killed(*arguments: Any) -> None:
        begin_trial(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(book.trials, "begin", killed)
    with pytest.raises(KeyboardInterrupt):
        book.next_task(may_begin=False)
    again = open_book(tmp_path, trial_scheduler=POPULATION)
    task = again.next_task(may_begin=False)
    assert isinstance(task, TrialTask)
    attributes = again.study.trials[task.number].user_attrs
    assert attributes["replaces"] == 3
    assert task.copy_of == attributes["parent"] == 0
    assert [t.number for t in again.study.trials if "replaces" in t.user_attrs] == [4]
