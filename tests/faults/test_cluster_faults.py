"""Workers, machines and memory that are lost; and searches that have neighbours."""

import shutil
import time
from pathlib import Path

import pytest

from gerbil_tune.errors import LaunchError, ModelNotFoundError
from tests.faults.bystanders import (
    limit_address_space,
    ray_head,
    two_nodes,
    watch_address_space,
)
from tests.faults.bystanders import ray_folder as ray_folder
from tests.faults.harness import (
    REFIT,
    FinalState,
    RunningSearch,
    assert_consistent,
    assert_equal_metrics,
    final_state,
    make_site,
    num_epochs_told,
    num_repeated,
    place,
    record_fault,
    search_arguments,
    trial_dir,
    trial_records,
)
from tests.faults.machines import several_nodes

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.exhaustive]

IN_A_GROUP = ("--workers-per-trial", "2", "--trials", "1")

HUNGRY = """
name: hungry
study:
  trials: 2
  refit_epochs: 1
  sampler: {kind: random, seed: 5}
  trial_scheduler: {kind: none}
base:
  model:
    kind: simplenet
    conv: {channels: [64, 64], kernel_sizes: [3, 3], downsample: [false, false], dilations: [1, 1]}
  training: {epochs: 8, global_batch_size: 96}
parameters:
  optimizer/learning_rate: {type: float, low: 1.0e-4, high: 1.0e-3, log: true}
"""
"""A step on all 96 events takes gigabytes, and in halves half as much: in pieces so large that each goes back
to the system at once."""

STOPPING = """
name: stopping
study:
  trials: 3
  refit_epochs: 2
  sampler: {kind: random, seed: 5}
  trial_scheduler: {kind: asha, grace_epochs: 1, reduction_factor: 2}
base:
  model: {kind: gcc-net, lags: {num_channels: 8, hidden: 16, num_blocks: 2}}
  training: {epochs: 4, global_batch_size: 8}
parameters:
  optimizer/learning_rate: {type: float, low: 1.0e-9, high: 1.0e-1, log: true}
points:
  - {optimizer/learning_rate: 6.0e-3}
  - {optimizer/learning_rate: 1.0e-9}
  - {optimizer/learning_rate: 1.0e-8}
"""
"""Trials that learn nothing are stopped after their first epoch."""


@pytest.fixture(scope="module")
def undisturbed_group(site: Path) -> FinalState:
    """What a trial of two workers leaves where nothing goes wrong."""
    with RunningSearch(site, *search_arguments("undisturbed-group", *IN_A_GROUP)) as search:
        search.finish()
    state = final_state(site, "undisturbed-group")
    assert_consistent(state)
    return state


@pytest.mark.parametrize("rank", [0, 1])
def test_worker_of_a_group_killed(site: Path, undisturbed_group: FinalState, rank: int) -> None:
    name = f"rank-{rank}"
    run_dir = trial_dir(site, name, 0)
    with RunningSearch(site, *search_arguments(name, *IN_A_GROUP)) as search:
        search.wait_for_epoch(run_dir, 10)
        search.kill("worker", rank)
        epoch, killed = place(run_dir)[0], time.monotonic()
        told = num_epochs_told(run_dir)
        search.wait_for(lambda: num_epochs_told(run_dir) > told, "the next epoch", 180)
        idle_s = time.monotonic() - killed
        search.finish()
    assert epoch < 40
    state = final_state(site, name)
    assert_consistent(state)
    assert num_repeated(state.trials[0].history) <= 1
    assert_equal_metrics(state, undisturbed_group)
    record_fault(
        fault=f"kill -9 of DDP rank {rank} of 2",
        running=f"trial 0, epoch {epoch + 1} of 40",
        lost=f"at most the epoch under way ({num_repeated(state.trials[0].history)} told twice); goes on in "
        f"the same trial after {idle_s:.0f} s",
        optuna=state.optuna(),
        mlflow=state.mlflow(),
    )


