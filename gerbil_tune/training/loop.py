"""The training loop: plain torch, one epoch after the other, resumable after any step.

It runs the same in a Tune trial, in a Ray Train worker group and in a test without Ray; the session says
which worker this is. Objectives are in millimetres whatever the scaling.

Letters: B batch, K keypoints, D axes.
"""

import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch.nn.parallel import DistributedDataParallel

from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.errors import LaunchError, NonFiniteLossError
from gerbil_tune.models.batch_norm import use_statistics_of
from gerbil_tune.models.bundle import save_weights, weights_name
from gerbil_tune.models.initial_weights import load_initial_weights
from gerbil_tune.models.localizer import Localizer, autocast_dtype
from gerbil_tune.training.acceleration import accelerated, compile_network
from gerbil_tune.training.averaging import WeightAverage
from gerbil_tune.training.checkpoints import PartialEpoch, Progress
from gerbil_tune.training.divergence import check_explosion, non_finite_error
from gerbil_tune.training.history import append_epoch, drop_history_after, read_history
from gerbil_tune.training.job import TrainingJob
from gerbil_tune.training.notes import add_notes
from gerbil_tune.training.optimizer import (
    choose_trained,
    lr_factor,
    make_optimizer,
    optimizer_step,
    set_training_mode,
)
from gerbil_tune.training.session import TrainingSession
from gerbil_tune.training.state import TrainState, cpu_weights
from gerbil_tune.training.steps import TrainingSteps, ValidationSet, make_training_steps, mix_seed
from gerbil_tune.training.stopping import StopTraining, any_rank
from gerbil_tune.training.validation import Predictions, evaluate, predict_ms_per_event
from gerbil_tune.training.within_epoch import CheckpointClock, Due, EpochTally

BEST_PREDICTIONS = "best_predictions.safetensors"
"""What the best weights said of the validation events: the network's raw outputs, and the truth."""

_WRITTEN_LAST = weights_name("best")
_REPORTS_AT_RISK = 50
"""Epochs that a group may do before its controller hears of one."""


def train_loop(job: TrainingJob, session: TrainingSession) -> Progress:
    """Train from the newest checkpoint, or from the start, to the last epoch or until asked to stop.

    Leaves init_, best_ and final_weights.safetensors and ``BEST_PREDICTIONS`` in ``job.run_dir`` at the end.
    Reports after every epoch: epoch, training_done, best_value, train_loss, val_*, predict_ms_per_event and
    timing; with the last one, best_val_* of the best. A run that goes on first reports its last finished
    epoch again, since that report may have been lost with the process that sent it. It goes on at the step
    after its newest checkpoint, and each step does what it would have done without the interruption. The
    number of workers may have changed meanwhile: neither the order of the events nor the number of steps
    depends on it.

    Returns:
        How far it has come; fewer epochs than configured if it was asked to stop. All that was done is in a
        checkpoint then.

    Raises:
        NonFiniteLossError: If the loss or a gradient is NaN or infinite, or the loss has exploded.
        LaunchError: If the workers do not see the same checkpoint.
        ConfigError: If the weights that training is to begin with do not fit the model.
    """
    with accelerated(job.config.training):
        return _train(job, session)


def _train(job: TrainingJob, session: TrainingSession) -> Progress:
    state = start(job, session)
    check_same_start(state.progress, job, session)
    if job.config.training.compile:
        compile_networks(state, job, session)
    # Features have no parameters, so the network alone is what workers share.
    network: torch.nn.Module = state.model.network
    if session.world_size > 1:
        gpu = [session.device] if session.device.type == "cuda" else None
        network = DistributedDataParallel(network, device_ids=gpu)
    steps = make_training_steps(
        job.config,
        job.setup,
        job.splits.train,
        state.model,
        session,
        feature_cache=job.feature_cache,
    )
    report_again(state.progress, job, session)
    try:
        run_epochs(state, network, steps, job, session)
    except StopTraining:
        return state.progress
    if session.rank == 0:
        save_weights(job.run_dir / weights_name("final"), cpu_weights(state.result))
        save_weights(job.run_dir / BEST_PREDICTIONS, state.best_predictions)
        save_weights(job.run_dir / _WRITTEN_LAST, state.best_weights)
    return state.progress


