"""Limits of a study, and how they are named."""

from gerbil_tune.config.study import StudyConfig
from gerbil_tune.search.budget import Budget, Spent, spent_up, too_many_failures

NOTHING = Spent(time_s=0.0, epochs=0, trials_since_best=0, failures=0)


def test_no_limit_is_reached_by_nothing() -> None:
    assert spent_up(Budget(trials=3), NOTHING) == ""
    assert spent_up(Budget(3, time_s=1.0, epochs=1, patience_trials=1), NOTHING) == ""


def test_each_limit_is_named() -> None:
    spent = Spent(time_s=7200.0, epochs=500, trials_since_best=10, failures=3)
    assert spent_up(Budget(3, time_s=7200.0), spent) == "the time budget of 2 h is spent"
    assert spent_up(Budget(3, epochs=500), spent) == "the budget of 500 epochs is spent"
    assert spent_up(Budget(3, patience_trials=10), spent) == (
        "the last 10 trials have not improved the best"
    )
    assert spent_up(Budget(3, 7201.0, 501, 11, 1), spent) == ""


def test_failures_are_counted_apart() -> None:
    spent = Spent(time_s=0.0, epochs=0, trials_since_best=0, failures=3)
    assert too_many_failures(Budget(3, max_failures=3), spent)
    assert not too_many_failures(Budget(3, max_failures=4), spent)
    assert not too_many_failures(Budget(3), spent)


def test_the_limits_of_a_study_file() -> None:
    study = StudyConfig(trials=7, time_budget_s=60.0, epoch_budget=9, patience_trials=4)
    assert Budget.of_study(study) == Budget(7, 60.0, 9, 4, 20)
