"""Checkpoints that are damaged on disk while the search is stopped: it falls back to the one before."""

import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from gerbil_tune.training.checkpoints import newest_place
from tests.faults.harness import (
    FinalState,
    RunningSearch,
    assert_consistent,
    assert_equal_metrics,
    checkpoints,
    final_state,
    num_repeated,
    place,
    record_fault,
    search_arguments,
    trial_dir,
)

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.exhaustive]

NAME = "damaged"


@pytest.fixture(scope="module")
def stopped(site: Path) -> Path:
    """The site with a study that was stopped in trial 1."""
    run_dir = trial_dir(site, NAME, 1)
    with RunningSearch(site, *search_arguments(NAME)) as search:
        search.wait_for_epoch(run_dir, 5)
        search.send_signal(signal.SIGTERM)
        search.finish(75)
    return site


def truncate(newest: Path) -> None:
    tensors = newest / "state.safetensors"
    with tensors.open("r+b") as file:
        file.truncate(tensors.stat().st_size // 2)


def flip_a_bit(newest: Path) -> None:
    tensors = newest / "state.safetensors"
    content = bytearray(tensors.read_bytes())
    content[-100] ^= 1
    tensors.write_bytes(content)


def delete_all(newest: Path) -> None:
    shutil.rmtree(newest.parent)


@pytest.mark.parametrize(
    ("fault", "damage"),
    [
        ("checkpoint truncated", truncate),
        ("checkpoint deleted", shutil.rmtree),
        ("one bit of a checkpoint flipped", flip_a_bit),
        ("all checkpoints deleted", delete_all),
    ],
)
def test_checkpoint_damaged(
    stopped: Path,
    undisturbed: FinalState,
    tmp_path: Path,
    fault: str,
    damage: Callable[[Path], None],
) -> None:
    folder = tmp_path / "site"
    shutil.copytree(stopped, folder)
    run_dir = trial_dir(folder, NAME, 1)
    newest = checkpoints(run_dir)[0]
    stopped_at = place(run_dir)
    damage(newest)
    goes_on_at = newest_place(run_dir) or (0, 0)
    assert goes_on_at < stopped_at
    with RunningSearch(folder, *search_arguments(NAME)) as search:
        search.finish()
    state = final_state(folder, NAME)
    assert_consistent(state)
    assert_equal_metrics(state, undisturbed)
    (epoch, step), (from_epoch, from_step) = stopped_at, goes_on_at
    record_fault(
        fault=fault,
        running=f"nothing: stopped after epoch {epoch}, step {step}",
        lost=f"what came after epoch {from_epoch}, step {from_step}"
        f" ({num_repeated(state.trials[1].history)} epochs told twice)",
        optuna=state.optuna(),
        mlflow=state.mlflow(),
    )
