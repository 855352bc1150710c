"""What a user sees of a running study."""

import io

import optuna
from optuna.trial import TrialState
from rich.console import Console

from gerbil_tune.config.load import load_experiment
from gerbil_tune.search.book import TrialTask
from gerbil_tune.search.progress import StudyProgress, describe_parameters

PARAMETERS = {f"features/gcc/option_{number}@gcc-net": 0.123456 for number in range(12)}


def watched(*, terminal: bool) -> str:
    """The screen after one trial was run to its end and another was stopped early."""
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=terminal, width=100)
    progress = StudyProgress(5, "val_error_median_mm", console, done_before=2, best_before=30.0)
    config = load_experiment(None, ["training/epochs=4"])
    distributions = {name: optuna.distributions.FloatDistribution(0, 1) for name in PARAMETERS}
    with progress.shown():
        for number, state in ((2, TrialState.COMPLETE), (3, TrialState.PRUNED)):
            trial = optuna.trial.create_trial(
                params=PARAMETERS, distributions=distributions, value=25.5, state=state
            )
            trial.number = number
            progress.on_start(TrialTask(number, config, 0), trial)
            progress.on_epoch(number, {"epoch": 4, "val_error_median_mm": 25.5})
            progress.on_end(trial, "not among the best" if state is TrialState.PRUNED else "")
    return screen.getvalue()


def test_a_terminal_shows_every_column_however_long_the_parameters() -> None:
    screen = watched(terminal=True)
    assert "trial 2 starts" not in screen
    row = next(line for line in screen.splitlines()[::-1] if "done" in line and "4/4" in line)
    assert "25.5" in row
    assert "option_0=0.123" in row
    assert "stopped early" in screen
    assert "4/5 trials, best 25.5" in screen


def test_elsewhere_each_event_is_a_plain_line() -> None:
    lines = watched(terminal=False).splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("trial 2 starts: option_0=0.123")
    assert lines[1].startswith(
        "trial 2 done after 4 epochs: val_error_median_mm 25.5; 3/5 trials, best 25.5"
    )
    assert "trial 3 stopped early after 4 epochs" in lines[3]
    assert "(not among the best)" in lines[3]


def test_parameters_are_short_and_bounded() -> None:
    parameters = {"optimizer/kind": "sgd", "optimizer/learning_rate@sgd": 0.000123456}
    assert describe_parameters(parameters) == "optimizer/kind=sgd learning_rate=0.000123"
    assert len(describe_parameters(PARAMETERS, 50)) == 50
