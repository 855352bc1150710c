"""One of two processes of test_ddp.py: ``ddp_worker.py RANK FOLDER``. It measures, the test judges.

FOLDER has events.h5 and broken.h5; results go to FOLDER/rank-<RANK>.json and FOLDER/<name>.safetensors.
"""

import json
import math
import os
import sys
from pathlib import Path

import numpy as np
import torch
import torch.distributed
from safetensors.torch import save_file
from torch.nn.parallel import DistributedDataParallel

from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.data.events import open_events
from gerbil_tune.data.splits.splits import Splits
from gerbil_tune.errors import LaunchError, NonFiniteLossError
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.localizer import Localizer
from gerbil_tune.training import loop
from gerbil_tune.training.job import TrainingJob
from gerbil_tune.training.loop import evaluate, make_optimizer, optimizer_step, train_loop
from gerbil_tune.training.session import InProcessSession
from gerbil_tune.training.state import CHECKPOINTS, Progress, TrainState, cpu_weights
from gerbil_tune.training.steps import ValidationSet, make_training_steps

WORLD_SIZE = 2
CPU = torch.device("cpu")
SETUP = RecordingSetup(4, 50_000.0, (572.0, 356.0))
STACK = {
    "channels": [6, 8],
    "kernel_sizes": [9, 9],
    "downsample": [True, True],
    "dilations": [1, 1],
}
LAGS = {"num_channels": 8, "num_blocks": 2, "hidden": 16, "dropout": 0.0}
MODELS = {
    "gcc-net": {"kind": "gcc-net", "lags": LAGS},
    "simplenet": {"kind": "simplenet", "conv": STACK},
    "densenet": {"kind": "densenet", "num_stages": 5, "kernel_size": 9},
    "corrnet": {"kind": "corrnet", "conv": STACK, "lags": LAGS, "hidden": 16},
    "batch-norm": {"kind": "simplenet", "conv": {**STACK, "normalization": "batch"}},
}

KINDS = ("polarity", "gain", "noise", "low_frequency", "mask", "dropout", "shift")
AUGMENTATION = {**{f"{kind}_prob": 0.3 for kind in KINDS}, "shift_ms": 0.5}


def make_job(folder, run, name, events="events.h5", **training):
    events = open_events(folder / events)
    splits = Splits(events.subset(np.arange(32)), events.subset(np.arange(32, len(events))), None)
    config = ExperimentConfig.model_validate(
        {
            "data": {"crop_length": 500},
            "features": {"gcc": {"window_length": 256, "max_lag_ms": 1.0}},
            "model": MODELS[name],
            "augmentation": AUGMENTATION,
            "training": {
                "epochs": 3,
                "global_batch_size": 8,
                "precision": "float32",
                **training,
            },
        }
    )
    return TrainingJob(config, SETUP, splits, folder / run)


def make_session(rank, world_size, report=lambda metrics: None):
    return InProcessSession(report, CPU, rank=rank, world_size=world_size)


def train(job, rank, world_size, on_report=lambda metrics: None):
    """Train and return the reports without the timings."""
    reports = []

    def report(metrics):
        timing = ("epoch_s", "train_events_per_s")
        reports.append({k: v for k, v in metrics.items() if k not in timing})
        on_report(metrics)

    train_loop(job, make_session(rank, world_size, report))
    return reports


def first_gradients(job, rank, world_size):
    """Gradients of the first step, and the weights after three."""
    torch.manual_seed(3)
    model = Localizer(job.config, SETUP).train()
    network = DistributedDataParallel(model.network) if world_size > 1 else model.network
    state = TrainState(model, make_optimizer(job.config.optimizer, model), Progress(), {})
    session = make_session(rank, world_size)
    steps = make_training_steps(job.config, SETUP, job.splits.train, model, session)
    gradients = {}
    for step, (features, locations_BKD) in zip(range(3), steps.epoch(0), strict=False):
        optimizer_step(state, network, features, locations_BKD, clip_norm=None)
        if step == 0:
            gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    return gradients, cpu_weights(model)


