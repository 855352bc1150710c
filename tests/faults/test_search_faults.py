"""Searches whose processes are killed, stopped and frozen; the same command goes on each time."""

import re
import signal
import time
from pathlib import Path
from random import Random

import pytest

from gerbil_tune.training.checkpoints import newest_place
from tests.faults.harness import (
    REFIT,
    SPACE,
    FinalState,
    RunningSearch,
    assert_consistent,
    assert_equal_metrics,
    final_state,
    num_repeated,
    place,
    record_fault,
    search_arguments,
    trial_dir,
    trial_records,
)

pytestmark = [pytest.mark.ray, pytest.mark.slow]

EPOCHS = 40
KILLS = 6


def finish_again(site: Path, name: str, *more: str) -> tuple[str, FinalState]:
    """Give the same command again, to the end; return what it printed, and what is left."""
    with RunningSearch(site, *search_arguments(name, *more)) as search:
        printed = search.finish()
    state = final_state(site, name)
    assert_consistent(state)
    return printed, state


def test_driver_killed(site: Path, undisturbed: FinalState) -> None:
    run_dir = trial_dir(site, "killed", 1)
    with RunningSearch(site, *search_arguments("killed")) as search:
        search.wait_for_epoch(run_dir, 10)
        gone_s = search.kill_driver()
    epoch, _ = place(run_dir)
    assert [trial.state for trial in trial_records(site, "killed")] == ["COMPLETE", "RUNNING"]
    printed, state = finish_again(site, "killed")
    assert "1 done before" in printed
    assert "trial 0 starts" not in printed
    assert_equal_metrics(state, undisturbed)
    repeated = num_repeated(state.trials[1].history)
    assert repeated <= 1
    record_fault(
        fault="kill -9 of the driver",
        running=f"trial 1, epoch {epoch + 1} of {EPOCHS}",
        lost=f"at most the epoch under way; all processes gone after {gone_s:.1f} s",
        optuna=state.optuna(),
        mlflow=state.mlflow(),
    )


@pytest.mark.exhaustive
def test_trial_process_killed(site: Path, undisturbed: FinalState) -> None:
    run_dir = trial_dir(site, "lost", 0)
    with RunningSearch(site, *search_arguments("lost")) as search:
        search.wait_for_epoch(run_dir, 10)
        search.kill("trial")
        epoch, _ = place(run_dir)
        printed = search.finish()
    assert re.search(rf"trial 0 starts, on from epoch ({epoch - 1}|{epoch})\b", printed), printed
    state = final_state(site, "lost")
    assert_consistent(state)
    assert_equal_metrics(state, undisturbed)
    assert len(state.trials[0].mishaps) == 1
    assert num_repeated(state.trials[0].history) <= 1
    record_fault(
        fault="kill -9 of the trial's process",
        running=f"trial 0, epoch {epoch + 1} of {EPOCHS}",
        lost="at most the epoch under way; the search itself goes on",
        optuna=f"{state.optuna()}; mishap: {state.trials[0].mishaps[0]}",
        mlflow=state.mlflow(),
    )


@pytest.mark.parametrize(
    ("name", "number", "whole_group"),
    [
        pytest.param("sigterm", signal.SIGTERM, False, marks=pytest.mark.exhaustive),
        pytest.param("sigusr1", signal.SIGUSR1, False, marks=pytest.mark.exhaustive),
        pytest.param("ctrl-c", signal.SIGINT, True, marks=pytest.mark.exhaustive),
    ],
)
def test_stopped_by_a_signal(
    site: Path, undisturbed: FinalState, name: str, number: int, whole_group: bool
) -> None:
    run_dir = trial_dir(site, name, 1)
    with RunningSearch(site, *search_arguments(name)) as search:
        search.wait_for_epoch(run_dir, 5)
        asked = time.monotonic()
        search.send_signal(number, whole_group=whole_group)
        printed = search.finish(75)
        stopped_s = time.monotonic() - asked
    assert "run the same command again" in printed
    at_rest = final_state(site, name)
    assert [trial.state for trial in at_rest.trials] == ["COMPLETE", "RUNNING"]
    assert [run.state for run in at_rest.parents] == ["interrupted"]
    assert [(run.state, run.status) for run in at_rest.runs[1]] == [("interrupted", "KILLED")]
    found = newest_place(run_dir)
    assert found is not None
    epoch, step = found
    # Every epoch that was told is in the checkpoint: nothing but a step can be lost.
    assert [row["epoch"] for row in at_rest.trials[1].history] == list(range(1, epoch + 1))
    assert 5 <= epoch < EPOCHS
    _, state = finish_again(site, name)
    assert_equal_metrics(state, undisturbed)
    assert num_repeated(state.trials[1].history) == 0
    record_fault(
        fault=f"{signal.Signals(number).name} to the {'process group' if whole_group else 'driver'}",
        running=f"trial 1, epoch {epoch + 1} of {EPOCHS}",
        lost=f"nothing: stopped after step {step} of it; exit 75 after {stopped_s:.1f} s",
        optuna=state.optuna(),
        mlflow=state.mlflow(),
    )


