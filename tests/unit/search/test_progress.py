"""What a user sees of a running study."""

import io
import re
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from gerbil_tune.config.load import load_experiment
from gerbil_tune.search.progress import BudgetView, StudyProgress
from gerbil_tune.search.progress_view import live_view
from gerbil_tune.search.standings import describe_parameters
from gerbil_tune.search.tasks import TrialTask

PARAMETERS = {f"features/gcc/option_{number}@gcc-net": 0.123456 for number in range(12)}
DISTRIBUTIONS = {name: optuna.distributions.FloatDistribution(0, 1) for name in PARAMETERS}
METRIC = "val_error_median_mm"
CONFIG = load_experiment(None, ["training/epochs=4"])


def stored(number: int, state: TrialState, value: float = 25.5, **attributes: Any) -> FrozenTrial:
    trial = optuna.trial.create_trial(
        state=state,
        value=value if state == TrialState.COMPLETE else None,
        params=PARAMETERS,
        distributions=DISTRIBUTIONS,
        user_attrs=attributes,
    )
    trial.number = number
    return trial


@dataclass
class Screen:
    """A progress display on a screen, with a clock that stands unless it is moved."""

    terminal: bool = False
    width: int = 100
    height: int = 30
    objectives: tuple[str, ...] = (METRIC,)
    budget: BudgetView = field(default_factory=lambda: BudgetView(5))

    def __post_init__(self) -> None:
        self.now = 0.0
        self.file = io.StringIO()
        console = Console(
            file=self.file,
            force_terminal=self.terminal,
            width=self.width,
            height=self.height,
            color_system=None,
        )
        self.progress = StudyProgress(console, self.objectives, self.budget, clock=lambda: self.now)

    @property
    def text(self) -> str:
        return self.file.getvalue()

    def begin(self, number: int, epochs_done: int = 0, copy_of: int | None = None) -> None:
        task = TrialTask(number, CONFIG, epochs_done, copy_of)
        self.progress.on_start(task, stored(number, TrialState.RUNNING))

    def epochs(self, number: int, first: int, last: int, value: float = 25.5) -> None:
        for epoch in range(first, last + 1):
            self.now += 10.0
            self.progress.on_epoch(number, {"epoch": epoch, METRIC: value})

    def end(self, number: int, state: TrialState, reason: str = "", **attributes: Any) -> None:
        self.progress.on_end(stored(number, state, **attributes), reason)

    def view(self) -> list[str]:
        """The live view, line by line."""
        console = Console(file=io.StringIO(), width=self.width, height=self.height)
        view = live_view(
            self.progress._standings,
            self.progress.headline(),
            self.progress.spending(),
            width=self.width,
            height=self.height,
        )
        with console.capture() as capture:
            console.print(view)
        return capture.get().splitlines()


def test_elsewhere_each_event_is_a_plain_line() -> None:
    screen = Screen()
    with screen.progress.shown():
        screen.begin(2)
        screen.epochs(2, 1, 4)
        screen.end(2, TrialState.COMPLETE)
        screen.begin(3, copy_of=2)
        screen.epochs(3, 1, 1, 30.0)
        screen.progress.on_pause(stored(3, TrialState.RUNNING), "waits for others")
        screen.begin(3, epochs_done=1)
        screen.end(3, TrialState.PRUNED, "not among the best", reason_kind="early stop")
    lines = screen.text.splitlines()

    assert lines[0].startswith("trial 2 starts: option_0=0.123")
    assert lines[1] == (
        f"trial 2 complete after 4 epochs: {METRIC} 25.5; 1 of 5 trials, best 25.5, 40 s"
    )
    assert lines[2].startswith("trial 3 starts as a copy of trial 2: ")
    assert lines[3].startswith(f"trial 3 waits after 1 epoch: {METRIC} 30 (waits for others); 1 of")
    assert lines[4].startswith("trial 3 starts, on from epoch 1: ")
    assert "trial 3 stopped early after 1 epoch: " in lines[5]
    assert "(not among the best); 2 of 5 trials, best 25.5" in lines[5]
    assert len(lines) == 6


def test_a_terminal_shows_the_best_card_and_the_table_only() -> None:
    screen = Screen(terminal=True)
    with screen.progress.shown():
        screen.begin(2)
        screen.epochs(2, 1, 4)
        screen.end(2, TrialState.COMPLETE)
    assert "trial 2 starts" not in screen.text
    assert "best: trial 2  median mm 25.5" in screen.text
    assert "1 of 5 trials, best 25.5" in screen.text


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("objectives", [1, 3])
def test_the_view_fits_and_shows_every_column(width: int, objectives: int) -> None:
    names = (METRIC, "val_calibration_error", "predict_ms_per_event")[:objectives]
    screen = Screen(width=width, height=24, objectives=names)
    for number in range(30):
        screen.begin(number)
        metrics = dict.fromkeys(names, 20.0 + number)
        screen.progress.on_epoch(number, {"epoch": 2, **metrics})
        if number < 25:
            reason_kind = "diverged" if number % 5 == 4 else "early stop"
            state = TrialState.FAIL if number % 5 == 4 else TrialState.PRUNED
            screen.end(number, state, "x" * 200, reason_kind=reason_kind)
    lines = screen.view()
    table = [line for line in lines if "2/4" in line]

    assert len(lines) <= 23
    assert max(map(len, lines)) <= width
    assert len(table) == 12
    assert sum("running" in line for line in table) == 5
    shown = [re.findall(r"\d\d\.\d\d", line) for line in table]
    assert {len(values) for values in shown} == {objectives}
    assert shown == sorted(shown)
    assert "20 stopped early, 5 failed, 5 running" in "\n".join(lines)
    assert "trial 24 failed: xxx" in "\n".join(lines)


