"""A set of events out of one or several files, and the recording site they come from.

Legend: N events, C microphones, T samples, K keypoints, D axes.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gerbil_tune.config.schema import DataConfig
from gerbil_tune.data.files.animals import Animals
from gerbil_tune.data.files.columns import DEFAULT_KEYPOINT
from gerbil_tune.data.files.formats import EventFile, open_event_file
from gerbil_tune.data.files.index_files import read_indices
from gerbil_tune.data.files.manifest import read_manifest
from gerbil_tune.errors import DatasetError
from gerbil_tune.geometry import RecordingSetup

FILE_SUFFIXES = (".h5", ".hdf5")
_DEFAULT_NUM_AXES = 2


class EventSet:
    """Events chosen from files that belong together, with keypoints chosen by name.

    It can be pickled, and costs no audio when it is: the other process maps the files anew.

    Attributes:
        files: The files, alike in microphones, keypoints, axes and kind of number.
        rows: int64 (N,), the chosen events; they count through the files one after another.
        keypoints: Names of the K chosen keypoints, in order.
        file_numbers: int64 (N,), which of ``files`` each event is in.
        file_rows: int64 (N,), which event of its file each is.
        first_samples: int64 (N,), where each event begins in the audio of its file.
        lengths: int64 (N,), samples of each event.
    """

    def __init__(
        self,
        files: Sequence[EventFile],
        rows: npt.NDArray[np.int64] | None = None,
        keypoints: tuple[str, ...] | None = None,
    ) -> None:
        """Take all or some events of some files.

        Args:
            files: At least one.
            rows: Chosen events, any order; None: all.
            keypoints: Chosen names; None: all.

        Raises:
            DatasetError: If the files do not belong together or a keypoint is unknown.
        """
        _check_alike(files)
        self.files = tuple(files)
        ends = np.cumsum([file.num_events for file in files])
        self.rows = np.arange(ends[-1]) if rows is None else np.asarray(rows, dtype=np.int64)
        self.keypoints = files[0].keypoints if keypoints is None else keypoints
        self._columns = _find_columns(files[0], self.keypoints)
        self.file_numbers = np.searchsorted(ends, self.rows, side="right")
        begins = ends - [file.num_events for file in files]
        self.file_rows: npt.NDArray[np.int64] = self.rows - begins[self.file_numbers]
        starts = np.concatenate([file.starts[:-1] for file in files])
        lengths = np.concatenate([np.diff(file.starts) for file in files])
        self.first_samples: npt.NDArray[np.int64] = starts[self.rows]
        self.lengths: npt.NDArray[np.int64] = lengths[self.rows]

    def __reduce__(self) -> tuple[Any, ...]:
        return EventSet, (self.files, self.rows, self.keypoints)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def num_microphones(self) -> int:
        """C."""
        return self.files[0].num_microphones

    @property
    def num_axes(self) -> int:
        """D of the locations; 2 where there are none."""
        locations = self.files[0].locations_mm
        return _DEFAULT_NUM_AXES if locations is None else locations.shape[2]

    @property
    def locations_mm(self) -> npt.NDArray[np.float32] | None:
        """Locations of the chosen keypoints, float32 (N, K, D), a new array; None without locations."""
        parts = [file.locations_mm for file in self.files if file.locations_mm is not None]
        if not parts:
            return None
        return np.concatenate(parts)[self.rows][:, self._columns]

    @property
    def groups(self) -> npt.NDArray[np.int64] | None:
        """Group of each event, int64 (N,), or None where no file states groups.

        A number means the same group in all files. A file that states none among files that do is one
        group by itself.
        """
        stated = [file.groups for file in self.files if file.groups is not None]
        if not stated:
            return None
        unused = max(int(groups.max()) for groups in stated) + 1
        parts = [
            np.full(file.num_events, unused + number) if file.groups is None else file.groups
            for number, file in enumerate(self.files)
        ]
        return np.concatenate(parts)[self.rows]

    @property
    def onsets_s(self) -> npt.NDArray[np.float64] | None:
        """When each event began in its session, float64 (N,), NaN where a file does not say; None if none."""
        if all(file.onsets_s is None for file in self.files):
            return None
        parts = [
            np.full(file.num_events, np.nan) if file.onsets_s is None else file.onsets_s
            for file in self.files
        ]
        return np.concatenate(parts)[self.rows]

    @property
    def animals(self) -> Animals | None:
        """Where several animals were during each event, their chosen keypoints; None without tracks."""
        parts = [file.animals for file in self.files if file.animals is not None]
        return Animals.joined(parts).chosen(self.rows, self._columns) if parts else None

    @property
    def event_ids(self) -> npt.NDArray[np.int64] | None:
        """The lab's number of each event, int64 (N,), or None where a file has none."""
        parts = [file.event_ids for file in self.files if file.event_ids is not None]
        return np.concatenate(parts)[self.rows] if len(parts) == len(self.files) else None

    @property
    def is_impulse_response(self) -> bool:
        """Whether the events are impulse responses, to be convolved with sounds."""
        return self.files[0].is_impulse_response

    def read(self, i: int, start: int = 0, stop: int | None = None) -> npt.NDArray[Any]:
        """Samples [start, stop) of the i-th event of the set, a read-only view (T, C)."""
        first, length = int(self.first_samples[i]), int(self.lengths[i])
        end = first + (length if stop is None else min(stop, length))
        audio: npt.NDArray[Any] = self.files[self.file_numbers[i]].audio()
        return audio[first + start : end]

    def describe(self, i: int) -> str:
        """Say which event this is for a message: ``event 7 of calls.h5``, as the file counts."""
        return f"event {int(self.file_rows[i])} of {self.files[self.file_numbers[i]].path.name}"

    def subset(self, indices: npt.ArrayLike) -> "EventSet":
        """The events at some places of this set, in the order given."""
        return EventSet(self.files, self.rows[np.asarray(indices, dtype=np.int64)], self.keypoints)

    def select_keypoints(self, names: Sequence[str]) -> "EventSet":
        """The same events with some of their keypoints, in the order given.

        Without locations the names are taken as they are, for there is nothing to choose from.

        Raises:
            DatasetError: If a name is unknown or given twice, or no name is given.
        """
        valid = ", ".join(self.keypoints)
        if not names or len(set(names)) != len(names):
            raise DatasetError(
                f"data/keypoints must name each keypoint once, but is {list(names)}; valid: {valid}"
            )
        unknown = [name for name in names if name not in self.keypoints]
        if unknown and self.files[0].locations_mm is not None:
            raise DatasetError(
                f"{self.files[0].path}: data/keypoints asks for {unknown[0]!r}, which the file does "
                f"not have; valid: {valid}"
            )
        return EventSet(self.files, self.rows, tuple(names))

    def fingerprint(self) -> str:
        """Hash of the content of the files and of what is chosen from them, 32 hex digits."""
        digest = hashlib.blake2b(digest_size=16)
        for file in self.files:
            digest.update(file.fingerprint().encode())
        digest.update(self.rows.tobytes())
        digest.update("\0".join(self.keypoints).encode())
        return digest.hexdigest()


