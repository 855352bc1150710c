"""The final training of a trial: its configuration once more, with all workers, into a bundle."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import optuna
from optuna.trial import FrozenTrial

from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.data.splits.splits import Splits
from gerbil_tune.errors import LaunchError, NonFiniteLossError, StoppedError
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.training.export import export_bundle, has_validation_predictions
from gerbil_tune.training.job import TrainingJob
from gerbil_tune.training.memory import train_in_what_fits
from gerbil_tune.training.ray_thread import loss_of_ray
from gerbil_tune.training.stopping import STOP_FILE, stop_on_signals
from gerbil_tune.training.trainer import (
    RAY_TRAIN_FOLDER,
    NumWorkers,
    elastic_workers,
    fewest,
    train_with_workers,
)

REFITS = "refits"
"""Study attribute: what ``Refit.to_json`` returns of each final training that is over."""
_FEWEST_EVENTS_PER_CPU = 8

OnEpoch = Callable[[dict[str, float]], None]
Train = Callable[[TrainingJob, bool, OnEpoch], NumWorkers]
"""Trains a job to its end, on GPUs or not; returns the workers that it took.

It raises StoppedError, or MemoryError where a worker runs out of memory, which is tried again.
"""


class RefitSite(Protocol):
    """What a study's trials share and its refits need."""

    @property
    def setup(self) -> RecordingSetup:
        """The recording site."""

    @property
    def splits(self) -> Splits:
        """Training and validation events."""

    @property
    def metric(self) -> str:
        """Validation metric to minimize."""


