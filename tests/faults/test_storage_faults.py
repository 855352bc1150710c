"""A full disk, and a tracking store that is locked or away, while a search runs."""

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from gerbil_tune.errors import LaunchError
from gerbil_tune.training.checkpoints import newest_place
from tests.faults.bystanders import MlflowServer, fill_disk, make_room, small_disk
from tests.faults.bystanders import server as server
from tests.faults.harness import (
    FinalState,
    RunningSearch,
    assert_consistent,
    assert_equal_metrics,
    checkpoints,
    final_state,
    num_epochs_told,
    place,
    record_fault,
    search_arguments,
    trial_dir,
)

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.exhaustive]

SLOWLY = ("--set", "training/global_batch_size=1")
"""96 steps an epoch."""
LOCKED_S, AWAY_S = 30.0, 60.0
LONGEST_GAP_S = 8.0
"""Between two epochs of a search that is not delayed, on a machine that has other work too."""


def test_disk_full(site: Path, undisturbed: FinalState) -> None:
    study_dir = site / "studies" / "full"
    run_dirs = [trial_dir(site, "full", number) for number in (0, 1)]
    with small_disk(study_dir, megabytes=64):
        with RunningSearch(site, *search_arguments("full")) as search:
            search.wait_for_epoch(run_dirs[1], 5)
            fill_disk(study_dir)
            epoch, full = place(run_dirs[1])[0], time.monotonic()
            printed = search.finish(LaunchError.exit_code, timeout_s=150)
            ended_s = time.monotonic() - full
        assert epoch < 40
        said = printed.split("error: ")[-1]
        assert "disk" in said
        assert "same command goes on" in said
        # What has its final name is whole; the checkpoints of the trial that was over are gone.
        kept = newest_place(run_dirs[1])
        assert kept is not None
        assert kept == place(run_dirs[1])
        assert len(checkpoints(run_dirs[1])) <= 2
        assert newest_place(run_dirs[0]) is None
        make_room(study_dir)
        with RunningSearch(site, *search_arguments("full")) as search:
            assert "trial 0 starts" not in search.finish()
        state = final_state(site, "full")
        left = [path.name for path in study_dir.rglob("*.partial*")]
    assert not left
    assert_consistent(state)
    assert_equal_metrics(state, undisturbed)
    record_fault(
        fault="disk of the study full",
        running=f"trial 1, epoch {epoch + 1} of 40",
        lost=f"at most the epoch under way; ends with a sentence and exit 1 after {ended_s:.0f} s",
        optuna=state.optuna(),
        mlflow=state.mlflow(),
    )


def longest_gap_s(
    search: RunningSearch, run_dirs: list[Path], seconds: float, at_end: Callable[[], object]
) -> tuple[float, int]:
    """Watch a search for a time, or to the end of its trials.

    Returns:
        The longest time without a new epoch, and epochs done meanwhile.
    """
    began = last = time.monotonic()
    first = told = sum(map(num_epochs_told, run_dirs))
    longest = 0.0
    while (now := time.monotonic()) < began + seconds:
        assert not search.is_over(), search.output()
        if "training it whole" not in search.output():
            longest = max(longest, now - last)
        if (count := sum(map(num_epochs_told, run_dirs))) > told:
            told, last = count, now
        time.sleep(0.02)
    at_end()
    return longest, told - first


def test_tracking_store_locked(site: Path) -> None:
    arguments = (*search_arguments("locked"), *SLOWLY, "--set", "training/epochs=70")
    run_dirs = [trial_dir(site, "locked", number) for number in (0, 1)]
    with RunningSearch(site, *arguments) as search:
        search.wait_for_epoch(run_dirs[0], 3)
        with closing(
            sqlite3.connect(site / "mlflow.db", isolation_level=None, timeout=60)
        ) as other:
            other.execute("BEGIN EXCLUSIVE")
            longest_s, epochs = longest_gap_s(search, run_dirs, LOCKED_S, lambda: None)
            other.execute("ROLLBACK")
        search.finish()
    assert longest_s < LONGEST_GAP_S
    assert epochs > 10
    state = final_state(site, "locked")
    assert_consistent(state)
    record_fault(
        fault=f"MLflow's sqlite store locked for {LOCKED_S:.0f} s",
        running=f"{epochs} epochs meanwhile, at most {longest_s:.1f} s without one",
        lost="nothing",
        optuna=state.optuna(),
        mlflow=f"{state.mlflow()}; every epoch",
        metrics="-",
    )


def test_tracking_server_away(site: Path, server: MlflowServer) -> None:
    arguments = (*search_arguments("away"), *SLOWLY, "--set", "training/epochs=120")
    run_dirs = [trial_dir(site, "away", number) for number in (0, 1)]
    environment = {"MLFLOW_TRACKING_URI": server.uri}
    with RunningSearch(site, *arguments, environment=environment) as search:
        search.wait_for_epoch(run_dirs[0], 3)
        server.kill()
        longest_s, epochs = longest_gap_s(search, run_dirs, AWAY_S, server.start)
        search.finish()
    assert longest_s < LONGEST_GAP_S
    assert epochs > 10
    state = final_state(site, "away", server.uri)
    assert_consistent(state)
    record_fault(
        fault=f"mlflow server killed, back after {AWAY_S:.0f} s",
        running=f"{epochs} epochs meanwhile, at most {longest_s:.1f} s without one",
        lost="nothing",
        optuna=state.optuna(),
        mlflow=f"{state.mlflow()}; every epoch",
        metrics="-",
    )
