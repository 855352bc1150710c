"""One trial, as Ray Tune runs it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.data.splits.splits import Splits
from gerbil_tune.errors import GerbilTuneError
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.training.job import TrainingJob
from gerbil_tune.training.loop import train_loop
from gerbil_tune.training.session import InProcessSession, local_device

CONTROLLER_CPUS = 0.01
"""Of an N-worker trial, whose own process only waits; its workers leave that much free together."""


@dataclass(frozen=True)
class TrialSite:
    """What all trials of a study share.

    Attributes:
        setup: The recording site.
        splits: Training and validation events.
        trials_dir: A trial's folder is ``trials_dir/<number>``.
        metric: Validation metric to minimize.
        workers_per_trial: DDP ranks of each trial.
        use_gpu: A GPU for each worker.
    """

    setup: RecordingSetup
    splits: Splits
    trials_dir: Path
    metric: str
    workers_per_trial: int
    use_gpu: bool

    def job(self, number: int, config: ExperimentConfig) -> TrainingJob:
        """Return the training job of a trial."""
        run_dir = self.trials_dir / f"{number:05d}"
        return TrainingJob(config, self.setup, self.splits, run_dir, self.metric)


def run_trial(tune_config: dict[str, Any], site: TrialSite) -> None:
    """Train one trial in this process.

    A trial that diverges or runs out of memory reports ``failure``: the study goes on without it.
    """
    import torch
    from ray import tune

    job = _job(tune_config, site)
    session = InProcessSession(tune.report, local_device())
    try:
        train_loop(job, session)
    except GerbilTuneError as error:
        tune.report({"failure": f"{type(error).__name__}: {error}"})
    except (torch.OutOfMemoryError, MemoryError) as error:
        tune.report({"failure": f"out of memory: {' '.join(str(error).split())[:300]}"})


def run_trial_with_workers(tune_config: dict[str, Any], site: TrialSite) -> None:
    """Train one trial with a Ray Train worker group."""
    from ray import tune
    from ray.train.v2.api.exceptions import TrainingFailedError
    from ray.tune.integration.ray_train import TuneReportCallback

    from gerbil_tune.training.trainer import make_torch_trainer, root_error

    trainer = make_torch_trainer(
        _job(tune_config, site),
        num_workers=site.workers_per_trial,
        use_gpu=site.use_gpu,
        cpus_per_worker=1 - CONTROLLER_CPUS,
        callbacks=[TuneReportCallback()],
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        cause = root_error(error)
        tune.report({"failure": f"{type(cause).__name__}: {cause}"})


def _job(tune_config: dict[str, Any], site: TrialSite) -> TrainingJob:
    config = ExperimentConfig.model_validate_json(tune_config["config"])
    return site.job(tune_config["number"], config)