@pytest.mark.exhaustive
def test_all_processes_are_told_to_stop(site: Path, undisturbed: FinalState) -> None:
    """As by a batch system or systemd, which signal Ray's own processes and the trial's along with it."""
    run_dir = trial_dir(site, "told", 1)
    with RunningSearch(site, *search_arguments("told")) as search:
        search.wait_for_epoch(run_dir, 5)
        asked = time.monotonic()
        search.send_signal_to_all(signal.SIGTERM)
        printed = search.finish(75)
        stopped_s = time.monotonic() - asked
    epoch, _ = place(run_dir)
    assert stopped_s < 30  # what a batch system waits before it kills
    assert "run the same command again" in printed
    at_rest = final_state(site, "told")
    assert at_rest.trials[1].mishaps == ()
    assert [run.state for run in at_rest.parents] == ["interrupted"]
    assert [(run.state, run.status) for run in at_rest.runs[1]] == [("interrupted", "KILLED")]
    _, state = finish_again(site, "told")
    assert_equal_metrics(state, undisturbed)
    record_fault(
        fault="SIGTERM to all processes, Ray's too",
        running=f"trial 1, epoch {epoch + 1} of {EPOCHS}",
        lost=f"at most the epoch under way; exit 75 after {stopped_s:.1f} s",
        optuna=state.optuna(),
        mlflow=state.mlflow(),
    )


@pytest.mark.exhaustive
def test_ctrl_c_twice_while_a_trial_hangs(site: Path, undisturbed: FinalState) -> None:
    run_dir = trial_dir(site, "hangs", 1)
    with RunningSearch(site, *search_arguments("hangs")) as search:
        search.wait_for_epoch(run_dir, 5)
        search.kill("trial", number=signal.SIGSTOP)
        epoch, _ = place(run_dir)
        search.send_signal(signal.SIGINT, whole_group=True)
        search.wait_for((site / "studies/hangs/stop").exists, "the wish to stop")
        time.sleep(3)  # it waits for the trial
        assert not search.is_over()
        asked = time.monotonic()
        search.send_signal(signal.SIGINT, whole_group=True)
        search.finish(75)
        ended_s = time.monotonic() - asked
    assert ended_s < 30
    at_rest = final_state(site, "hangs")
    assert [(run.state, run.status) for run in at_rest.runs[1]] == [("interrupted", "KILLED")]
    _, state = finish_again(site, "hangs")
    assert_equal_metrics(state, undisturbed)
    record_fault(
        fault="Ctrl-C twice, trial frozen (SIGSTOP)",
        running=f"trial 1, epoch {epoch + 1} of {EPOCHS}",
        lost=f"at most the epoch under way; exit 75 after {ended_s:.1f} s",
        optuna=state.optuna(),
        mlflow=state.mlflow(),
    )


DIVERGES = SPACE.replace("trials: 2", "trials: 3").replace(
    "  - {optimizer/learning_rate: 6.0e-3",
    "  - {optimizer/learning_rate: 1.0e+30, features/gcc/envelope: true}\n"
    "  - {optimizer/learning_rate: 6.0e-3",
)
"""The two trials of the undisturbed study as number 0 and 2, and one between them that diverges."""


@pytest.mark.exhaustive
def test_loss_becomes_nan(site: Path, undisturbed: FinalState) -> None:
    (site / "diverges.yaml").write_text(DIVERGES)
    with RunningSearch(site, *search_arguments("diverges", space="diverges.yaml")) as search:
        search.finish()
    state = final_state(site, "diverges")
    assert_consistent(state)
    lost = state.trials[1]
    assert (lost.state, lost.reason_kind) == ("FAIL", "diverged")
    assert "lower optimizer/learning_rate (it was 1e+30)" in lost.reason
    assert_equal_metrics(state, undisturbed, [(0, 0), (2, 1)], refits=False)
    record_fault(
        fault="NaN loss (learning rate 1e30)",
        running="trial 1 of 3",
        lost="that trial",
        optuna=state.optuna(),
        mlflow=state.mlflow(),
        metrics="the others equal to the undisturbed run",
    )


