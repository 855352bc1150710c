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
from gerbil_tune.training import loop, session, within_epoch
from gerbil_tune.training.checkpoints import CHECKPOINTS, Progress, newest_place
from gerbil_tune.training.job import TrainingJob
from gerbil_tune.training.loop import train_loop
from gerbil_tune.training.optimizer import make_optimizer, optimizer_step
from gerbil_tune.training.session import InProcessSession
from gerbil_tune.training.state import TrainState, cpu_weights
from gerbil_tune.training.steps import ValidationSet, make_training_steps
from gerbil_tune.training.validation import evaluate

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

CASES = {
    **{name: (name, {}, 32) for name in MODELS},
    # Three parts of four events each worker has: of two, one and one.
    **{
        f"{name}-parts": (name, {"accumulate_steps": 3}, 32)
        for name in MODELS
        if name != "batch-norm"
    },
    "batch-norm-few": ("batch-norm", {}, 6),
    "gcc-net-few": ("gcc-net", {"accumulate_steps": 2}, 6),
    "batch-norm-frozen-parts": ("batch-norm", {"batch_norm": "frozen", "accumulate_steps": 3}, 32),
}
"""Model, training section and number of training events of what is compared with one worker."""

KINDS = ("polarity", "gain", "noise", "low_frequency", "mask", "dropout", "shift")
AUGMENTATION = {**{f"{kind}_prob": 0.3 for kind in KINDS}, "shift_ms": 0.5}


def make_job(folder, run, name, events="events.h5", num_training=32, stop_file=None, **training):
    events = open_events(folder / events)
    splits = Splits(
        events.subset(np.arange(num_training)), events.subset(np.arange(32, len(events))), None
    )
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
    return TrainingJob(config, SETUP, splits, folder / run, stop_file=stop_file)


def make_session(rank, world_size, report=lambda metrics: None, stop_file=None):
    return InProcessSession(report, CPU, rank=rank, world_size=world_size, stop_file=stop_file)


def train(job, rank, world_size, on_report=lambda metrics: None):
    """Train and return the reports without the timings."""
    reports = []

    def report(metrics):
        timing = ("epoch_s", "train_events_per_s", "predict_ms_per_event")
        reports.append({k: v for k, v in metrics.items() if k not in timing})
        on_report(metrics)

    train_loop(job, make_session(rank, world_size, report, job.stop_file))
    return reports


def first_gradients(job, rank, world_size):
    """Gradients of the first step, and the weights after three; of the second epoch if it is frozen there."""
    torch.manual_seed(3)
    model = Localizer(job.config, SETUP).train()
    network = DistributedDataParallel(model.network) if world_size > 1 else model.network
    state = TrainState(model, make_optimizer(job.config.optimizer, model), Progress(), {})
    session = make_session(rank, world_size)
    training = job.config.training
    state.progress.epoch = int(training.batch_norm == "frozen")
    loop.choose_statistics(state, job.config, session)
    steps = make_training_steps(job.config, SETUP, job.splits.train, model, session)
    gradients = {}
    for step, (features, locations_BKD) in zip(range(3), steps.epoch(0), strict=False):
        parts = training.accumulate_steps if world_size > 1 else 1
        optimizer_step(state, network, features, locations_BKD, None, parts)
        if step == 0:
            gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    return gradients, cpu_weights(model)


def compare_gradients(folder, rank):
    for name, (model, training, num_training) in CASES.items():
        job = make_job(folder, "unused", model, num_training=num_training, **training)
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


def stop(folder, rank):
    """Rank 0 alone sees the request, in the midst of an epoch; then both go on."""
    stop_file = folder / "stop-now"
    job = make_job(
        folder, "stopped", "gcc-net", stop_file=stop_file if rank == 0 else None, ema_decay=0.9
    )

    steps = iter(range(1, 13))

    def asking_step(*arguments):
        if next(steps) == 6 and rank == 0:
            stop_file.touch()
        return optimizer_step(*arguments)

    loop.optimizer_step = asking_step
    session._LOOK_INTERVAL_S = within_epoch._LONGEST_WITHOUT_LOOK_S = 0.0
    begun = train(job, rank, WORLD_SIZE)
    loop.optimizer_step = optimizer_step
    torch.distributed.barrier()
    place = newest_place(job.run_dir)
    torch.distributed.barrier()
    stop_file.unlink(missing_ok=True)
    torch.distributed.barrier()
    ended = train(make_job(folder, "stopped", "gcc-net", ema_decay=0.9), rank, WORLD_SIZE)
    undisturbed = train(make_job(folder, "average", "gcc-net", ema_decay=0.9), rank, WORLD_SIZE)
    return {"begun": begun, "place": place, "ended": ended, "undisturbed": undisturbed}


def change_workers(folder, rank):
    """The run of one goes on with two, and that of two with one, in the midst of an epoch and after it."""
    results = {}
    for first, second in ((1, 2), (2, 1)):
        for step in (7, 9):  # the third step of the second epoch; the first of the third
            job = make_job(folder, f"elastic-{first}-{step}", "gcc-net", checkpoint_interval_s=1e-9)
            reports = []
            for world_size, dies_at in ((first, step), (second, None)):
                if rank < world_size:
                    reports += train_until(job, rank, world_size, dies_at)
                torch.distributed.barrier()
            results[f"{first} then {second} from step {step}"] = reports
    return results


def train_until(job, rank, world_size, dies_at):
    """Train to the end, or die before a step."""
    reports = []
    steps = iter(range(1, 1000))

    def killed_step(*arguments):
        if next(steps) == dies_at:
            raise KilledError
        return optimizer_step(*arguments)

    loop.optimizer_step = killed_step
    try:
        train(job, rank, world_size, reports.append)
    except KilledError:
        pass
    finally:
        loop.optimizer_step = optimizer_step
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
    results["stopped"] = stop(folder, rank)
    results["elastic"] = change_workers(folder, rank)
    results["elsewhere"] = see_different_checkpoints(folder, rank)
    results["diverged"] = diverge(folder, rank)
    torch.distributed.destroy_process_group()
    (folder / f"rank-{rank}.json").write_text(json.dumps(results))
    assert math.isfinite(results["gcc-net"][-1]["train_loss"])


if __name__ == "__main__":
    main()
    # Once in a while gloo's threads abort a process that ends in the usual way, though all is done
    # (github.com/pytorch/pytorch/pull/179291).
    os._exit(0)