def test_trials_that_run_have_a_bar_and_paused_ones_say_why() -> None:
    screen = Screen()
    screen.begin(0)
    screen.epochs(0, 1, 2)
    screen.begin(1)
    screen.progress.on_pause(stored(1, TrialState.RUNNING), "waits for others")
    running, paused = (line for line in screen.view() if "option_0" in line)

    assert "\u2501" in running
    assert "\u2501" not in paused
    assert "waits for others; option_0" in paused


def test_the_screen_is_drawn_at_most_four_times_a_second() -> None:
    screen = Screen(terminal=True)
    with screen.progress.shown():
        screen.begin(0)
        drawn = len(screen.text)
        for _ in range(100):
            screen.now += 0.002
            screen.progress.redraw()
        assert len(screen.text) == drawn
        screen.now += 0.06
        screen.progress.redraw()
        assert len(screen.text) > drawn


def test_earlier_runs_are_taken_in(make_study: Callable[..., Any]) -> None:
    writer = make_study(name="overnight")
    writer.add(TrialState.COMPLETE, warm_start="studies/evening")
    best = writer.add(TrialState.COMPLETE, 20)
    writer.add(TrialState.PRUNED, 3, reason_kind="early stop", reason="x")
    writer.add(TrialState.PRUNED, 3, reason_kind="replaced", reason="x")
    writer.add(TrialState.PRUNED, 0, reason_kind="infeasible", reason="x")
    writer.add(TrialState.RUNNING, 9)
    writer.attribute("spent_s", 600.0)
    screen = Screen(budget=BudgetView(10, cpus_per_trial=2.0))
    screen.progress.begin(writer.study)
    seconds = 8 * (20 + 3 + 3 + 9) + 2 * 5

    assert screen.progress.headline() == f"2 of 10 trials, best {best.value:.4g}, 10 min"
    assert screen.progress.spending() == (f"spent {2 * seconds / 3600:.2f} CPU hours, 35 epochs")
    counts = "1 complete, 1 stopped early, 1 replaced, 1 beyond a constraint, 1 paused"
    assert counts in screen.view()
    screen.begin(5, epochs_done=9)
    assert "1 running" in "\n".join(screen.view())


def test_time_left_is_that_of_the_first_limit() -> None:
    screen = Screen(budget=BudgetView(5))
    assert screen.progress.time_left() == ""
    screen.begin(0)
    screen.epochs(0, 1, 4)
    screen.end(0, TrialState.COMPLETE)
    # Four trials of four epochs, ten seconds each.
    assert screen.progress.time_left() == "about 2 min 40 s left (5 trials)"
    screen.begin(1)
    screen.epochs(1, 1, 3)
    assert screen.progress.time_left() == "about 2 min 10 s left (5 trials)"
    screen.progress.budget = BudgetView(5, epoch_budget=12)
    assert screen.progress.time_left() == "about 50 s left (12 epochs)"
    screen.progress.budget = BudgetView(5, time_budget_s=75.0, epoch_budget=12)
    assert screen.progress.time_left() == "about 5.0 s left (time budget)"
    screen.progress.budget = BudgetView(5, time_budget_s=60.0)
    assert screen.progress.time_left() == ""  # it is over


def test_spending_counts_what_runs() -> None:
    screen = Screen(budget=BudgetView(5, cpus_per_trial=3.0, gpus_per_trial=0.5))
    screen.begin(0)
    screen.now = 1800.0
    screen.end(0, TrialState.FAIL, "out of memory")
    screen.begin(1)
    screen.now = 3600.0
    assert screen.progress.spending() == "spent 3.00 CPU hours, 0.50 GPU hours, 0 epochs"


def test_an_epoch_that_is_repeated_after_a_crash_is_counted_once() -> None:
    screen = Screen()
    screen.begin(0)
    screen.epochs(0, 1, 3)
    screen.progress.on_pause(stored(0, TrialState.RUNNING), "its process died")
    screen.begin(0, epochs_done=2)
    screen.epochs(0, 3, 4)
    assert "4 epochs" in screen.progress.spending()


def test_a_metric_that_is_no_number_is_not_ranked() -> None:
    screen = Screen()
    screen.begin(0)
    screen.epochs(0, 1, 1, float("nan"))
    screen.begin(1)
    screen.epochs(1, 1, 1, 30.0)
    first, second = (line for line in screen.view() if "option_0" in line)
    assert "30.00" in first
    assert "nan" not in second


def test_two_thousand_trials_stay_small_and_fast() -> None:
    screen = Screen(budget=BudgetView(3000))
    metrics = {"epoch": 1, METRIC: 30.0}

    def run(number: int) -> None:
        screen.begin(number)
        screen.progress.on_epoch(number, metrics)
        screen.end(number, TrialState.PRUNED, "not among the best", reason_kind="early stop")
        screen.file.truncate(0)
        screen.file.seek(0)

    for number in range(200):
        run(number)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for number in range(200, 2200):
        run(number)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert (after - before) / 2000 < 100
    assert "2200 stopped early" in "\n".join(screen.view())


def test_parameters_are_short_and_bounded() -> None:
    parameters = {"optimizer/kind": "sgd", "optimizer/learning_rate@sgd": 0.000123456}
    assert describe_parameters(parameters) == "optimizer/kind=sgd learning_rate=0.000123"
    assert len(describe_parameters(PARAMETERS, 50)) == 50
