"""The training loop: plain torch, one epoch after the other, resumable after any step.

It runs the same in a Tune trial, in a Ray Train worker group and in a test without Ray; the session says
which worker this is. Objectives are in millimetres whatever the scaling.

Letters: B batch, K keypoints, D axes, N events.
"""

import json
import math
import time
from typing import Any

import numpy as np
import torch
import torch.distributed
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from gerbil_tune.config.schema import ExperimentConfig, LrScheduleConfig, OptimizerConfig, SgdConfig
from gerbil_tune.errors import LaunchError, NonFiniteLossError
from gerbil_tune.evaluation.score import score
from gerbil_tune.models.bundle import save_weights, weights_name
from gerbil_tune.models.features import Features
from gerbil_tune.models.localizer import Localizer, autocast_dtype
from gerbil_tune.training.divergence import non_finite_error
from gerbil_tune.training.job import TrainingJob
from gerbil_tune.training.session import TrainingSession
from gerbil_tune.training.state import PartialEpoch, Progress, TrainState, cpu_weights
from gerbil_tune.training.steps import TrainingSteps, ValidationSet, make_training_steps, mix_seed
from gerbil_tune.training.within_epoch import CheckpointClock, EpochTally

HISTORY = "metrics.jsonl"
BEST_PREDICTIONS = "best_predictions.safetensors"
"""What the best weights predicted of the validation events: mean, covariance and truth."""

