"""A batch-prediction job: files of events in, one file of predictions for each out.

All that can be wrong is looked for before the model is loaded: a job of fifty recordings either starts with
all of them in order or says which one is not.

Letters: N events, K keypoints, D axes.
"""

import contextlib
import math
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import gerbil_tune
from gerbil_tune.data.checks.cheap import prediction_checks
from gerbil_tune.data.events import FILE_SUFFIXES, EventSet, list_event_files, open_events
from gerbil_tune.data.files.index_files import read_indices
from gerbil_tune.data.files.manifest import MANIFEST
from gerbil_tune.errors import ConfigError, DatasetError
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.inference.locations import matching_locations
from gerbil_tune.inference.progress import show_progress
from gerbil_tune.inference.writer import PredictionWriter, file_attributes, read_attributes
from gerbil_tune.tracking.model_registry import ResolvedModel

if TYPE_CHECKING:
    from gerbil_tune.inference.predict import TaskResult
    from gerbil_tune.models.bundle import TrainedModel

IN_PROCESS_BELOW = 20_000
"""Events below which starting a pool takes longer than it saves."""
_SUFFIX = ".predictions.h5"
_RELATIVE_TOLERANCE = 1e-6


@dataclass(frozen=True)
class PredictionSummary:
    """What a job did.

    Attributes:
        num_events: Events predicted, without those of reused files.
        seconds: Wall-clock time from the first check to the last file.
        files: Files written, in the order of the inputs.
        reused: Files that an earlier run of the same job had finished.
        num_non_finite: Events whose prediction is not a number, from audio that is not.
        notes: Remarks on the inputs, one sentence each.
    """

    num_events: int
    seconds: float
    files: tuple[Path, ...]
    reused: tuple[Path, ...]
    num_non_finite: int
    notes: tuple[str, ...]

    @property
    def events_per_s(self) -> float:
        """Events predicted a second, over all that the job took."""
        return self.num_events / self.seconds if self.seconds > 0 else 0.0


def predict_files(
    model: ResolvedModel,
    inputs: Sequence[Path],
    output: Path,
    *,
    start_ray: Callable[[], None],
    workers: int | None = None,
    per_worker_batch_size: int = 64,
    event_index: Path | None = None,
) -> PredictionSummary:
    """Predict the events of files, writing one file for each.

    Args:
        model: From ``resolve_model``.
        inputs: Files of events, or folders of them. Locations are not needed. A folder of shards of which
            events are chosen is one input.
        output: With one input file the file to write; a name without ``.h5`` or ``.hdf5``, and any name
            with several inputs, is a folder in which ``<stem>.predictions.h5`` are written.
        start_ray: Starts or joins Ray; called only if a pool is used.
        workers: Processes of a pool; 0: none; default: none below 20,000 events, else one for each GPU or
            CPU of the Ray cluster.
        per_worker_batch_size: Events of a batch at most.
        event_index: Index file of the events to predict, for one input; None: all.

    Raises:
        DatasetError: If an input cannot be used with this model, or the index file not with the input.
        ConfigError: If an output would overwrite something else, or events are chosen of several inputs.
        ModelNotFoundError: If the bundle has gone.
        LaunchError: If the cluster cannot do it.
    """
    started = time.monotonic()
    paths = _list_inputs(inputs, event_index)
    as_folder = len(paths) > 1 or (inputs[0].is_dir() and not paths[0].is_dir())
    targets = plan_outputs(paths, output, as_folder=as_folder)
    event_sets = _open_inputs(paths, event_index)
    # Late, for it imports torch: a wrong file is told at once.
    from gerbil_tune.models.bundle import load_bundle, read_setup

    setup = read_setup(model.path)
    notes = [note for events in event_sets for note in check_recording(events, setup)]
    # What is wrong with single events spoils these alone: it is told, and does not stop the others.
    notes += [
        f"{path.name}: {finding.message}"
        for path, events in zip(paths, event_sets, strict=True)
        for finding in prediction_checks(events, setup)
    ]
    bundle, is_choice = load_bundle(model.path), event_index is not None
    conformal = bundle.calibration.conformal
    levels = () if conformal is None else conformal.levels
    outputs = [
        _Output(target, events, _attributes(model, bundle, events, is_choice), levels, is_choice)
        for target, events in zip(targets, event_sets, strict=True)
    ]
    todo = [out for out in outputs if not out.is_up_to_date(setup)]
    results = _results(
        bundle, [out.events for out in todo], workers, per_worker_batch_size, start_ray
    )
    with contextlib.closing(results):
        num_non_finite = _write_all(todo, setup, results)
    return PredictionSummary(
        num_events=sum(len(out.events) for out in todo),
        seconds=time.monotonic() - started,
        files=tuple(out.path for out in todo),
        reused=tuple(out.path for out in outputs if out not in todo),
        num_non_finite=num_non_finite,
        notes=tuple(notes),
    )