def has_results(run_dir: Path) -> bool:
    """Whether ``train_loop`` has written all that it leaves in a run's folder at the end."""
    return (run_dir / _WRITTEN_LAST).is_file()


def start(job: TrainingJob, session: TrainingSession) -> TrainState:
    """The state before the next step: that of the newest checkpoint, else that before the first one.

    A trained model whose weights training begins with is read for the first step alone.
    """
    config = job.config
    torch.manual_seed(config.training.seed)
    model = Localizer(config, job.setup).to(session.device)
    model.autocast_dtype = autocast_dtype(config, session.device)
    choose_trained(model, config.fine_tune)
    state = begin(model, job)
    if not state.load_newest(job.run_dir):
        notes = load_initial_weights(model, config, job.setup)
        state.best_weights = cpu_weights(model)
        if session.rank == 0:
            job.run_dir.mkdir(parents=True, exist_ok=True)
            add_notes(job.run_dir, notes)
            save_weights(job.run_dir / weights_name("init"), state.best_weights)
    if session.rank == 0:
        drop_history_after(job.run_dir, state.progress.epoch)
    return state


def begin(model: Localizer, job: TrainingJob) -> TrainState:
    """The state before the first step."""
    decay = job.config.training.ema_decay
    return TrainState(
        model,
        make_optimizer(job.config.optimizer, model),
        Progress(),
        best_weights=cpu_weights(model),
        average=None if decay is None else WeightAverage(model, decay),
    )


def run_epochs(
    state: TrainState,
    network: torch.nn.Module,
    steps: TrainingSteps,
    job: TrainingJob,
    session: TrainingSession,
) -> None:
    """Train and validate epoch after epoch.

    Raises:
        StopTraining: If the run is asked to stop; a checkpoint holds all that was done.
    """
    validation = ValidationSet(state.model, job, session)
    clock = CheckpointClock(job.config.training.checkpoint_interval_s, session)
    latency_ms: float | None = None
    while state.progress.epoch < job.config.training.epochs:
        metrics = train_epoch(state, network, steps, job, session, clock)
        started = time.perf_counter()
        try:
            scores, predictions = evaluate(state.result, validation, job, session)
        except StopTraining:
            save(state, job, session)
            raise
        metrics |= scores
        metrics["epoch_s"] += time.perf_counter() - started
        if latency_ms is None:
            latency_ms = predict_ms_per_event(state.result, validation, session)
        metrics["predict_ms_per_event"] = latency_ms
        finish_epoch(state, metrics, predictions, job, session)
        clock.restart()


def save(state: TrainState, job: TrainingJob, session: TrainingSession) -> None:
    """Write a checkpoint, on the rank that does."""
    if session.rank == 0:
        state.save(job.run_dir)


