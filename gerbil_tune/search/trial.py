"""One trial, as Ray Tune runs it."""

import errno
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.data.splits.splits import Splits
from gerbil_tune.errors import GerbilTuneError, LaunchError, NonFiniteLossError
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.search.tasks import EndingKind, TrialTask
from gerbil_tune.training.checkpoints import copy_newest, remove_checkpoints
from gerbil_tune.training.job import TrainingJob
from gerbil_tune.training.loop import train_loop
from gerbil_tune.training.memory import free_memory, out_of_memory
from gerbil_tune.training.session import InProcessSession, local_device

CONTROLLER_CPUS = 0.01
"""Of an N-worker trial, whose own process only waits; its workers leave that much free together."""

TRIALS_FOLDER = "trials"
"""In the study's folder."""
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class TrialSite:
    """What all trials of a study share.

    Attributes:
        setup: The recording site.
        splits: Training and validation events.
        trials_dir: A trial's folder is ``trials_dir/<number>``.
        metric: Validation metric to minimize.
        stop_file: Is there when all are to stop.
        workers_per_trial: DDP ranks of each trial.
        cpus_per_worker: CPUs of each.
        use_gpu: Whether workers have GPUs.
        feature_cache: Folder of features that trials share, where they are not searched; None: each trial
            computes its own.
    """

    setup: RecordingSetup
    splits: Splits
    trials_dir: Path
    metric: str
    stop_file: Path
    workers_per_trial: int = 1
    cpus_per_worker: float = 1.0
    use_gpu: bool = False
    feature_cache: Path | None = None

    def run_dir(self, number: int) -> Path:
        """Folder of a trial."""
        return trial_dir(self.trials_dir, number)

    def job(self, number: int, config: ExperimentConfig) -> TrainingJob:
        """Return the training job of a trial."""
        return TrainingJob(
            config,
            self.setup,
            self.splits,
            self.run_dir(number),
            self.metric,
            stop_file=self.stop_file,
            feature_cache=self.feature_cache,
        )


class CheckpointRemover:
    """A listener of the book that deletes the checkpoints of trials that are over; their history stays.

    Args:
        trials_dir: As the site's.
    """

    def __init__(self, trials_dir: Path) -> None:
        self.trials_dir = trials_dir

    def on_start(self, task: TrialTask, trial: FrozenTrial) -> None:
        """Nothing."""

    def on_epoch(self, number: int, metrics: dict[str, float]) -> None:
        """Nothing."""

    def on_pause(self, trial: FrozenTrial, reason: str) -> None:
        """Nothing: it goes on from them."""

    def on_end(self, trial: FrozenTrial, reason: str) -> None:
        """Delete them."""
        remove_checkpoints(trial_dir(self.trials_dir, trial.number))


def fixes_features(parameters: Iterable[str]) -> bool:
    """Whether trials differ in nothing that features are computed from, but perhaps in which they use.

    Args:
        parameters: Paths of all parameters that are searched.
    """
    return not any(path.startswith(("features/", "data/")) for path in parameters)


def trial_dir(trials_dir: Path, number: int) -> Path:
    """Folder of a trial."""
    return trials_dir / f"{number:05d}"


def run_trial(tune_config: dict[str, Any], site: TrialSite) -> None:
    """Train one trial in this process."""
    from ray import tune

    def train() -> None:
        session = InProcessSession(tune.report, local_device(), stop_file=site.stop_file)
        train_loop(_job(tune_config, site), session)

    _report_ending(train)


def run_trial_with_workers(tune_config: dict[str, Any], site: TrialSite) -> None:
    """Train one trial with a Ray Train worker group."""
    from ray.tune.integration.ray_train import TuneReportCallback

    from gerbil_tune.training.trainer import fit, make_torch_trainer

    def train() -> None:
        job = _job(tune_config, site)
        trainer = make_torch_trainer(
            job,
            num_workers=site.workers_per_trial,
            use_gpu=site.use_gpu,
            cpus_per_worker=site.cpus_per_worker - CONTROLLER_CPUS,
            callbacks=[TuneReportCallback()],
        )
        fit(trainer, job)

    _report_ending(train)


def _report_ending(train: Callable[[], None]) -> None:
    """Train, and tell the book if something went wrong that is the trial's own: the study goes on."""
    from ray import tune

    try:
        train()
    except NonFiniteLossError as error:
        ending: tuple[EndingKind, str] = "diverged", str(error)
    except Exception as error:
        ending = _classify(error)
        free_memory()
    else:
        return
    tune.report({"ending": ending[0], "reason": ending[1]})


def _classify(error: Exception) -> tuple[EndingKind, str]:
    said = " ".join(str(error).split())[:400]
    if out_of_memory(error):
        return "out of memory", f"out of memory: {said}"
    if isinstance(error, OSError) and error.errno in _DISK_FULL:
        return "disk full", f"{error.strerror}: {error.filename or 'a checkpoint'}"
    if isinstance(error, LaunchError):
        return "crashed", said
    if isinstance(error, GerbilTuneError):
        return "error", f"{type(error).__name__}: {said}"
    raise error


def _job(tune_config: dict[str, Any], site: TrialSite) -> TrainingJob:
    config = ExperimentConfig.model_validate_json(tune_config["config"])
    number, donor = tune_config["number"], tune_config["copy_of"]
    job = site.job(number, config)
    if donor is not None:
        copy_newest(site.run_dir(donor), job.run_dir)
    return job
