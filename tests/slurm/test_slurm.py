"""The scripts of ``cluster/`` on a real SLURM: two compute nodes in namespaces of this machine."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gerbil_tune.inference.writer import read_attributes
from tests.conftest import write_bundle, write_event_file
from tests.faults.harness import (
    assert_consistent,
    checkpoints,
    final_state,
    num_epochs_told,
    num_repeated,
    read_history,
    trial_dir,
    trial_records,
)
from tests.integration.test_gerbilizer_lines import CONFIG
from tests.slurm.lab import Job, SlurmLab

pytestmark = [pytest.mark.slurm, pytest.mark.ray, pytest.mark.slow]

PROGRAM = str(Path(sys.executable).with_name("gerbil-tune"))
BOTH_NODES = ("--nodes=2", "--cpus-per-task=1")  # a second worker on one node has no CPU there
ONE_NODE = ("--nodes=1", "--cpus-per-task=1")
TRIAL, RANK = "^ray::ImplicitFunc", "^ray::RayTrainWorker"

SPACE = """
name: slurm
study:
  trials: 2
  refit_epochs: 4
  sampler: {kind: random, seed: 5}
  trial_scheduler: {kind: none}
base:
  model: {kind: gcc-net, lags: {num_channels: 8, hidden: 16, num_blocks: 2}}
  training: {epochs: 90, global_batch_size: 16}
parameters:
  optimizer/learning_rate: {type: float, low: 1.0e-4, high: 1.0e-3, log: true}