def test_raylet_killed(site: Path, undisturbed: FinalState) -> None:
    run_dir = trial_dir(site, "raylet", 1)
    with RunningSearch(site, *search_arguments("raylet")) as search:
        search.wait_for_epoch(run_dir, 10)
        search.kill("raylet")
        epoch, killed = place(run_dir)[0], time.monotonic()
        printed = search.finish(LaunchError.exit_code, timeout_s=120)
        ended_s = time.monotonic() - killed
    assert "raylet" in printed.split("error: ")[-1]
    assert "same command goes on" in printed
    assert epoch < 40
    with RunningSearch(site, *search_arguments("raylet")) as search:
        assert "trial 0 starts" not in search.finish()
    state = final_state(site, "raylet")
    assert_consistent(state)
    assert_equal_metrics(state, undisturbed)
    record_fault(
        fault="kill -9 of the raylet of the only node",
        running=f"trial 1, epoch {epoch + 1} of 40",
        lost=f"the epoch under way; ends with a sentence and exit 1, all gone after {ended_s:.0f} s",
        optuna=state.optuna(),
        mlflow=state.mlflow(),
    )


def test_raylet_killed_in_the_refit(site: Path, undisturbed: FinalState) -> None:
    run_dir = site / "studies" / "raylet-refit" / REFIT
    with RunningSearch(site, *search_arguments("raylet-refit")) as search:
        search.wait_for_epoch(run_dir, 2)
        search.kill("raylet")
        epoch, killed = place(run_dir)[0], time.monotonic()
        printed = search.finish(LaunchError.exit_code, timeout_s=180)
        ended_s = time.monotonic() - killed
    assert 2 <= epoch < 6
    assert "raylet" in printed.split("error: ")[-1]
    assert "same command goes on" in printed
    with RunningSearch(site, *search_arguments("raylet-refit")) as search:
        again = search.finish()
    assert "2 done before" in again
    assert "starts" not in again
    assert f"epoch {epoch}/6" not in again.partition("training it whole")[2]
    state = final_state(site, "raylet-refit")
    assert_consistent(state)
    assert_equal_metrics(state, undisturbed)
    record_fault(
        fault="kill -9 of the raylet of the only node",
        running=f"refit of trial 1, epoch {epoch + 1} of 6",
        lost=f"the epoch under way; ends with a sentence and exit 1, all gone after {ended_s:.0f} s",
        optuna=state.optuna(),
        mlflow=state.mlflow(),
    )


def test_one_node_of_two_lost(site: Path, undisturbed: FinalState, ray_folder: Path) -> None:
    run_dirs = [trial_dir(site, "two-nodes", number) for number in (0, 1)]
    arguments = (*search_arguments("two-nodes"), "--max-concurrent", "2")
    with two_nodes(ray_folder) as nodes:
        address = {"RAY_ADDRESS": nodes.address}
        with RunningSearch(site, *arguments, environment=address) as search:
            for run_dir in run_dirs:
                search.wait_for_epoch(run_dir, 5)
            assert nodes.num_trials_on_second() == 1
            nodes.lose_second()
            epochs = [place(run_dir)[0] for run_dir in run_dirs]
            search.finish()
    state = final_state(site, "two-nodes")
    assert_consistent(state)
    # The refit has one worker where the undisturbed one has two.
    assert_equal_metrics(state, undisturbed, refits=False)
    (hit,) = [trial for trial in state.trials if trial.mishaps]
    assert epochs[hit.number] < 40
    record_fault(
        fault="kill -9 of the raylet of one node of two",
        running=f"both trials, trial {hit.number} there in epoch {epochs[hit.number] + 1} of 40",
        lost="at most the epoch under way of the trial there, which goes on on the other node",
        optuna=f"{state.optuna()}; mishap: {hit.mishaps[0]}",
        mlflow=state.mlflow(),
    )


