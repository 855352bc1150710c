"""Predictions of a bundle in one process, and the work list that a pool of processes shares.

Letters: N events, B batch, T samples, C microphones, K keypoints, D axes.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from gerbil_tune.data.batches import EvaluationBatches, prefetch
from gerbil_tune.data.events import EventSet
from gerbil_tune.errors import DatasetError
from gerbil_tune.evaluation.maps import cell_centres_mm, density_maps
from gerbil_tune.evaluation.predictions import EventPredictions, describe
from gerbil_tune.inference.flags import flagged, flags_of_audio
from gerbil_tune.inference.locations import matching_locations, matching_tracks
from gerbil_tune.models.bundle import TrainedModel, load_bundle

_BATCH = 64
_BATCHES_PER_TASK = 8
_MAX_BATCH_VALUES = 2**26
"""Audio values in a batch at most: 256 MB as float32, whatever the events and microphones."""


@dataclass(frozen=True, slots=True)
class Task:
    """Events [start, stop) of the set of a number."""

    set_number: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """How tasks are done.

    Attributes:
        per_worker_batch_size: Events of a batch at most.
        density_step_mm: Side of the cells of density maps; None: no maps.
    """

    per_worker_batch_size: int = _BATCH
    density_step_mm: float | None = None


@dataclass(frozen=True, slots=True)
class TaskResult:
    """What a task came to.

    Attributes:
        task: The task.
        predictions: Of its events, in order; None where they could not be read.
        error: Why not, in one sentence.
    """

    task: Task
    predictions: EventPredictions | None
    error: str = ""


def plan_tasks(
    event_sets: Sequence[EventSet], *, per_worker_batch_size: int, crop_length: int
) -> list[Task]:
    """Cut sets into tasks of about the same amount of audio.

    The tasks do not depend on the number of workers. As a network may round differently in a batch of
    other events, this makes predictions the same with any number of them.

    Args:
        event_sets: The sets.
        per_worker_batch_size: Events of a batch; a task has about eight batches.
        crop_length: Samples of an event that count at most.

    Returns:
        Tasks that hold each event once, in order.
    """
    tasks = []
    for number, events in enumerate(event_sets):
        num_tasks = -(-len(events) // (_BATCHES_PER_TASK * per_worker_batch_size))
        # One more for each event, so that events of no length are work too.
        audio = np.cumsum(np.minimum(events.lengths, crop_length) + 1)
        shares = audio[-1] * np.arange(1, num_tasks) / num_tasks if len(events) else []
        inner = np.searchsorted(audio, shares)
        bounds = np.unique([0, *inner.tolist(), len(events)]).tolist()
        tasks += [Task(number, start, stop) for start, stop in itertools.pairwise(bounds)]
    return tasks


def run_task(
    bundle: TrainedModel, event_sets: Sequence[EventSet], task: Task, options: TaskOptions
) -> EventPredictions:
    """Predict the events of one task, in order, and flag what their audio says.

    Raises:
        DatasetError: If their file cannot be read any more.
    """
    events = event_sets[task.set_number].subset(np.arange(task.start, task.stop))
    setup = bundle.setup
    crop_length = bundle.crop_length
    longest = max(1, min(int(events.lengths.max()), crop_length))
    affordable = max(1, _MAX_BATCH_VALUES // (longest * setup.num_microphones))
    batches = EvaluationBatches(
        events,
        crop_length=crop_length,
        per_worker_batch_size=min(options.per_worker_batch_size, affordable),
        with_statistics=bundle.uses_statistics,
    )
    locations_NKD = matching_locations(events, setup)
    has_rule = bundle.calibration.callers is not None
    tracks_NAKD = matching_tracks(events, setup) if has_rule else None
    step_mm = options.density_step_mm
    centres_mm = None if step_mm is None else cell_centres_mm(setup, step_mm)
    parts, places = [], []
    for batch in prefetch(iter(batches)):
        rows = batch.indices_B.numpy()
        flags_B = flags_of_audio(batch.audio_BTC, batch.lengths_B, events.lengths[rows])
        density = bundle.predict_batch(batch.audio_BTC, batch.lengths_B, batch.mean_BC, batch.sd_BC)
        truth = None if locations_NKD is None else locations_NKD[rows]
        tracks = None if tracks_NAKD is None else tracks_NAKD[rows]
        found = describe(density, bundle.calibration, setup, truth, events.rows[rows], tracks)
        maps = None if centres_mm is None else density_maps(density, *centres_mm)
        parts.append(replace(found, flags_N=flags_B, density_NKYX=maps))
        places.append(rows)
    return EventPredictions.joined(parts).in_order(np.concatenate(places))


def run_tasks(
    bundle: TrainedModel,
    event_sets: Sequence[EventSet],
    tasks: Sequence[Task],
    options: TaskOptions,
) -> Iterator[TaskResult]:
    """Do tasks one after another in this process."""
    for task in tasks:
        yield attempt_task(bundle, event_sets, task, options)


def attempt_task(
    bundle: TrainedModel, event_sets: Sequence[EventSet], task: Task, options: TaskOptions
) -> TaskResult:
    """Predict the events of one task for a file; what is wrong with the input is a result, too."""
    try:
        found = run_task(bundle, event_sets, task, options)
        return TaskResult(task, flagged(found, bundle.setup))
    except (DatasetError, OSError) as error:
        return TaskResult(task, None, str(error))


def predict_events(
    bundle: TrainedModel,
    events: EventSet,
    *,
    per_worker_batch_size: int,
    progress: Callable[[int], None] | None = None,
) -> EventPredictions:
    """Predict all events of a set in this process.

    Args:
        bundle: The model.
        events: N events, at least one; with locations of the model's keypoints the result compares with them.
        per_worker_batch_size: Events of a batch at most.
        progress: Is told how many events more are done, now and then.

    Returns:
        Predictions in the order of the events.
    """
    tasks = plan_tasks(
        [events],
        per_worker_batch_size=per_worker_batch_size,
        crop_length=bundle.crop_length,
    )
    parts = []
    for task in tasks:
        done = run_task(bundle, [events], task, TaskOptions(per_worker_batch_size))
        parts.append(done)
        if progress is not None:
            progress(len(done))
    return EventPredictions.joined(parts)


def predict_with_bundle(folder: Path, events: EventSet) -> EventPredictions:
    """Load a bundle and predict all events of a set in this process, on its GPU if it has one."""
    bundle = load_bundle(folder, device="cuda" if torch.cuda.is_available() else "cpu")
    return predict_events(bundle, events, per_worker_batch_size=_BATCH)