Predictions = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Mean (N, K, D), covariance (N, K, D, D) and truth (N, K, D), float32, in mm and mm²."""


def train_loop(job: TrainingJob, session: TrainingSession) -> Progress:
    """Train from the newest checkpoint, or from the start, to the last epoch.

    Leaves init_, best_ and final_weights.safetensors and ``BEST_PREDICTIONS`` in ``job.run_dir``. Reports
    after every epoch: epoch, training_done, best_value, train_nll, val_* and timing. A run that goes on first
    reports its last finished epoch again, since that report may have been lost with the process that sent it.
    It goes on at the step after its newest checkpoint, and each step does what it would have done without
    the interruption.

    Raises:
        NonFiniteLossError: If the loss or a gradient is NaN or infinite.
        LaunchError: If the workers do not see the same checkpoint.
    """
    config = job.config
    torch.manual_seed(config.training.seed)
    model = Localizer(config, job.setup).to(session.device)
    model.autocast_dtype = autocast_dtype(config, session.device)
    state = TrainState(
        model, make_optimizer(config.optimizer, model), Progress(), cpu_weights(model)
    )
    if not state.load_newest(job.run_dir) and session.rank == 0:
        job.run_dir.mkdir(parents=True, exist_ok=True)
        save_weights(job.run_dir / weights_name("init"), cpu_weights(model))
    check_same_start(state.progress, job, session)
    # Features have no parameters, so the network alone is what workers share.
    network: torch.nn.Module = model.network
    if session.world_size > 1:
        gpu = [session.device] if session.device.type == "cuda" else None
        network = DistributedDataParallel(model.network, device_ids=gpu)
    steps = make_training_steps(config, job.setup, job.splits.train, model, session)
    validation = ValidationSet(model, job, session)
    clock = CheckpointClock(config.training.checkpoint_interval_s, session)
    report_again(state.progress, job, session)
    while state.progress.epoch < config.training.epochs:
        metrics = train_epoch(state, network, steps, job, session, clock)
        started = time.perf_counter()
        scores, predictions = evaluate(model, validation, job, session)
        metrics |= scores
        metrics["epoch_s"] += time.perf_counter() - started
        finish_epoch(state, metrics, predictions, job, session)
        clock.restart()
    if session.rank == 0:
        save_weights(job.run_dir / weights_name("final"), cpu_weights(model))
        save_weights(job.run_dir / BEST_PREDICTIONS, state.best_predictions)
        save_weights(job.run_dir / weights_name("best"), state.best_weights)
    return state.progress


def check_same_start(progress: Progress, job: TrainingJob, session: TrainingSession) -> None:
    """Refuse to begin where some workers see a newer checkpoint than others: they would wait for ever.

    Raises:
        LaunchError: On every rank.
    """
    if session.world_size == 1:
        return
    found: list[Any] = [None] * session.world_size
    torch.distributed.all_gather_object(found, (progress.epoch, progress.partial.step))
    if len(set(found)) > 1:
        raise LaunchError(
            f"the workers see different checkpoints in {job.run_dir} (epochs and steps "
            f"{', '.join(map(str, sorted(set(found))))}); put it on storage that all of them share"
        )


def train_epoch(
    state: TrainState,
    network: torch.nn.Module,
    steps: TrainingSteps,
    job: TrainingJob,
    session: TrainingSession,
    clock: CheckpointClock,
) -> dict[str, float]:
    """Run the steps of an epoch that are not done, with a checkpoint when one is due.

    Returns:
        train_nll, learning_rate, train_events_per_s, and epoch_s so far.
    """
    config, epoch = job.config, state.progress.epoch
    first_step = state.progress.partial.step
    tally = EpochTally(state.progress.partial, session)
    state.model.train()
    learning_rate = set_learning_rate(state, config, steps.num_steps, max(0, first_step - 1))
    for step, (features, locations_BKD) in enumerate(steps.epoch(epoch, first_step), first_step):
        # Seeded anew each step: a resumed run draws what an undisturbed one would have drawn.
        torch.manual_seed(mix_seed(config.training.seed, epoch, session.rank, step))
        learning_rate = set_learning_rate(state, config, steps.num_steps, step)
        loss = optimizer_step(state, network, features, locations_BKD, config.training.clip_norm)
        tally.add(loss, len(locations_BKD))
        if clock.is_due():
            state.progress.partial = joined(tally, state, job)
            if session.rank == 0:
                state.save(job.run_dir)
            clock.restart()
    done = joined(tally, state, job)
    return {
        "train_nll": done.loss_sum / (steps.num_steps * session.world_size),
        "learning_rate": learning_rate,
        "train_events_per_s": done.num_events / done.seconds,
        "epoch_s": done.seconds,
    }


def joined(tally: EpochTally, state: TrainState, job: TrainingJob) -> PartialEpoch:
    """What all ranks have done of the epoch; the error of a loss that diverged says why."""
    try:
        return tally.joined()
    except NonFiniteLossError as error:
        what = f"{error} in epoch {state.progress.epoch + 1}"
        raise non_finite_error(what, job.splits.train, job.config) from None


def set_learning_rate(
    state: TrainState, config: ExperimentConfig, steps_per_epoch: int, step: int
) -> float:
    """Set and return the learning rate of a step of the epoch under way."""
    learning_rate = config.optimizer.learning_rate * lr_factor(
        config.lr_schedule,
        state.progress.epoch * steps_per_epoch + step,
        config.training.epochs * steps_per_epoch,
    )
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate
    return learning_rate


def optimizer_step(
    state: TrainState,
    network: torch.nn.Module,
    features: Features,
    locations_mm_BKD: Tensor,
    clip_norm: float | None,
) -> Tensor:
    """One step; return the detached loss without waiting for the device."""
    model = state.model
    assert isinstance(model, Localizer)
    prediction = model.distribution(model.read(features, network))
    loss = -prediction.log_density_BK(locations_mm_BKD).mean()
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    if clip_norm is not None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    state.optimizer.step()
    return loss.detach()


def evaluate(
    model: Localizer, validation: ValidationSet, job: TrainingJob, session: TrainingSession
) -> tuple[dict[str, float], Predictions]:
    """Metrics over all validation events, each counted once, the same on every rank; and the predictions."""
    if session.world_size > 1:
        share_statistics(model)
    predictions = predict_validation(model, validation, session)
    if not all(np.isfinite(values).all() for values in predictions):
        what = "the predictions or locations of validation events became NaN or infinite"
        raise non_finite_error(what, job.splits.validation, job.config)
    return {f"val_{name}": value for name, value in score(*predictions).items()}, predictions


def share_statistics(model: torch.nn.Module) -> None:
    """Give all ranks the running statistics of rank 0, which are the ones that are saved.

    DDP does so at the beginning of each training step; after an epoch's last step they differ.
    """
    for buffer in model.buffers():
        if buffer.is_floating_point():
            torch.distributed.broadcast(buffer, src=0)


@torch.no_grad()
def predict_validation(
    model: Localizer, validation: ValidationSet, session: TrainingSession
) -> Predictions:
    """Predict every validation event once, over all ranks; the events come in no particular order."""
    model.eval()
    rows: list[Predictions] = []
    for features, locations_BKD in validation.batches():
        prediction = model.distribution(model.read(features))
        rows.append(
            (
                prediction.mean_mm_BKD.cpu().numpy(),
                prediction.covariance_mm2_BKDD.cpu().numpy(),
                locations_BKD.cpu().numpy(),
            )
        )
    if session.world_size > 1:
        gathered: list[Any] = [None] * session.world_size
        torch.distributed.all_gather_object(gathered, rows)
        rows = [row for part in gathered for row in part]
    mean, covariance, truth = (np.concatenate(column) for column in zip(*rows, strict=True))
    return mean, covariance, truth


def finish_epoch(
    state: TrainState,
    metrics: dict[str, float],
    predictions: Predictions,
    job: TrainingJob,
    session: TrainingSession,
) -> None:
    """Note the best weights, write the history and the checkpoint, then report.

    In this order a kill in between repeats an epoch in the history, and never leaves one out.
    """
    progress = state.progress
    progress.epoch += 1
    progress.partial = PartialEpoch()
    if metrics[job.metric] < progress.best_value:
        progress.best_value = metrics[job.metric]
        progress.best_metrics = dict(metrics, epoch=progress.epoch)
        state.best_weights = cpu_weights(state.model)
        names = ("mean", "covariance", "truth")
        state.best_predictions = dict(zip(names, map(torch.from_numpy, predictions), strict=True))
    metrics["epoch"] = progress.epoch
    metrics["best_value"] = progress.best_value
    metrics["training_done"] = float(progress.epoch >= job.config.training.epochs)
    progress.last_metrics = dict(metrics)
    if session.rank == 0:
        with (job.run_dir / HISTORY).open("a") as history:
            history.write(json.dumps(metrics) + "\n")
        state.save(job.run_dir)
    session.report(metrics)


def report_again(progress: Progress, job: TrainingJob, session: TrainingSession) -> None:
    """Report the last epoch of a run that goes on; nothing for one that begins."""
    if progress.last_metrics:
        done = float(progress.epoch >= job.config.training.epochs)
        session.report({**progress.last_metrics, "training_done": done})


def make_optimizer(config: OptimizerConfig, model: torch.nn.Module) -> torch.optim.Optimizer:
    """Build the optimizer; norms and biases are not decayed."""
    weights = {
        id(module.weight)
        for module in model.modules()
        if isinstance(module, torch.nn.Linear | torch.nn.Conv1d)
    }
    decayed = [p for p in model.parameters() if id(p) in weights]
    others = [p for p in model.parameters() if id(p) not in weights]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if isinstance(config, SgdConfig):
        return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum)
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas)


def lr_factor(config: LrScheduleConfig, step: int, total_steps: int) -> float:
    """Factor on the learning rate: linear warm-up, then a cosine (Loshchilov and Hutter 2017)."""
    warmup_steps = config.warmup_fraction * total_steps
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    part = (step - warmup_steps) / max(1.0, total_steps - warmup_steps)
    cosine = 0.5 * (1.0 + math.cos(math.pi * part))
    return config.final_fraction + (1.0 - config.final_fraction) * cosine