@pytest.mark.exhaustive
def test_too_many_failures(site: Path, undisturbed: FinalState) -> None:
    points = [(1e30, "true"), (1e30, "false"), (3e-4, "false"), (6e-3, "true")]
    lines = [
        f"  - {{optimizer/learning_rate: {rate:.1e}, features/gcc/envelope: {envelope}}}"
        for rate, envelope in points
    ]
    space = SPACE.partition("points:")[0].replace("trials: 2", "trials: 4")
    (site / "failures.yaml").write_text(f"{space}points:\n" + "\n".join(lines) + "\n")
    arguments = search_arguments("failures", "--max-failures", "2", space="failures.yaml")
    with RunningSearch(site, *arguments) as search:
        printed = search.finish(1)
    assert "2 trials have failed (2 diverged)" in printed
    at_rest = final_state(site, "failures")
    assert_consistent(at_rest, study_state="failed")
    assert [trial.state for trial in at_rest.trials] == ["FAIL", "FAIL"]
    with RunningSearch(site, *arguments) as search:
        assert "2 done before" in search.finish()
    state = final_state(site, "failures")
    assert_consistent(state)
    assert_equal_metrics(state, undisturbed, [(2, 0), (3, 1)], refits=False)
    record_fault(
        fault="--max-failures 2 reached",
        running="trials 0 and 1 of 4",
        lost="those trials; exit 1, the same command does the others",
        optuna=state.optuna(),
        mlflow=state.mlflow(),
        metrics="the others equal to the undisturbed run",
    )


@pytest.mark.exhaustive
def test_driver_killed_in_the_refit(site: Path, undisturbed: FinalState) -> None:
    run_dir = site / "studies" / "refitting" / REFIT
    with RunningSearch(site, *search_arguments("refitting")) as search:
        search.wait_for_epoch(run_dir, 2)
        search.kill_driver()
    epoch, _ = place(run_dir)
    assert 2 <= epoch < 6
    printed, state = finish_again(site, "refitting")
    assert "2 done before" in printed
    assert "starts" not in printed
    assert f"epoch {epoch}/6" not in printed.partition("training it whole")[2]
    assert_equal_metrics(state, undisturbed)
    record_fault(
        fault="kill -9 of the driver",
        running=f"refit of trial 1, epoch {epoch + 1} of 6",
        lost="at most the epoch under way",
        optuna=state.optuna(),
        mlflow=state.mlflow(),
    )


PROMOTION = (
    SPACE.partition("points:")[0]
    .replace("trials: 2", "trials: 4")
    .replace("epochs: 40", "epochs: 24")
    .replace("{kind: none}", "{kind: promotion-asha, grace_epochs: 6, reduction_factor: 2}")
    + "points:\n"
    + "\n".join(
        f"  - {{optimizer/learning_rate: {rate}, features/gcc/envelope: true}}"
        for rate in ("1.0e-3", "3.0e-4", "6.0e-3", "1.0e-4")
    )
    + "\n"
)


@pytest.mark.exhaustive
def test_driver_killed_while_trials_wait_for_promotion(site: Path) -> None:
    (site / "promotion.yaml").write_text(PROMOTION)
    with RunningSearch(site, *search_arguments("promoted", space="promotion.yaml")) as search:
        search.finish()
    reference = final_state(site, "promoted")
    assert_consistent(reference)
    assert {trial.state for trial in reference.trials} == {"COMPLETE", "PRUNED"}

    arguments = search_arguments("promoting", space="promotion.yaml")
    with RunningSearch(site, *arguments) as search:
        search.wait_for_epoch(trial_dir(site, "promoting", 2), 3)
        search.kill_driver()
    before = trial_records(site, "promoting")
    waiting = {trial.number: trial.paused_at for trial in before if trial.paused_at}
    assert waiting, before
    with RunningSearch(site, *arguments) as search:
        # Its first trial is the one that was interrupted, and those that wait go on waiting.
        search.wait_for(lambda: "starts" in search.output(), "a start")
        printed = search.finish()
    first = re.search(r"trial (\d+) starts, on from epoch", printed)
    assert first is not None
    assert int(first[1]) == 2
    state = final_state(site, "promoting")
    assert_consistent(state)
    assert_equal_metrics(state, reference)
    record_fault(
        fault="kill -9 of the driver, promotion-asha",
        running=f"trial 2; {len(waiting)} trials waiting at epoch {set(waiting.values())}",
        lost="at most the epoch under way; who waited went on waiting",
        optuna=state.optuna(),
        mlflow=state.mlflow(),
    )


@pytest.mark.exhaustive
def test_killed_again_and_again(site: Path, undisturbed: FinalState) -> None:
    """At times that nobody chose, from the start of Ray to the registration of the model."""
    random = Random(0)
    killed = 0
    while killed < KILLS:
        # From before Ray is up to the middle of a trial; later ones reach the refit and the end.
        with RunningSearch(site, *search_arguments("again")) as search:
            ends = time.monotonic() + random.uniform(4, 25)
            while time.monotonic() < ends and not search.is_over():
                time.sleep(0.05)
            if search.is_over():
                break
            search.kill_driver()
            killed += 1
    assert killed >= 3
    _, state = finish_again(site, "again")
    assert_equal_metrics(state, undisturbed)
    repeated = sum(num_repeated(trial.history) for trial in state.trials)
    assert repeated <= killed
    record_fault(
        fault=f"kill -9 of the driver, {killed} times",
        running="whatever ran after 4 to 25 s",
        lost=f"at most the epoch under way each time ({repeated} told twice)",
        optuna=state.optuna(),
        mlflow=state.mlflow(),
    )