def test_one_node_of_three_lost(site: Path, undisturbed: FinalState, ray_folder: Path) -> None:
    """The head has no CPU, so that both trials and the refit are elsewhere, and one of the two is left."""
    name = "three-nodes"
    run_dirs = [trial_dir(site, name, number) for number in (0, 1)]
    arguments = (*search_arguments(name), "--max-concurrent", "2")
    with several_nodes(ray_folder, 0, 1, 1) as nodes:
        address = {"RAY_ADDRESS": nodes.address}
        with RunningSearch(site, *arguments, environment=address) as search:
            for run_dir in run_dirs:
                search.wait_for_epoch(run_dir, 5)
            assert [len(nodes.trials_of(number)) for number in range(3)] == [0, 1, 1]
            nodes.lose(2)
            epochs, lost = [place(run_dir)[0] for run_dir in run_dirs], time.monotonic()
            # One of them has gone, and the other goes on; both end on the node that is left.
            search.wait_for(lambda: not nodes.trials_of(2), "end of the trial on the lost node")
            printed = search.finish()
            rest_s = time.monotonic() - lost
    state = final_state(site, name)
    assert_consistent(state)
    assert_equal_metrics(state, undisturbed, refits=False)
    (hit,) = [trial for trial in state.trials if trial.mishaps]
    assert 5 <= epochs[hit.number] < 40
    assert num_repeated(hit.history) <= 1
    assert f"trial {hit.number} waits after" in printed
    record_fault(
        fault="kill -9 of the raylet of one node of three (the head has no CPU)",
        running=f"both trials, trial {hit.number} there in epoch {epochs[hit.number] + 1} of 40",
        lost=f"at most the epoch under way of the trial there, which goes on on the node that is left; over "
        f"after {rest_s:.0f} s",
        optuna=f"{state.optuna()}; mishap: {hit.mishaps[0]}",
        mlflow=state.mlflow(),
    )


@pytest.fixture(scope="module")
def hungry_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a space whose networks need much memory."""
    return make_site(tmp_path_factory.mktemp("hungry"), HUNGRY)


def starve(folder: Path, name: str, share: float, code: int = 0) -> tuple[FinalState, str]:
    """Search, and let the first trial's process soon have only a share of what its steps take."""
    run_dir = trial_dir(folder, name, 0)
    with RunningSearch(folder, *search_arguments(name)) as search:
        search.wait_for_epoch(run_dir, 1)
        trial = search.wait_for_process("trial")
        seen = watch_address_space(search, trial.pid, lambda: place(run_dir)[0] >= 3)
        step_bytes = seen.most - seen.least
        limit_address_space(trial.pid, seen.least + round(share * step_bytes))
        epoch = place(run_dir)[0]
        search.finish(code)
    state = final_state(folder, name)
    assert_consistent(state, study_state="complete" if code == 0 else "failed")
    assert epoch < 8
    assert step_bytes > 500e6
    return state, f"trial 0, epoch {epoch + 1} of 8; a step takes {step_bytes / 1e6:.0f} MB"


def test_memory_for_half_a_batch(hungry_site: Path) -> None:
    state, running = starve(hungry_site, "half", 0.75)
    hit, other = state.trials
    assert [trial.state for trial in state.trials] == ["COMPLETE", "COMPLETE"]
    assert len(hit.mishaps) == 1
    assert hit.mishaps[0].startswith("out of memory")
    record_fault(
        fault="memory for 3/4 of a step (RLIMIT_AS)",
        running=running,
        lost="at most the epoch under way; again with half of a batch at a time",
        optuna=f"{state.optuna()}; mishaps {[len(hit.mishaps), len(other.mishaps)]}",
        mlflow=state.mlflow(),
        metrics="same global batch; sums in another order",
    )