def list_event_files(path: Path) -> list[Path]:
    """A file itself, the shards that a folder's manifest lists, or its ``.h5`` and ``.hdf5`` files by name.

    Raises:
        DatasetError: If the path does not exist, the folder has no such file, or a shard is missing.
    """
    path = Path(path).expanduser().absolute()
    try:
        if not path.is_dir():
            return [path]
        manifest = read_manifest(path)
        if manifest is not None:
            return manifest.paths
        found = sorted(entry for entry in path.iterdir() if _is_event_file(entry))
    except OSError as error:
        raise DatasetError(f"{path}: the folder cannot be listed ({error.strerror})") from None
    if not found:
        raise DatasetError(f"{path}: the folder has no file ending in {' or '.join(FILE_SUFFIXES)}")
    return found


def _real_path(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):  # a circle of links: opening it will tell
        return path


def _is_event_file(path: Path) -> bool:
    return path.suffix in FILE_SUFFIXES and path.is_file() and not path.name.startswith(".")


def open_events(paths: Path | Sequence[Path]) -> EventSet:
    """Open all events of files, or of the ``.h5`` and ``.hdf5`` files of folders.

    Raises:
        DatasetError: If a file is missing, wrong or listed twice, or the files do not belong together.
    """
    asked = [paths] if isinstance(paths, str | Path) else list(paths)
    found = [file for path in asked for file in list_event_files(path)]
    if not found:
        raise DatasetError("no file of events was given; name a file or a folder of .h5 files")
    seen: set[Path] = set()
    for path in found:
        place = _real_path(path)
        if place in seen:
            raise DatasetError(f"{path}: is given twice; its events would count twice")
        seen.add(place)
    return EventSet([open_event_file(path) for path in found])


def open_chosen(paths: Path | Sequence[Path], index: Path | None) -> EventSet:
    """Open the events of files that an index file names; without one, all.

    Raises:
        DatasetError: See ``open_events`` and ``read_indices``.
    """
    events = open_events(paths)
    return events if index is None else events.subset(read_indices(index, len(events)))


