"""A batch-prediction job: recordings in, one file of predictions for each out, or one for all.

All that can be wrong with the job is looked for before the model is loaded. What is wrong with one recording
of several is told at the end. A job that is stopped or killed goes on where it was.

Letters: N events, K keypoints, D axes.
"""

import contextlib
import json
import os
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gerbil_tune.data.events import EventSet
from gerbil_tune.errors import DatasetError, LaunchError
from gerbil_tune.inference.inputs import (
    Problem,
    check_recordings,
    find_inputs,
    open_recordings,
)
from gerbil_tune.inference.outputs import (
    Output,
    OutputOptions,
    goes_into_one,
    make_outputs,
    plan_outputs,
)
from gerbil_tune.inference.progress import show_progress
from gerbil_tune.tracking.model_registry import ResolvedModel

if TYPE_CHECKING:
    from gerbil_tune.inference.callers import CallerCounts
    from gerbil_tune.inference.flags import Flag
    from gerbil_tune.inference.predict import TaskOptions, TaskResult
    from gerbil_tune.models.bundle import TrainedModel

IN_PROCESS_BELOW = 20_000
"""Events below which starting a pool takes longer than it saves."""
FAILED_FILE = "predictions.failed.json"


@dataclass(frozen=True)
class PredictionSummary:
    """What a job did.

    Attributes:
        num_events: Events predicted, without those of reused files and of earlier runs.
        num_resumed: Events of files that an earlier run began, which it had predicted.
        seconds: Wall-clock time from the first check to the last file.
        files: Files written, in the order of the inputs.
        reused: Files that an earlier run of the same job had finished.
        problems: Inputs that could not be predicted.
        num_failed_events: Events without a prediction, in all files.
        failed_file: Where problems and failed events are listed; None: there is none.
        notes: Remarks on the inputs, one sentence each.
        callers: Animals that were named as callers, in all files; None without tracks.
    """

    num_events: int
    num_resumed: int
    seconds: float
    files: tuple[Path, ...]
    reused: tuple[Path, ...]
    problems: tuple[Problem, ...]
    num_failed_events: int
    failed_file: Path | None
    notes: tuple[str, ...]
    callers: "CallerCounts | None" = None

    @property
    def events_per_s(self) -> float:
        """Events predicted a second, over all that the job took."""
        return self.num_events / self.seconds if self.seconds > 0 else 0.0


def predict_files(
    model: ResolvedModel,
    inputs: Sequence[Path],
    output: Path,
    *,
    start_ray: Callable[[Sequence[EventSet]], None],
    workers: int | None = None,
    per_worker_batch_size: int = 64,
    event_index: Path | None = None,
    overwrite: bool = False,
    aliases: tuple[str, ...] = (),
    error_rate: float = 0.05,
    density_step_mm: float | None = None,
) -> PredictionSummary:
    """Predict the events of files.

    Args:
        model: From ``resolve_model``.
        inputs: See ``inputs.find_inputs``. Locations are not needed.
        output: The file for all predictions; a name without ``.h5`` or ``.hdf5`` is a folder, in which
            ``<name>.predictions.h5`` mirror the inputs.
        start_ray: Starts or joins Ray, for these events; called only if a pool is used.
        workers: Processes of a pool; 0: none; default: none below 20,000 events, else one for each GPU or
            CPU of the Ray cluster.
        per_worker_batch_size: Events of a batch at most.
        event_index: Index file of the events to predict, for one input; None: all.
        overwrite: Whether parts that an earlier run left of another job are thrown away.
        aliases: Further names of the dataset ``predictions``.
        error_rate: Share of wrong ones among the animals that are named as callers, at most; between 0 and 1.
        density_step_mm: Side of the cells of density maps that are written, too; None: no maps.

    Raises:
        DatasetError: If no input can be used with this model, or the index file not with the input.
        ConfigError: If an output would overwrite something else, or was begun with something else, or a map
            would have too many cells.
        ModelNotFoundError: If the bundle has gone.
        LaunchError: If the cluster cannot do it, or the disk is full.
    """
    started = time.monotonic()
    files = find_inputs(inputs, event_index)
    targets = dict(zip(files, plan_outputs(files, output), strict=True))
    recordings, problems = open_recordings(files, event_index)
    # Late, for it imports torch: a wrong file is told at once.
    from gerbil_tune.evaluation.maps import cell_centres_mm
    from gerbil_tune.inference.callers import count_callers, remarks_on_tracks
    from gerbil_tune.inference.predict import TaskOptions
    from gerbil_tune.models.bundle import load_bundle, read_setup

    recordings, unfit, notes = check_recordings(recordings, read_setup(model.path))
    problems += unfit
    bundle = load_bundle(model.path)
    if density_step_mm is not None:
        cell_centres_mm(bundle.setup, density_step_mm)
    rule = bundle.calibration.callers
    for each in recordings:
        notes += remarks_on_tracks(each.events, bundle.setup, rule, error_rate)
    outputs = make_outputs(
        model,
        bundle,
        [(each.file.path, each.events) for each in recordings],
        [targets[each.file] for each in recordings],
        OutputOptions(event_index is not None, aliases, error_rate, density_step_mm),
    )
    todo = [out for out in outputs if not out.is_up_to_date()]
    run = _Run(
        bundle, todo, TaskOptions(per_worker_batch_size, density_step_mm), overwrite=overwrite
    )
    with (
        contextlib.closing(run.results(workers, start_ray)) as results,
        show_progress(run.num_left) as advance,
    ):
        run.write(results, advance)
    problems += run.problems
    written = [out for out in todo if out.path not in run.given_up]
    if not written and len(todo) == len(outputs):
        raise DatasetError(problems[0].reason)
    failed = [
        event for out in outputs if out.path not in run.given_up for event in out.failed_events()
    ]
    return PredictionSummary(
        num_events=run.num_done,
        num_resumed=run.num_resumed,
        seconds=time.monotonic() - started,
        files=tuple(out.path for out in written),
        reused=tuple(out.path for out in outputs if out not in todo),
        problems=tuple(problems),
        num_failed_events=len(failed),
        failed_file=_list_failed(
            output.expanduser().absolute(), [file.path for file in files], problems, failed
        ),
        notes=tuple(notes),
        callers=count_callers([out.path for out in outputs if out.path not in run.given_up]),
    )


