"""Two gloo processes without Ray: together they do what one worker does on the joined batches."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from gerbil_tune.data.events import open_events
from gerbil_tune.training.loop import BEST_PREDICTIONS

WORKER = Path(__file__).with_name("ddp_worker.py")
MODELS = ("gcc-net", "simplenet", "densenet", "corrnet", "batch-norm")
CASES = (
    *MODELS,
    *(f"{name}-parts" for name in MODELS if name != "batch-norm"),
    "batch-norm-few",
    "gcc-net-few",
    "batch-norm-frozen-parts",
)
NUM_EVENTS, LENGTH = 53, 400
TIMEOUT_S = 240

pytestmark = pytest.mark.slow


def write_events(path, broken):
    import h5py

    generator = np.random.default_rng(0)
    lengths = generator.integers(200, 2 * LENGTH - 200, NUM_EVENTS)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    audio = generator.standard_normal((starts[-1], 4)).astype(np.float32)
    if broken:
        audio[starts[7] + 5] = np.nan
    with h5py.File(path, "w") as file:
        file["audio"] = audio
        file["length_idx"] = starts
        file["locations"] = generator.uniform(-150, 150, (NUM_EVENTS, 2))


def loopback():
    names = [name for _, name in socket.if_nameindex()]
    return next((name for name in names if name.startswith("lo")), names[0])


@pytest.fixture(scope="module")
def group(tmp_path_factory):
    """Folder of what two workers did, and their results by rank."""
    folder = tmp_path_factory.mktemp("ddp")
    write_events(folder / "events.h5", broken=False)
    write_events(folder / "broken.h5", broken=True)
    environment = {"GLOO_SOCKET_IFNAME": loopback(), **os.environ, "OMP_NUM_THREADS": "1"}
    workers = [
        subprocess.Popen(
            [sys.executable, str(WORKER), str(rank), str(folder)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outputs = [worker.communicate(timeout=TIMEOUT_S)[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    for worker, output in zip(workers, outputs, strict=True):
        assert worker.returncode == 0, output
    return folder, [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(2)]


def largest(tensors):
    return max(float(tensor.abs().max()) for tensor in tensors.values())


@pytest.mark.parametrize("name", CASES)
def test_gradients_of_two_are_those_of_one_on_the_joined_batch(group, name):
    folder, _ = group
    first, second, alone = (
        load_file(folder / f"gradients-{name}-{who}.safetensors") for who in (0, 1, "alone")
    )
    for parameter, expected in alone.items():
        assert torch.equal(first[parameter], second[parameter])
        torch.testing.assert_close(
            first[parameter], expected, rtol=1e-3, atol=1e-5 * largest(alone), msg=parameter
        )


@pytest.mark.parametrize("name", CASES)
def test_weights_stay_equal_on_both_ranks_and_to_those_of_one(group, name):
    folder, _ = group
    first, second, alone = (
        load_file(folder / f"weights-{name}-{who}.safetensors") for who in (0, 1, "alone")
    )
    for parameter, expected in alone.items():
        assert torch.equal(first[parameter], second[parameter])
        # Adam divides by the gradient's size: rounding shows where the gradient is tiny.
        torch.testing.assert_close(first[parameter], expected, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("name", ["gcc-net", "batch-norm"])
def test_metrics_are_equal_on_both_ranks(group, name):
    _, (first, second) = group
    assert first[name] == second[name]
    assert [report["epoch"] for report in first[name]] == [1, 2, 3]


def test_a_run_of_two_is_a_run_of_one(group):
    _, (first, _) = group
    for two, one in zip(first["gcc-net"], first["alone"], strict=True):
        assert two == pytest.approx(one, rel=5e-3, abs=1e-6)


def test_a_run_goes_on_with_another_number_of_workers(group):
    """Every step is done once, in the same order: the whole run is that of one worker."""
    _, (first, _) = group
    alone = {report["epoch"]: report for report in first["alone"]}
    assert len(first["elastic"]) == 4
    for reports in first["elastic"].values():
        assert {report["epoch"] for report in reports} == {1, 2, 3}
        for report in reports:
            timing = {"epoch_s", "train_events_per_s", "predict_ms_per_event"}
            scores = {k: v for k, v in report.items() if k not in timing}
            assert scores == pytest.approx(alone[report["epoch"]], rel=5e-3, abs=1e-6)


def test_both_ranks_stop_when_rank_0_is_asked(group):
    folder, results = group
    for stopped in (result["stopped"] for result in results):
        assert [report["epoch"] for report in stopped["begun"]] == [1]
        assert stopped["place"] == [1, 2]
        assert stopped["begun"] + stopped["ended"][1:] == stopped["undisturbed"]
    weights = [
        load_file(folder / run / "best_weights.safetensors") for run in ("stopped", "average")
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize("name", ["gcc-net", "batch-norm"])
def test_metrics_are_those_of_one_worker_with_the_saved_weights(group, name):
    """With batch norm too: each rank has running statistics of its own until they are shared."""
    _, (first, _) = group
    last = {key: value for key, value in first[name][-1].items() if key.startswith("val_")}
    assert first[f"evaluated {name}"] == pytest.approx(last, rel=1e-4)


def test_two_workers_resume_exactly(group):
    folder, (first, second) = group
    # What may have been lost on its way is told again.
    assert first["resumed"] == second["resumed"] == first["gcc-net"]
    resumed = load_file(folder / "resumed" / "final_weights.safetensors")
    undisturbed = load_file(folder / "two-gcc-net" / "final_weights.safetensors")
    assert all(torch.equal(resumed[name], undisturbed[name]) for name in undisturbed)


@pytest.mark.parametrize("name", ["gcc-net", "batch-norm"])
def test_two_workers_go_on_at_the_next_step(group, name):
    folder, (first, second) = group
    folders, reports = first["within"][name]
    assert folders == ["epoch-00001-step-000001", "epoch-00001-step-000002"]
    assert [folders, reports] == second["within"][name]
    assert reports == first[name]
    resumed = load_file(folder / f"within-{name}" / "final_weights.safetensors")
    undisturbed = load_file(folder / f"two-{name}" / "final_weights.safetensors")
    assert all(torch.equal(resumed[key], undisturbed[key]) for key in undisturbed)


def test_workers_that_see_different_checkpoints_do_not_begin(group):
    _, (first, second) = group
    for result in (first, second):
        assert result["elsewhere"].startswith("the workers see different checkpoints in ")
        assert "(epochs and steps (0, 0), (3, 0)); put it on storage that" in result["elsewhere"]


def test_both_ranks_stop_when_one_diverges(group):
    _, (first, second) = group
    assert "the loss became nan" in first["diverged"]
    assert first["diverged"] == second["diverged"]


@pytest.mark.parametrize("run", ["two-gcc-net", "one-gcc-net", "two-batch-norm"])
def test_predictions_are_kept_in_the_order_of_the_events(group, run):
    """Else runs of different numbers of workers could not be put together."""
    folder, _ = group
    kept = load_file(folder / run / BEST_PREDICTIONS)
    expected = open_events(folder / "events.h5").subset(np.arange(32, NUM_EVENTS)).locations_mm
    np.testing.assert_array_equal(kept["truth"].numpy(), expected)


def test_one_rank_writes(group):
    folder, _ = group
    lines = (folder / "two-gcc-net" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3]