def compare_gradients(folder, rank):
    for name in MODELS:
        job = make_job(folder, "unused", name)
        gradients, weights = first_gradients(job, rank, WORLD_SIZE)
        save_file(gradients, folder / f"gradients-{name}-{rank}.safetensors")
        save_file(weights, folder / f"weights-{name}-{rank}.safetensors")
        if rank == 0:
            gradients, weights = first_gradients(job, 0, 1)
            save_file(gradients, folder / f"gradients-{name}-alone.safetensors")
            save_file(weights, folder / f"weights-{name}-alone.safetensors")


def compare_runs(folder, rank):
    results = {}
    for name in ("gcc-net", "batch-norm"):
        results[name] = train(make_job(folder, f"two-{name}", name), rank, WORLD_SIZE)
    if rank == 0:
        results["alone"] = train(make_job(folder, "one-gcc-net", "gcc-net"), 0, 1)
        for name in ("gcc-net", "batch-norm"):
            job = make_job(folder, f"two-{name}", name)
            model = Localizer(job.config, SETUP)
            state = TrainState(model, make_optimizer(job.config.optimizer, model), Progress(), {})
            assert state.load_newest(job.run_dir)
            alone = make_session(0, 1)
            validation = ValidationSet(model, job, alone)
            results[f"evaluated {name}"], _ = evaluate(model, validation, job, alone)
    return results


class KilledError(Exception):
    pass


def kill(metrics):
    if metrics["epoch"] == 2:
        raise KilledError


def resume(folder, rank):
    job = make_job(folder, "resumed", "gcc-net")
    try:
        train(job, rank, WORLD_SIZE, kill)
    except KilledError:
        torch.distributed.barrier()
        return train(job, rank, WORLD_SIZE)
    return "was not killed"


def resume_within_an_epoch(folder, rank):
    """Both workers die in the third of four steps of the second epoch."""
    reports = {}
    for name in ("gcc-net", "batch-norm"):
        job = make_job(folder, f"within-{name}", name, checkpoint_interval_s=1e-9)
        steps = iter(range(1, 8))

        def killed_step(*arguments, steps=steps):
            if next(steps) == 7:
                raise KilledError
            return optimizer_step(*arguments)

        loop.optimizer_step = killed_step
        try:
            train(job, rank, WORLD_SIZE)
        except KilledError:
            reports[name] = "was killed"
        loop.optimizer_step = optimizer_step
        torch.distributed.barrier()
        if reports.get(name) == "was killed":
            folders = sorted(path.name for path in (job.run_dir / CHECKPOINTS).iterdir())
            torch.distributed.barrier()
            reports[name] = [folders, train(job, rank, WORLD_SIZE)]
    return reports


def see_different_checkpoints(folder, rank):
    """Rank 0 finds a finished run, the other one nothing."""
    job = make_job(folder, "two-gcc-net" if rank == 0 else "elsewhere", "gcc-net")
    try:
        train(job, rank, WORLD_SIZE)
    except LaunchError as error:
        return str(error)
    return "did not raise"


def diverge(folder, rank):
    """One event with NaN, in the share of one rank."""
    try:
        train(make_job(folder, "broken", "gcc-net", events="broken.h5"), rank, WORLD_SIZE)
    except NonFiniteLossError as error:
        return str(error)
    return "did not raise"


def main():
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'rendezvous'}", rank=rank, world_size=WORLD_SIZE
    )
    compare_gradients(folder, rank)
    results = compare_runs(folder, rank)
    torch.distributed.barrier()
    results["resumed"] = resume(folder, rank)
    results["within"] = resume_within_an_epoch(folder, rank)
    results["elsewhere"] = see_different_checkpoints(folder, rank)
    results["diverged"] = diverge(folder, rank)
    torch.distributed.destroy_process_group()
    (folder / f"rank-{rank}.json").write_text(json.dumps(results))
    assert math.isfinite(results["gcc-net"][-1]["train_nll"])


if __name__ == "__main__":
    main()
    # Once in a while gloo's threads abort a process that ends in the usual way, though all is done
    # (github.com/pytorch/pytorch/pull/179291).
    os._exit(0)