def _list_inputs(inputs: Sequence[Path], event_index: Path | None) -> list[Path]:
    """The files to predict; of chosen events the one file or the one folder of shards."""
    paths = [path for asked in inputs for path in list_event_files(asked)]
    if event_index is None or len(paths) == 1:
        return paths
    folder = inputs[0].expanduser().absolute()
    if len(inputs) == 1 and (folder / MANIFEST).is_file():
        return [folder]
    raise ConfigError(
        f"--events {event_index} chooses events of one file, but {len(paths)} input files were given; "
        "predict each with its own index file"
    )


def _open_inputs(paths: Sequence[Path], event_index: Path | None) -> list[EventSet]:
    if event_index is None:
        return [_open_recording([path]) for path in paths]
    events = _open_recording(paths)
    return [events.subset(read_indices(event_index, len(events)))]


def _open_recording(paths: Sequence[Path]) -> EventSet:
    events = open_events(paths)
    if events.is_impulse_response:
        raise DatasetError(
            f"{paths[0]}: holds impulse responses, which are no calls that could be located; convolve them "
            "with sounds first, by gerbil-tune data shard"
        )
    return events


def plan_outputs(paths: Sequence[Path], output: Path, *, as_folder: bool) -> list[Path]:
    """Choose the file that the predictions of each input go to; its folder is made when it is written.

    Args:
        paths: Input files.
        output: A file, or a folder.
        as_folder: Whether ``output`` must be a folder.

    Raises:
        ConfigError: If two inputs would go to one file, a file would be overwritten that is not one of
            predictions, or the folder cannot be written.
    """
    output = output.expanduser().absolute()
    is_file_name = output.suffix in FILE_SUFFIXES and not output.is_dir()
    if as_folder and is_file_name:
        raise ConfigError(
            f"output {output} is a file name, but {len(paths)} input files of a folder or list need a "
            "folder; each then gets <name>.predictions.h5 in it"
        )
    targets = [output] if is_file_name else [output / f"{path.stem}{_SUFFIX}" for path in paths]
    sources: dict[Path, Path] = {}
    for path, target in zip(paths, targets, strict=True):
        if target in sources:
            raise ConfigError(
                f"{sources[target]} and {path} would both be predicted into {target}; predict them in "
                "two calls with different outputs"
            )
        sources[target] = path
        if target.exists() and read_attributes(target) is None:
            raise ConfigError(
                f"output {target} exists and is not a file of predictions; choose another name"
            )
    _check_folder(targets[0].parent)
    return targets


def check_recording(events: EventSet, setup: RecordingSetup) -> list[str]:
    """Compare a recording with the site that a model is for.

    Returns:
        Remarks on what is allowed but may be a mistake, one sentence each.

    Raises:
        DatasetError: If the number of microphones or the sample rate is another.
    """
    file = events.files[0]
    if file.num_microphones != setup.num_microphones:
        raise DatasetError(
            f"{file.path}: the audio has {file.num_microphones} microphones, but the model is for "
            f"{setup.num_microphones}; use a model that was trained for this array"
        )
    notes = []
    if file.sample_rate_hz is None:
        notes.append(
            f"{file.path.name} does not state its sample rate (attribute sample_rate_hz); "
            f"{setup.sample_rate_hz:g} Hz is assumed, as in training"
        )
    elif not math.isclose(file.sample_rate_hz, setup.sample_rate_hz, rel_tol=_RELATIVE_TOLERANCE):
        raise DatasetError(
            f"{file.path}: attribute sample_rate_hz is {file.sample_rate_hz:g}, but the model is for "
            f"{setup.sample_rate_hz:g}; resample the audio or use a model trained at its rate"
        )
    for name in ("arena_mm", "microphones_mm"):
        here, there = getattr(file, name), getattr(setup, name)
        if here and there and not np.allclose(np.ravel(here)[: np.size(there)], np.ravel(there)):
            notes.append(
                f"{file.path.name} states another {name} than the model was trained with; "
                "its locations are those of the model's site"
            )
    if events.locations_mm is not None and matching_locations(events, setup) is None:
        notes.append(
            f"the locations of {file.path.name} are not copied: they are of keypoints "
            f"{', '.join(events.keypoints)} in {events.num_axes} axes, the predictions of "
            f"{', '.join(setup.keypoints)} in {setup.num_axes}"
        )
    return notes


