"""The recordings of a prediction job: found, opened and compared with the model's recording site.

What is wrong with one of several is noted, and the others are predicted.
"""

import glob
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from gerbil_tune.data.checks.cheap import prediction_checks, raise_on_errors
from gerbil_tune.data.checks.tracks import check_tracks
from gerbil_tune.data.events import FILE_SUFFIXES, EventSet, list_event_files, open_chosen
from gerbil_tune.data.files.manifest import MANIFEST
from gerbil_tune.errors import ConfigError, DatasetError
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.inference.locations import matching_locations

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
SUFFIX = ".predictions.h5"
_LIST_SUFFIXES = (".txt", ".lst")
_RELATIVE_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file to predict.

    Attributes:
        path: The file, or a folder of shards that is one input.
        subfolder: Where it is below the folder that was asked for, which its predictions mirror.
    """

    path: Path
    subfolder: Path = Path()


@dataclass(frozen=True, slots=True)
class Problem:
    """A file that is not predicted, and why, in one sentence."""

    path: Path
    reason: str


@dataclass(frozen=True, eq=False, slots=True)
class Recording:
    """An input that can be opened.

    Attributes:
        file: The input.
        events: Its events, or those that were chosen.
    """

    file: InputFile
    events: EventSet


def find_inputs(asked: Sequence[Path], event_index: Path | None) -> list[InputFile]:
    """Find the files that are asked for.

    Args:
        asked: Files; folders, of which all files below are meant; patterns with ``*``, ``?`` or ``[]``; and
            lists, text files ending in .txt or .lst with a path on each line.
        event_index: Index file of events, for which one file, or one folder of shards, is one input.

    Raises:
        DatasetError: If something does not exist, holds no file, or is given twice.
        ConfigError: If events are chosen of several files.
    """
    files = [file for path in asked for file in _expanded(path)]
    seen: set[Path] = set()
    for file in files:
        place = file.path.resolve()
        if place in seen:
            raise DatasetError(f"{file.path}: is given twice; its events would be predicted twice")
        seen.add(place)
    if event_index is None or len(files) == 1:
        return files
    folder = asked[0].expanduser().absolute()
    if len(asked) == 1 and (folder / MANIFEST).is_file():
        return [InputFile(folder)]
    raise ConfigError(
        f"--events {event_index} chooses events of one file, but {len(files)} input files were given; "
        "predict each with its own index file"
    )


def _expanded(path: Path) -> list[InputFile]:
    path = path.expanduser().absolute()
    if glob.has_magic(str(path)) and not path.exists():
        found = sorted(Path(name) for name in glob.glob(str(path), recursive=True))  # noqa: PTH207
        files = [InputFile(file) for file in found if _is_recording(file)]
        if not files:
            raise DatasetError(
                f"{path}: no file of this pattern ends in {' or '.join(FILE_SUFFIXES)}"
            )
        return files
    if path.suffix in _LIST_SUFFIXES and path.is_file():
        return _listed(path)
    if path.is_dir() and not (path / MANIFEST).is_file():
        below = sorted(file for file in path.rglob("*") if _is_recording(file))
        if below:
            return [InputFile(file, file.parent.relative_to(path)) for file in below]
    return [InputFile(file) for file in list_event_files(path)]


def _listed(path: Path) -> list[InputFile]:
    """The files on the lines of a text file, relative to its folder; # begins a remark."""
    try:
        lines = [line.partition("#")[0].strip() for line in path.read_text().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: the list of files cannot be read ({error})") from None
    files = [InputFile((path.parent / line).absolute()) for line in lines if line]
    if not files:
        raise DatasetError(f"{path}: the list names no file; give a path on each line")
    return files


def _is_recording(path: Path) -> bool:
    is_hidden = path.name.startswith(".") or any(part.startswith(".") for part in path.parts[-2:-1])
    is_ours = path.name.endswith(SUFFIX)
    return path.suffix in FILE_SUFFIXES and path.is_file() and not is_hidden and not is_ours


def open_recordings(
    files: Sequence[InputFile], event_index: Path | None
) -> tuple[list[Recording], list[Problem]]:
    """Open files; torch is not needed.

    Returns:
        Those that can be opened, and what is wrong with the others.

    Raises:
        DatasetError: If none can be.
    """

    def open_one(file: InputFile) -> Recording:
        events = open_chosen(file.path, event_index)
        if events.is_impulse_response:
            raise DatasetError(
                f"{events.files[0].path}: holds impulse responses, which are no calls that could be "
                "located; convolve them with sounds first, by gerbil-tune data shard"
            )
        return Recording(file, events)

    return _each(files, open_one, lambda file: file.path)


def check_recordings(
    recordings: Sequence[Recording], setup: RecordingSetup
) -> tuple[list[Recording], list[Problem], list[str]]:
    """Compare recordings with the site that a model is for.

    Returns:
        Those that fit, what is wrong with the others, and remarks, one sentence each.

    Raises:
        DatasetError: If none fits.
    """
    notes: list[str] = []

    def check_one(recording: Recording) -> Recording:
        notes.extend(check_recording(recording.events, setup))
        name = recording.file.path.name
        # Tracks in a wrong frame would name the wrong callers.
        of_tracks = check_tracks(recording.events, setup.arena_mm)
        raise_on_errors(of_tracks, recording.file.path)
        # What is wrong with single events spoils these alone: it is told, and does not stop the others.
        findings = [*prediction_checks(recording.events, setup), *of_tracks]
        notes.extend(f"{name}: {finding.message}" for finding in findings)
        return recording

    fitting, problems = _each(recordings, check_one, lambda recording: recording.file.path)
    return fitting, problems, notes


def _each(
    items: Sequence[_Item], work: Callable[[_Item], _Result], path_of: Callable[[_Item], Path]
) -> tuple[list[_Result], list[Problem]]:
    """Do a work with each; what fails is noted, and raised where nothing succeeds."""
    done: list[_Result] = []
    problems: list[Problem] = []
    first: DatasetError | None = None
    for item in items:
        try:
            done.append(work(item))
        except DatasetError as error:
            first = first or error
            problems.append(Problem(path_of(item), str(error)))
    if first is not None and not done:
        raise first
    return done, problems


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