class _Run:
    """The work that is left of some files, and what becomes of it."""

    def __init__(
        self,
        bundle: "TrainedModel",
        outputs: Sequence[Output],
        options: "TaskOptions",
        *,
        overwrite: bool,
    ) -> None:
        from gerbil_tune.inference.parts import PartsFolder
        from gerbil_tune.inference.predict import plan_tasks

        self._bundle, self._outputs, self._options = bundle, outputs, options
        self._parts: list[PartsFolder] = [
            PartsFolder(out.path, out.all_attributes, overwrite=overwrite) for out in outputs
        ]
        kept = [
            {(start, start + len(found)) for start, found in parts.read()} for parts in self._parts
        ]
        tasks = plan_tasks(
            [out.events for out in outputs],
            per_worker_batch_size=options.per_worker_batch_size,
            crop_length=bundle.crop_length,
        )
        self._tasks = [
            task for task in tasks if (task.start, task.stop) not in kept[task.set_number]
        ]
        self._missing = [0] * len(outputs)
        for task in self._tasks:
            self._missing[task.set_number] += task.stop - task.start
        self.num_left = sum(self._missing)
        self.num_resumed = sum(len(out.events) for out in outputs) - self.num_left
        self.num_done = 0
        self.problems: list[Problem] = []
        self.given_up: set[Path] = set()

    def results(
        self, workers: int | None, start_ray: Callable[[Sequence[EventSet]], None]
    ) -> "Generator[TaskResult, None, None]":
        """Predict what is left, in this process or in a pool: by what was asked for, or by how much it is."""
        import torch

        from gerbil_tune.inference.predict import run_tasks
        from gerbil_tune.models.bundle import load_bundle

        if not self._tasks:
            return
        bundle, event_sets = self._bundle, [out.events for out in self._outputs]
        if workers == 0 or (workers is None and self.num_left < IN_PROCESS_BELOW):
            if torch.cuda.is_available():
                bundle = load_bundle(bundle.path, device="cuda")
            yield from run_tasks(bundle, event_sets, self._tasks, self._options)
        else:
            from gerbil_tune.inference.pool import run_tasks_in_pool

            yield from run_tasks_in_pool(
                bundle.path,
                event_sets,
                self._tasks,
                self._options,
                workers=workers,
                start_ray=lambda: start_ray(event_sets),
            )

    def write(self, results: "Iterator[TaskResult]", advance: Callable[[int], None]) -> None:
        """Keep results as they come, and write each file once all of its events are there."""
        for number, missing in enumerate(self._missing):
            if missing == 0:
                self._outputs[number].finish(self._parts[number])
        for done in results:
            number = done.task.set_number
            num_events = done.task.stop - done.task.start
            advance(num_events)
            out = self._outputs[number]
            if out.path in self.given_up:
                continue
            if done.predictions is None:
                self._give_up(number, done.error)
                continue
            self._parts[number].write(done.task.start, done.predictions)
            self.num_done += num_events
            self._missing[number] -= num_events
            if self._missing[number] == 0:
                out.finish(self._parts[number])

    def _give_up(self, number: int, reason: str) -> None:
        out = self._outputs[number]
        self.given_up.add(out.path)
        self.problems += [Problem(source, reason) for source in out.sources]
        self._parts[number].remove()


def _list_failed(
    output: Path,
    inputs: Sequence[Path],
    problems: Sequence[Problem],
    failed: Sequence[tuple[str, int, int]],
) -> Path | None:
    """List beside the predictions what was not predicted.

    What an earlier run listed of the same inputs is replaced; of others, which may go into the same folder,
    it stays.

    Raises:
        LaunchError: If the list cannot be written.
    """
    from gerbil_tune.inference.flags import MEANINGS

    path = output.with_suffix(".failed.json") if goes_into_one(output) else output / FAILED_FILE
    here = {str(place) for place in inputs}
    files, events = (
        [entry for entry in entries if entry["file"] not in here] for entries in _read_failed(path)
    )
    files += [{"file": str(each.path), "reason": each.reason} for each in problems]
    events += [
        {"file": file, "event": event, "reason": _reasons(flags, MEANINGS)}
        for file, event, flags in failed
    ]
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        if files or events:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps({"files": files, "events": events}, indent=2) + "\n")
            temporary.replace(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise LaunchError(
            f"{path}: the list of what was not predicted cannot be written ({error.strerror}); the "
            "predictions are written"
        ) from None
    return path if problems or failed else None


def _read_failed(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Files and events that an earlier run listed; none where there is no such list."""
    try:
        content = json.loads(path.read_text())
        return list(content["files"]), list(content["events"])
    except (OSError, ValueError, KeyError, TypeError):
        return [], []


def _reasons(flags: int, meanings: "Mapping[Flag, str]") -> str:
    from gerbil_tune.inference.flags import FAILED

    return "; ".join(meaning for flag, meaning in meanings.items() if flags & flag & FAILED)
