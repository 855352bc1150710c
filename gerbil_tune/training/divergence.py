"""Training that has failed: a value that is not a number, and why, or a loss that has exploded.

Before training the audio of some events is looked at, for reading all of it takes long. Where training fails,
all of it is worth reading.

Legend: N events, K keypoints, D axes.
"""

import contextlib
from collections.abc import Callable

import numpy as np
import torch
import torch.distributed

from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.data.checks.audio_scan import scan_audio
from gerbil_tune.data.events import EventSet
from gerbil_tune.errors import DatasetError, NonFiniteLossError
from gerbil_tune.models.density import LocationDensity
from gerbil_tune.models.losses import make_loss
from gerbil_tune.training.checkpoints import Progress
from gerbil_tune.training.job import TrainingJob
from gerbil_tune.training.session import TrainingSession
from gerbil_tune.training.stopping import StopTraining

_EVENTS_AT_A_TIME = 4096
_MOST_BYTES = 64 * 1024**3
"""Audio that is read at most: some minutes' worth."""
_EXPLODED_NATS = 100.0
"""A training loss so far above that of a model without knowledge is no noise of a few events."""
_PATIENCE_EPOCHS, _PATIENCE_STEPS = 2, 50
"""Of an exploded loss: the warm-up's first steps may be wild, and yet the run a good one."""


_causes: dict[str, str] = {}
"""What ``find_non_finite`` has said, by fingerprint of the events, on which many runs may diverge."""


def non_finite_error(
    what: str, events: EventSet, config: ExperimentConfig, session: TrainingSession
) -> NonFiniteLossError:
    """The error of a value that is not finite, with its cause as far as it can be found.

    Every rank must ask, and gets the same: rank 0 reads the events' locations and audio, the others wait.

    Args:
        what: What is not finite and when, such as "the loss became nan in epoch 1".
        events: Those that it was computed of.
        config: Of the run.
        session: The place of this worker.

    Raises:
        StopTraining: If the run is asked to stop while the events are read; on all ranks.
    """
    cause = _shared_cause(events, session)
    if cause is None:
        raise StopTraining
    if cause:
        return NonFiniteLossError(
            f"{what}, because {cause}; gerbil-tune data check names all such events, and gerbil-tune data "
            "clean leaves them out"
        )
    return NonFiniteLossError(f"{what}; {_advice(config)}")


def ignorant_loss(job: TrainingJob) -> float:
    """Training loss of the arena's centre with a standard deviation of a quarter of its width.

    About where every run begins, whatever its scaling and its seed.
    """
    assert job.splits.train.locations_mm is not None
    locations_NKD = torch.as_tensor(job.splits.train.locations_mm)
    sd_mm = min(job.setup.arena_mm) / 4
    spread_DD = sd_mm * torch.eye(locations_NKD.shape[-1])
    density = LocationDensity(
        torch.zeros(*locations_NKD.shape[:2], 1),
        torch.zeros_like(locations_NKD)[:, :, None],
        spread_DD.expand(*locations_NKD.shape[:2], 1, -1, -1),
    )
    return float(make_loss(job.config.loss, job.setup)(density, locations_NKD).mean())


def check_explosion(
    train_loss: float, num_steps: int, progress: Progress, job: TrainingJob
) -> None:
    """Count the epochs in a row in which the loss was far above its beginning, and give up after some.

    Args:
        train_loss: Mean over the epoch that has just ended.
        num_steps: Its steps.
        progress: Where they are counted.
        job: Of the run.

    Raises:
        NonFiniteLossError: If the training loss was more than 100 (nats, of a likelihood) above that of a
            model without knowledge for at least 2 epochs and 50 steps.
    """
    beginning = ignorant_loss(job)
    exploded = train_loss > beginning + _EXPLODED_NATS
    progress.exploded_epochs = progress.exploded_epochs + 1 if exploded else 0
    epochs = progress.exploded_epochs
    if epochs >= _PATIENCE_EPOCHS and epochs * num_steps >= _PATIENCE_STEPS:
        raise NonFiniteLossError(
            f"the loss exploded: the training loss of epoch {progress.epoch + 1} is {train_loss:.3g}, "
            f"after {epochs} epochs above {beginning + _EXPLODED_NATS:.3g}, where a model without any "
            f"knowledge has {beginning:.3g}; {_advice(job.config)}"
        )


def _advice(config: ExperimentConfig) -> str:
    return (
        f"try a lower optimizer/learning_rate (it was {config.optimizer.learning_rate:g}) or "
        "training/clip_norm"
    )


def _shared_cause(events: EventSet, session: TrainingSession) -> str | None:
    """What rank 0 finds; None if it was asked to stop before it had an answer."""
    found: list[str | None] = [None]
    if session.rank == 0:
        with contextlib.suppress(StopTraining):
            found[0] = _known_cause(events, session.stop_requested)
    if session.world_size > 1:
        torch.distributed.broadcast_object_list(found)
    return found[0]


def _known_cause(events: EventSet, stop: Callable[[], bool]) -> str:
    try:
        fingerprint = events.fingerprint()
        if fingerprint not in _causes:
            _causes[fingerprint] = find_non_finite(events, stop)
    except DatasetError:
        return ""  # the files have gone meanwhile: nothing can be said of them
    return _causes[fingerprint]


def find_non_finite(events: EventSet, stop: Callable[[], bool] = lambda: False) -> str:
    """Name the first event whose locations or audio hold NaN or infinite values; empty if none does.

    Args:
        events: The set.
        stop: Asked again and again while audio is read, which may take minutes.

    Raises:
        StopTraining: If ``stop`` says so.
        DatasetError: If the files have gone or become shorter.
    """

    def look(num_read: int) -> None:
        if stop():
            raise StopTraining

    locations_NKD = events.locations_mm
    if locations_NKD is not None:
        bad = np.flatnonzero(~np.isfinite(locations_NKD).all(axis=(1, 2)))
        if len(bad):
            return f"the location of {events.describe(int(bad[0]))} holds NaN or infinite values"
    sample_bytes = events.num_microphones * events.files[0].dtype.itemsize
    within = np.cumsum(events.lengths) * sample_bytes <= _MOST_BYTES
    for first in range(0, int(within.sum()), _EVENTS_AT_A_TIME):
        places = np.arange(first, min(first + _EVENTS_AT_A_TIME, int(within.sum())))
        scan = scan_audio(events, places, advance=look)
        if not scan.finite_N.all():
            place = int(scan.places_N[~scan.finite_N][0])
            return f"the audio of {events.describe(place)} holds NaN or infinite values"
    return ""