"""
"""Two trials at a time on two CPUs, and a final training with two ranks of 8 events."""

SEARCH = (PROGRAM, "search", "space.yaml", "--data", "data", "--name", "slurm")


def on_both_nodes(lab: SlurmLab, pattern: str) -> bool:
    return all(lab.processes(pattern, node) for node in (1, 2))


def epochs(site: Path) -> list[int]:
    """Epochs that each of the two trials has told of."""
    return [num_epochs_told(trial_dir(site, "slurm", number)) for number in (0, 1)]


def at_least(site: Path, least: list[int]) -> Callable[[], bool]:
    return lambda: all(told >= some for told, some in zip(epochs(site), least, strict=True))


def assert_run_folders_gone(site: Path) -> None:
    assert not list((site / "slurm-jobs").glob("*/token"))
    assert not list((site / "slurm-jobs").iterdir())


def test_search_is_preempted_twice_and_ends_right(lab: SlurmLab, site: Path) -> None:
    (site / "space.yaml").write_text(SPACE)
    job = lab.submit(site, *SEARCH, options=BOTH_NODES)
    job.wait_for(lambda: on_both_nodes(lab, TRIAL), "a trial on each node")
    job.wait_for(at_least(site, [3, 3]), "three epochs")

    job.warn()
    job.wait_for_requeue(1)
    assert "the command has ended with exit code 75" in job.log()
    assert "it goes on where it was" in job.log()
    lab.assert_nothing_left()
    assert_run_folders_gone(site)
    told = epochs(site)
    assert max(told) < 90
    assert all(checkpoints(trial_dir(site, "slurm", number)) for number in (0, 1))

    job.wait_for(at_least(site, [some + 3 for some in told]), "three more epochs")
    # Nothing that was done before the warning was done again after it.
    assert [num_repeated(read_history(trial_dir(site, "slurm", n))) for n in (0, 1)] == [0, 0]

    lab.run("scontrol", "requeue", job.number)  # without a warning
    job.wait_for_requeue(2)
    lab.assert_nothing_left()

    job.wait_for(lambda: on_both_nodes(lab, RANK), "a rank of the final training on each node")
    job.assert_ends("COMPLETED 0:0")
    assert job.field("Restarts") == "2"
    lab.assert_nothing_left()
    state = final_state(site, "slurm")
    assert_consistent(state)
    assert [trial.state for trial in state.trials] == ["COMPLETE", "COMPLETE"]
    assert all(num_repeated(trial.history) <= 1 for trial in state.trials)  # of the killed attempt
    champion = site / "trained_models/gerbil-locator/00001"
    assert json.loads((champion / "provenance.json").read_text())["workers"] == 2


def test_two_jobs_at_once_and_a_failing_one(lab: SlurmLab, site: Path) -> None:
    """Each has half of the CPUs and GPUs of both nodes; one command fails."""
    probe = (sys.executable, str(Path(__file__).with_name("probe.py")))
    half = ("--nodes=2", "--cpus-per-task=2", "--gpus-per-node=1", "--mem=2000")
    good = lab.submit(site, *probe, "good", "bad", "0", options=half)
    bad = lab.submit(site, *probe, "bad", "good", "3", options=half)
    good.assert_ends("COMPLETED 0:0")
    bad.assert_ends("FAILED 3:0")
    lab.assert_nothing_left()
    said = {name: json.loads((site / f"{name}.json").read_text()) for name in ("good", "bad")}
    assert said["good"]["address"] != said["bad"]["address"]
    for cluster in said.values():
        assert sorted(cluster["nodes"]) == ["n1", "n2"]
        assert cluster["cluster"]["CPU"] == 4
        assert cluster["cluster"]["GPU"] == 2
        assert cluster["cluster"]["memory"] + cluster["cluster"]["object_store_memory"] == 4e9
        assert all(node["GPU"] == 1 for node in cluster["nodes"].values())
        assert cluster["gpus"] == 2
    [left] = (site / "slurm-jobs").iterdir()  # of the one that failed, without its token
    assert str(left) in bad.log()
    assert {path.name for path in left.iterdir()} >= {"status", "logs-n1", "logs-n2"}
    assert not (left / "token").exists()


def test_search_goes_on_without_a_node(lab: SlurmLab, site: Path) -> None:
    # The trials are over before Ray misses the node, so that the final training begins with it.
    (site / "space.yaml").write_text(SPACE.replace("epochs: 90", "epochs: 60"))
    job = lab.submit(site, *SEARCH, options=BOTH_NODES)
    job.wait_for(lambda: on_both_nodes(lab, TRIAL), "a trial on each node")
    job.wait_for(at_least(site, [3, 3]), "three epochs")
    lab.kill_node(2)
    job.wait_for(lambda: "node n2 is lost" in job.log(), "the name of the lost node", 30)
    assert "1 of 2 are left" in job.log()
    job.assert_ends("COMPLETED 0:0")
    lab.assert_nothing_left(nodes_lost=1)
    trials = trial_records(site, "slurm")
    assert [trial.state for trial in trials] == ["COMPLETE", "COMPLETE"]
    mishaps = [mishap for trial in trials for mishap in trial.mishaps]
    assert len(mishaps) == 1
    assert all(num_repeated(trial.history) <= 1 for trial in trials)  # it went on at its checkpoint


def test_prediction_and_training_go_on(lab: SlurmLab, site: Path) -> None:
    """One node each, so that all of Ray stays on the loopback; the training is a task of an array."""
    prediction = start_prediction(lab, site)
    prediction.wait_for((site / "out/a.predictions.h5").exists, "the first file")
    prediction.warn()
    prediction.wait_for_requeue(1)
    training = start_training(lab, site)
    training.wait_for(lambda: epochs_of_training(site) >= 3, "three epochs")
    assert_only_loopback(lab, int(re.findall(r"^n(\d)", training.field("NodeList"))[0]))
    training.warn()
    training.wait_for_requeue(1)
    told = epochs_of_training(site)
    training.assert_ends("COMPLETED 0:0")
    assert f"continuing after epoch {told}/" in training.log()
    assert training.log().count(f"epoch {told}/40:") == 1
    assert (site / "trained_models/small/00001/config.json").is_file()
    prediction.assert_ends("COMPLETED 0:0")
    assert "kept " in prediction.log()
    assert all(read_attributes(site / f"out/{name}.predictions.h5") for name in "ab")
    lab.assert_nothing_left()
    assert_run_folders_gone(site)


def start_training(lab: SlurmLab, site: Path) -> Job:
    config: dict[str, Any] = {**CONFIG, "OPTIMIZATION": {"NUM_EPOCHS": 40}}
    (site / "second.json").write_text(json.dumps(config))
    return lab.submit(
        site,
        *("data", "first.json", "second.json"),
        script="run_array.sh",
        options=("--array=1", "--cpus-per-task=1", "--gpus-per-node=0", "--mem=1000", "--time=10"),
        environment={"GERBIL_TUNE_PYTHON": sys.executable},
    )


def epochs_of_training(site: Path) -> int:
    return max((num_epochs_told(run) for run in site.glob("trained_models/.runs/*")), default=0)


def start_prediction(lab: SlurmLab, site: Path) -> Job:
    """Two files, of which the second takes long."""
    bundle = write_bundle(site)
    files = [
        write_event_file(site / "calls" / f"{name}.h5", num_events=events)
        for name, events in (("a", 20), ("b", 40_000))
    ]
    data = [word for file in files for word in ("--data", str(file))]
    command = (PROGRAM, "predict", "--model", str(bundle), *data, "-o", "out", "--workers", "1")
    return lab.submit(site, *command, options=ONE_NODE)


def assert_only_loopback(lab: SlurmLab, node: int) -> None:
    """Check where Ray, and what it runs, listens on a node whose job has no other."""
    raylet = lab.processes("raylet/raylet", node)[0]
    listening = lab.run("nsenter", "--target", str(raylet), "--net", "ss", "-tlnpH").splitlines()
    own = [line for line in listening if not re.search(r'"(slurm\w+|srun)"', line)]
    assert len(own) >= 5
    loopback = ("127.0.0.1:", "[::1]:", "[::ffff:127.0.0.1]:")
    assert [line for line in own if not line.split()[3].startswith(loopback)] == []