@dataclass(frozen=True)
class Refit:
    """A final training that is over.

    Attributes:
        trial: Number of the trial.
        epochs: Of the training.
        run_dir: Its folder.
        bundle: What came of it; None where it failed.
        reason: Why it failed.
    """

    trial: int
    epochs: int
    run_dir: Path
    bundle: Path | None
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return what ``from_json`` reads."""
        return {
            "trial": self.trial,
            "epochs": self.epochs,
            "run_dir": str(self.run_dir),
            "bundle": None if self.bundle is None else str(self.bundle),
            "reason": self.reason,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Refit":
        """Rebuild it from ``to_json``."""
        return cls(
            values["trial"],
            values["epochs"],
            Path(values["run_dir"]),
            None if values["bundle"] is None else Path(values["bundle"]),
            values["reason"],
        )


def refit_workers(
    global_batch_size: int, cluster: Mapping[str, float], *, use_gpu: bool
) -> NumWorkers:
    """Choose the workers of a final training.

    On GPUs it is one for each, as far as the batch divides evenly, and where it can be a range, so that the
    loss of a machine does not end the training. On CPUs it is a number, one for each with at least 8 events
    of a batch: with fewer they wait for each other more than they compute.

    Args:
        global_batch_size: Events of a step over all workers.
        cluster: All resources of the cluster, as Ray counts them.
        use_gpu: A GPU for each worker.
    """
    if use_gpu:
        return elastic_workers(global_batch_size, int(cluster.get("GPU", 1)))
    most = min(int(cluster.get("CPU", 1)), global_batch_size // _FEWEST_EVENTS_PER_CPU)
    return max(n for n in range(1, max(1, most) + 1) if global_batch_size % n == 0)


def train_on_cluster(job: TrainingJob, use_gpu: bool, on_epoch: OnEpoch) -> NumWorkers:
    """Train with all that the cluster has, which Ray must be connected to.

    Where a machine is lost, it goes on with fewer workers.
    """
    import ray

    batch = job.config.training.global_batch_size
    workers = refit_workers(batch, ray.cluster_resources(), use_gpu=use_gpu)
    while True:
        try:
            train_with_workers(job, num_workers=workers, use_gpu=use_gpu, on_epoch=on_epoch)
            return workers
        except LaunchError:
            left = refit_workers(batch, ray.cluster_resources(), use_gpu=use_gpu)
            if loss_of_ray() is not None or fewest(left) >= fewest(workers):
                raise
            workers = left


@dataclass(frozen=True)
class Refitter:
    """Trains trials of one study whole, each once.

    Attributes:
        study: Keeps what is done in its attribute ``REFITS``.
        config_of: The experiment of a trial.
        site: What its trials share.
        study_dir: The runs are in its folder ``refit``.
        root: Of the bundles, usually ``trained_models``.
        epochs: Of each training; None: as searched.
        use_gpu: A GPU for each worker.
        train: Does a training.
        say: Told in a sentence what happens.
        on_epoch: Told the metrics and the number of epochs of a training after each.
    """

    study: optuna.Study
    config_of: Callable[[FrozenTrial], ExperimentConfig]
    site: RefitSite
    study_dir: Path
    root: Path
    epochs: int | None
    use_gpu: bool
    train: Train
    say: Callable[[str], None]
    on_epoch: Callable[[dict[str, float], int], None]

    def refit(self, trial: FrozenTrial, *, keep_predictions: bool) -> Refit:
        """Train a trial, go on with an interrupted training, or return what an earlier run did.

        Args:
            trial: Of the study.
            keep_predictions: Whether the validation predictions are needed, which the run's folder holds.

        Raises:
            StoppedError: If a signal asked to stop, once a checkpoint is written; the same call goes on.
            LaunchError: If memory ran out twice.
        """
        job = self._job(trial)
        refit = self._finished(trial.number, job, keep_predictions=keep_predictions)
        if refit is None:
            refit = self._train(trial, job)
            done = [*self.study.user_attrs.get(REFITS, ()), refit.to_json()]
            self.study.set_user_attr(REFITS, done)
            shutil.rmtree(job.run_dir.parent / RAY_TRAIN_FOLDER, ignore_errors=True)
            if (job.run_dir / STOP_FILE).exists():
                raise StoppedError(
                    f"stopped after trial {trial.number} was trained whole; the same command goes on"
                )
        if refit.reason:
            self.say(f"trial {trial.number} cannot be the champion: {refit.reason}")
        return refit

    def _job(self, trial: FrozenTrial) -> TrainingJob:
        config = self.config_of(trial)
        epochs = self.epochs or config.training.epochs
        training = config.training.model_copy(update={"epochs": epochs})
        # The epochs are in the name: a run with a longer schedule is another run.
        run_dir = self.study_dir / "refit" / f"trial-{trial.number:05d}-{epochs}-epochs"
        return TrainingJob(
            config.model_copy(update={"training": training}),
            self.site.setup,
            self.site.splits,
            run_dir,
            self.site.metric,
            run_dir / STOP_FILE,
        )

    def _finished(self, number: int, job: TrainingJob, *, keep_predictions: bool) -> Refit | None:
        epochs = job.config.training.epochs
        for values in self.study.user_attrs.get(REFITS, ()):
            done = Refit.from_json(values)
            if (done.trial, done.epochs) != (number, epochs):
                continue
            has_bundle = done.bundle is not None and done.bundle.is_dir()
            enough = not keep_predictions or has_validation_predictions(done.run_dir)
            if done.reason or (has_bundle and enough):
                return done
        return None

    def _train(self, trial: FrozenTrial, job: TrainingJob) -> Refit:
        epochs = job.config.training.epochs
        found = trial.values[0] if trial.values else float("nan")
        self.say(
            f"trial {trial.number} ({self.site.metric} {found:.4g}): training it whole for {epochs} epochs"
        )
        try:
            with stop_on_signals(job.run_dir / STOP_FILE, self.say):
                workers = train_in_what_fits(
                    lambda job: self.train(job, self.use_gpu, lambda m: self.on_epoch(m, epochs)),
                    job,
                    self.say,
                )
        except NonFiniteLossError as error:
            return Refit(trial.number, epochs, job.run_dir, None, str(error))
        bundle = export_bundle(
            job,
            self.root,
            data_fingerprint=self.study.user_attrs["data_fingerprint"],
            provenance={
                "study": self.study.study_name,
                "trial": trial.number,
                "trials": sum(t.state.is_finished() for t in self.study.get_trials(deepcopy=False)),
                "workers": workers,
                "objective": self.site.metric,
            },
        )
        return Refit(trial.number, epochs, job.run_dir, bundle)