def test_memory_for_no_batch(hungry_site: Path) -> None:
    state, running = starve(hungry_site, "none", 0.35, ModelNotFoundError.exit_code)
    for trial in state.trials:  # the process, and with it the limit, serves both
        assert (trial.state, trial.reason_kind) == ("FAIL", "out of memory")
        assert len(trial.mishaps) == 2
    record_fault(
        fault="memory for 1/3 of a step (RLIMIT_AS)",
        running=running,
        lost="both trials, each after a second try with half of a batch at a time",
        optuna=state.optuna(),
        mlflow=state.mlflow(),
        metrics="-",
    )


def test_two_searches_at_once(
    site: Path, undisturbed: FinalState, tmp_path: Path, undisturbed_group: FinalState
) -> None:
    folders = [tmp_path / "here", tmp_path / "there"]
    for folder in folders:
        shutil.copytree(site / "data", folder / "data")
        shutil.copy(site / "space.yaml", folder / "space.yaml")
    here = search_arguments("both")
    there = search_arguments("both", *IN_A_GROUP)
    with RunningSearch(folders[0], *here) as one, RunningSearch(folders[1], *there) as other:
        one.wait_for_epoch(trial_dir(folders[0], "both", 0), 1)
        assert not other.is_over()
        one.finish()
        other.finish()
    states = [final_state(folder, "both") for folder in folders]
    for state, alone in zip(states, (undisturbed, undisturbed_group), strict=True):
        assert_consistent(state)
        assert_equal_metrics(state, alone)
    record_fault(
        fault="two searches at once in two folders",
        running="two trials of one worker; one trial of two",
        lost="nothing",
        optuna=" | ".join(state.optuna() for state in states),
        mlflow=" | ".join(state.mlflow() for state in states),
        metrics="equal to each run alone",
    )


def test_another_instance_of_ray(site: Path, ray_folder: Path) -> None:
    """Ray Train's clean-up of a trial that is stopped early must not ask the wrong instance."""
    (site / "stopping.yaml").write_text(STOPPING)
    arguments = search_arguments("stopping", "--workers-per-trial", "2", space="stopping.yaml")
    with ray_head(ray_folder) as head:
        before = sorted(head.processes().items())
        where = {"RAY_TMPDIR": str(ray_folder)}
        with RunningSearch(site, *arguments, environment=where) as search:
            search.finish()
        vital = [pid for pid, title in before if "/gcs_server " in title or "/raylet " in title]
        assert len(vital) == 2
        assert set(vital) <= set(head.processes())
    state = final_state(site, "stopping")
    assert [trial.state for trial in state.trials] == ["COMPLETE", "PRUNED", "PRUNED"]
    assert [run.state for run in state.parents] == ["complete"]
    # A trial that is stopped may have begun another epoch, of which nobody hears.
    for trial in state.trials:
        (found,) = state.runs[trial.number]
        assert found.state == {"COMPLETE": "complete", "PRUNED": "pruned"}[trial.state]
        assert sorted(found.steps) == sorted(trial.curve)
    record_fault(
        fault="another instance of Ray (ray start --head) on the machine",
        running="3 trials of two workers, 2 of them stopped early",
        lost="nothing, neither here nor there",
        optuna=state.optuna(),
        mlflow=state.mlflow(),
        metrics="-",
    )


def test_second_search_on_the_same_study(site: Path, undisturbed: FinalState) -> None:
    with RunningSearch(site, *search_arguments("taken")) as search:
        search.wait_for_epoch(trial_dir(site, "taken", 0), 1)
        with RunningSearch(site, *search_arguments("taken")) as second:
            printed = second.finish(LaunchError.exit_code)
        assert not search.is_over()
        assert {trial.state for trial in trial_records(site, "taken")} <= {"RUNNING", "COMPLETE"}
        search.finish()
    assert "another search is running on the study 'taken'" in printed
    state = final_state(site, "taken")
    assert_consistent(state)
    assert_equal_metrics(state, undisturbed)
    record_fault(
        fault="a second search on the same study",
        running="trial 0",
        lost="nothing; the second ends with a sentence and exit 1",
        optuna=state.optuna(),
        mlflow=state.mlflow(),
    )