@dataclass(frozen=True, eq=False)
class _Output:
    """A file to write, for the events of one input."""

    path: Path
    events: EventSet
    attributes: dict[str, str | float]
    region_levels: tuple[float, ...]
    is_choice: bool = False

    def is_up_to_date(self, setup: RecordingSetup) -> bool:
        """Whether it is there already, from the same model, data and program."""
        if not self.path.exists():
            return False
        return read_attributes(self.path) == file_attributes(setup, self.attributes)

    def open(self, setup: RecordingSetup) -> PredictionWriter:
        locations = matching_locations(self.events, setup)
        index = self.events.rows if self.is_choice else None
        return PredictionWriter(
            self.path,
            len(self.events),
            setup,
            self.attributes,
            region_levels=self.region_levels,
            locations_mm_NKD=locations,
            event_index_N=index,
        )


def _attributes(
    model: ResolvedModel, bundle: "TrainedModel", events: EventSet, is_choice: bool
) -> dict[str, str | float]:
    choice: dict[str, str | float] = {"chosen_events": len(events)} if is_choice else {}
    return {
        **choice,
        "model_uri": model.uri,
        "model_version": model.version or "",
        "model_fingerprint": bundle.fingerprint,
        "temperature": bundle.calibration.temperature,
        "data_fingerprint": events.fingerprint(),
        "package_version": gerbil_tune.__version__,
    }


def _results(
    bundle: "TrainedModel",
    event_sets: Sequence[EventSet],
    workers: int | None,
    per_worker_batch_size: int,
    start_ray: Callable[[], None],
) -> "Generator[TaskResult, None, None]":
    """Predict in this process or in a pool, by the amount of work and what was asked for."""
    import torch

    from gerbil_tune.inference.predict import plan_tasks, run_tasks
    from gerbil_tune.models.bundle import load_bundle

    tasks = plan_tasks(
        event_sets, per_worker_batch_size=per_worker_batch_size, crop_length=bundle.crop_length
    )
    small = sum(len(events) for events in event_sets) < IN_PROCESS_BELOW
    if not tasks:
        return
    if workers == 0 or (workers is None and small):
        if torch.cuda.is_available():
            bundle = load_bundle(bundle.path, device="cuda")
        yield from run_tasks(bundle, event_sets, tasks, per_worker_batch_size=per_worker_batch_size)
    else:
        from gerbil_tune.inference.pool import run_tasks_in_pool

        yield from run_tasks_in_pool(
            bundle.path,
            event_sets,
            tasks,
            workers=workers,
            per_worker_batch_size=per_worker_batch_size,
            start_ray=start_ray,
        )


def _write_all(
    todo: Sequence[_Output], setup: RecordingSetup, results: "Iterator[TaskResult]"
) -> int:
    """Write results into their files as they come; returns the number of events without a finite one."""
    writers: dict[int, PredictionWriter] = {}
    num_non_finite = 0
    try:
        with show_progress(sum(len(out.events) for out in todo)) as advance:
            for done in results:
                number = done.task.set_number
                if number not in writers:
                    writers[number] = todo[number].open(setup)
                writers[number].write(done.task.start, done.predictions)
                finite_NKD = np.isfinite(done.predictions.mean_mm_NKD)
                num_non_finite += int(np.count_nonzero(~finite_NKD.all(axis=(1, 2))))
                if writers[number].complete:
                    writers[number].finish()
                    del writers[number]
                advance(done.task.stop - done.task.start)
    finally:
        for writer in writers.values():
            writer.discard()
    return num_non_finite


def _check_folder(folder: Path) -> None:
    """Raise where a folder, or the one that it will be made in, cannot be written."""
    try:
        existing = next(place for place in (folder, *folder.parents) if place.exists())
        # Permissions of networked disks are best asked by writing.
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise ConfigError(
            f"output folder {folder} cannot be written ({error.strerror}); choose another one"
        ) from None