def compile_networks(state: TrainState, job: TrainingJob, session: TrainingSession) -> None:
    """Compile what is trained and what is validated; a note says where that failed."""

    def say(note: str) -> None:
        if session.rank == 0:
            add_notes(job.run_dir, [note])

    for network in dict.fromkeys((state.model.network, state.result.network)):
        compile_network(network, say)


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
        train_loss, learning_rate, train_events_per_s, and epoch_s so far.

    Raises:
        StopTraining: If the run is asked to stop.
    """
    config, progress = job.config, state.progress
    training, first_step = config.training, progress.partial.step
    tally = EpochTally(progress.partial, session)
    steps.prepare(session.stop_requested)
    if any_rank(session.stop_requested(), session):
        raise StopTraining
    set_training_mode(state.model, config.fine_tune)
    choose_statistics(state, config, session)
    learning_rate = set_learning_rate(state, config, steps.num_steps, max(0, first_step - 1))
    step_inputs = steps.epoch(progress.epoch, first_step)
    for step, (features, locations_BKD) in enumerate(step_inputs, first_step):
        # Seeded anew each step: a resumed run draws what an undisturbed one would have drawn.
        torch.manual_seed(mix_seed(training.seed, progress.epoch, session.rank, step))
        learning_rate = set_learning_rate(state, config, steps.num_steps, step)
        loss = optimizer_step(
            state, network, features, locations_BKD, training.clip_norm, training.accumulate_steps
        )
        if state.average is not None:
            state.average.update(state.model)
        tally.add(loss, len(locations_BKD))
        due = clock.due()
        if due is not Due.NOTHING:
            progress.partial = joined(tally, state, job, session)
            save(state, job, session)
            clock.restart()
        if due is Due.STOP:
            raise StopTraining
    progress.partial = done = joined(tally, state, job, session)
    return {
        "train_loss": done.loss_sum / done.num_events,
        "learning_rate": learning_rate,
        "train_events_per_s": done.num_events / done.seconds,
        "epoch_s": done.seconds,
    }


def choose_statistics(
    state: TrainState, config: ExperimentConfig, session: TrainingSession
) -> None:
    """Choose whose statistics batch norm takes in the epoch under way."""
    kind = config.training.batch_norm
    if kind == "frozen" and state.progress.epoch > 0:
        use_statistics_of(state.model, "running")
    elif kind == "local" or session.world_size == 1:
        use_statistics_of(state.model, "worker")
    else:
        use_statistics_of(state.model, "workers")


def joined(
    tally: EpochTally, state: TrainState, job: TrainingJob, session: TrainingSession
) -> PartialEpoch:
    """What all ranks have done of the epoch; the error of a loss that diverged says why."""
    try:
        return tally.joined()
    except NonFiniteLossError as error:
        what = f"{error} in epoch {state.progress.epoch + 1}"
        raise non_finite_error(what, job.splits.train, job.config, session) from None


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


def finish_epoch(
    state: TrainState,
    metrics: dict[str, float],
    predictions: Predictions,
    job: TrainingJob,
    session: TrainingSession,
) -> None:
    """Note the best weights, write the history and the checkpoint, then report.

    In this order a kill in between leaves an epoch too many in the history, which is dropped when the run
    goes on, and never one too few.
    """
    progress = state.progress
    check_explosion(metrics["train_loss"], progress.partial.step, progress, job)
    progress.epoch += 1
    progress.partial = PartialEpoch()
    if metrics[job.metric] < progress.best_value:
        progress.best_value = metrics[job.metric]
        progress.best_metrics = dict(metrics, epoch=progress.epoch)
        state.best_weights = cpu_weights(state.result)
        state.best_predictions = dict(zip(("raw", "truth"), predictions, strict=True))
    metrics["epoch"] = progress.epoch
    metrics["best_value"] = progress.best_value
    progress.last_metrics = dict(metrics)
    report = with_end(progress, job)
    if session.rank == 0:
        append_epoch(job.run_dir, report)
    save(state, job, session)
    session.report(report)


def report_again(progress: Progress, job: TrainingJob, session: TrainingSession) -> None:
    """Report the last epochs of a run that goes on; nothing for one that begins.

    A process takes its last report with it when it dies; a group takes all that its controller, which asks
    about once a second, has not fetched.
    """
    if not progress.last_metrics:
        return
    told: list[Any] = []
    if session.world_size > 1:
        found = [earlier_epochs(job, progress.epoch) if session.rank == 0 else None]
        torch.distributed.broadcast_object_list(found)
        told = found[0] or []
    for metrics in [*told, with_end(progress, job)]:
        session.report(metrics)


def earlier_epochs(job: TrainingJob, epoch: int) -> list[dict[str, float]]:
    """The newest lines of the history before an epoch, each epoch once, the oldest first."""
    rows = {row["epoch"]: row for row in read_history(job.run_dir) if row["epoch"] < epoch}
    return [rows[key] for key in sorted(rows)][-_REPORTS_AT_RISK:]


def with_end(progress: Progress, job: TrainingJob) -> dict[str, float]:
    """The metrics of the newest epoch, whether it is the last one, and then those of the best one."""
    is_done = progress.epoch >= job.config.training.epochs
    best = progress.best_metrics if is_done else {}
    best_scores = {f"best_{k}": value for k, value in best.items() if k.startswith("val_")}
    return {**progress.last_metrics, "training_done": float(is_done), **best_scores}