def recording_setup(events: EventSet, data_config: DataConfig) -> RecordingSetup:
    """Put together what the files and the config say of the recording site.

    The config fills what the files do not say, and has the last word where both speak.

    Args:
        events: Their files must agree with each other.
        data_config: ``sample_rate_hz``, ``arena_mm`` and ``keypoints`` are used.

    Raises:
        DatasetError: If files disagree, or neither they nor the config state the sample rate or arena.
    """
    stated = check_same_site(events.files)
    path = events.files[0].path
    sample_rate_hz = stated_sample_rate_hz(events, data_config)
    arena_mm = data_config.arena_mm or stated["arena_mm"]
    if arena_mm is None:
        raise DatasetError(
            f"{path}: neither the attribute 'arena_mm' of the file nor the config states the widths of "
            "the arena; add for example --set data/arena_mm='[572, 356]'"
        )
    if len(arena_mm) not in (2, 3) or len(arena_mm) < events.num_axes:
        raise DatasetError(
            f"{path}: locations have {events.num_axes} axes, but arena_mm is {list(arena_mm)}; give "
            "the full widths of x, y and, for 3 axes, z: --set data/arena_mm='[572, 356, 400]'"
        )
    if data_config.keypoints is not None:
        events = events.select_keypoints(data_config.keypoints)
    return RecordingSetup(
        num_microphones=events.num_microphones,
        sample_rate_hz=sample_rate_hz,
        arena_mm=tuple(float(width) for width in arena_mm),
        microphones_mm=stated["microphones_mm"],
        keypoints=events.keypoints or (DEFAULT_KEYPOINT,),
        num_axes=events.num_axes,
    )


def stated_sample_rate_hz(events: EventSet, data_config: DataConfig) -> float:
    """Sample rate by the config, else by the files.

    Raises:
        DatasetError: If neither states one, or files disagree.
    """
    rate_hz = data_config.sample_rate_hz or check_same_site(events.files)["sample_rate_hz"]
    if rate_hz is None:
        raise DatasetError(
            f"{events.files[0].path}: neither the attribute 'sample_rate_hz' of the file nor the config "
            "states the sample rate; add for example --set data/sample_rate_hz=125000"
        )
    return float(rate_hz)


def check_same_site(files: Sequence[EventFile]) -> dict[str, Any]:
    """Return sample_rate_hz, arena_mm and microphones_mm as files state them, None where none does.

    Raises:
        DatasetError: If two files state different values.
    """
    stated: dict[str, Any] = {}
    for name in ("sample_rate_hz", "arena_mm", "microphones_mm"):
        speakers = [file for file in files if getattr(file, name) is not None]
        stated[name] = getattr(speakers[0], name) if speakers else None
        for file in speakers[1:]:
            if not np.array_equal(getattr(file, name), stated[name]):
                raise DatasetError(
                    f"{file.path}: attribute {name!r} is {getattr(file, name)}, but {stated[name]} in "
                    f"{speakers[0].path}; files used together must come from one recording site"
                )
    return stated


def _check_alike(files: Sequence[EventFile]) -> None:
    """Raise unless the files agree in all that the shape and type of a batch depend on."""
    if not files:
        raise DatasetError("no file of events was given; name a file or a folder of .h5 files")
    first = files[0]
    for file in files[1:]:
        for what, expected, received in zip(
            (
                "microphones",
                "kind of events",
                "kind of audio",
                "keypoints",
                "shape of a location",
                "animals",
            ),
            _facts(first),
            _facts(file),
            strict=True,
        ):
            if received != expected:
                raise DatasetError(
                    f"{file.path}: {what}: {received}, but {expected} in {first.path}; files used "
                    "together must agree"
                )


def _facts(file: EventFile) -> tuple[object, ...]:
    # Integers and floats have different full scales, so they cannot share a batch.
    kind = "integers" if file.dtype.kind == "i" else "floats"
    events = "impulse responses" if file.is_impulse_response else "recordings"
    shape = "none" if file.locations_mm is None else file.locations_mm.shape[1:]
    animals = "none" if file.animals is None else file.animals.facts
    return file.num_microphones, events, kind, ", ".join(file.keypoints), shape, animals


def _find_columns(file: EventFile, keypoints: tuple[str, ...]) -> list[int]:
    """Places of the chosen keypoints among those of a file; empty where it has nothing of them."""
    if file.locations_mm is None and not set(keypoints) <= set(file.keypoints):
        return []
    return [file.keypoints.index(name) for name in keypoints]
