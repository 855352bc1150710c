"""HDF5 files of events in the layouts of Gerbilizer and vocalocator, read in place.

    gerbilizer    vocalizations (total, C)   len_idx (n+1,)      locations (n, 2)
    vocalocator   audio (total, C)           length_idx (n+1,)   locations (n, D) or (n, K, D)

Event i is the samples [index[i], index[i+1]). Optional in both: ``node_names`` (K,) of the keypoints,
``group_ids`` or ``session_ids`` (n,) of integers, and attributes of the file: sample_rate_hz, arena_mm,
microphones_mm, units (of the locations), origin.

The audio is mapped into memory at its place in the file. The page cache then serves all processes of a
machine, nothing is copied but what a batch needs, and no HDF5 handle crosses a fork.

Legend: n events, C microphones, T samples, K keypoints, D axes.
"""

import hashlib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import numpy.typing as npt

from gerbil_tune.data import attributes
from gerbil_tune.errors import DatasetError

Layout = Literal["gerbilizer", "vocalocator"]
LAYOUTS: dict[Layout, tuple[str, str]] = {
    "gerbilizer": ("vocalizations", "len_idx"),
    "vocalocator": ("audio", "length_idx"),
}
GROUP_DATASETS = ("group_ids", "session_ids")
DEFAULT_KEYPOINT = "nose"
_FINGERPRINT_BLOCKS = 64
_FINGERPRINT_SAMPLES = 1024


@dataclass(frozen=True, eq=False)
class EventFile:
    """One file of events, described; the audio is mapped when first read.

    It can be pickled: the other process maps the file anew. A forked process shares the mapping, which is
    read-only.

    Attributes:
        path: Absolute path.
        layout: Whose dataset names the file has.
        num_microphones: C.
        dtype: Of the audio in the file, byte order included.
        audio_offset_bytes: Where the audio begins in the file.
        total_samples: Rows of the audio.
        starts: int64 (n+1,); event i is the samples [starts[i], starts[i+1]).
        locations_mm: float32 (n, K, D) from the arena centre, or None.
        keypoints: Names of the K keypoints; empty where neither locations nor names are in the file.
        sample_rate_hz: Samples a second, None where the file does not say.
        arena_mm: Full widths of the arena, None where the file does not say.
        microphones_mm: (x, y, z) of each microphone, None where the file does not say.
        groups: int64 (n,), events of one number belong together; None where the file does not say.
        states_units: Whether the file says in which unit its locations are.
    """

    path: Path
    layout: Layout
    num_microphones: int
    dtype: np.dtype[Any]
    audio_offset_bytes: int
    total_samples: int
    starts: npt.NDArray[np.int64]
    locations_mm: npt.NDArray[np.float32] | None = None
    keypoints: tuple[str, ...] = ()
    sample_rate_hz: float | None = None
    arena_mm: tuple[float, ...] | None = None
    microphones_mm: tuple[tuple[float, float, float], ...] | None = None
    groups: npt.NDArray[np.int64] | None = None
    states_units: bool = False
    _map: "np.memmap[Any, Any] | None" = field(default=None, init=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        # The default would pickle the whole audio.
        state = {item.name: getattr(self, item.name) for item in fields(self)}
        return {**state, "_map": None}

    @property
    def num_events(self) -> int:
        """Events in the file."""
        return len(self.starts) - 1

    def audio(self) -> "np.memmap[Any, Any]":
        """All audio of the file, (total_samples, C) in the file's dtype, read-only.

        Raises:
            DatasetError: If the file has gone or has become shorter since it was opened.
        """
        if self._map is None:
            shape = (self.total_samples, self.num_microphones)
            try:
                opened: np.memmap[Any, Any] = np.memmap(
                    self.path, self.dtype, mode="r", offset=self.audio_offset_bytes, shape=shape
                )
            except (OSError, ValueError) as error:
                raise DatasetError(
                    f"{self.path}: the audio cannot be mapped any more ({error}); "
                    "was the file moved or rewritten after the start?"
                ) from None
            object.__setattr__(self, "_map", opened)
            return opened
        return self._map

    def read(self, i: int, start: int = 0, stop: int | None = None) -> npt.NDArray[Any]:
        """Samples [start, stop) of event i without a copy.

        Args:
            i: Event, 0 <= i < num_events.
            start: First sample, counted from the event's.
            stop: End; None or beyond the event: the event's end.

        Returns:
            A read-only view (T, C) in the file's dtype.
        """
        first, last = int(self.starts[i]), int(self.starts[i + 1])
        if stop is not None:
            last = min(last, first + stop)
        return self.audio().view(np.ndarray)[first + start : last]

    def fingerprint(self) -> str:
        """Hash of the content: shapes, index, locations and 64 blocks of the audio, as 32 hex digits.

        It does not depend on the path or the layout, and takes milliseconds.
        """
        digest = hashlib.blake2b(digest_size=16)
        digest.update(f"{self.dtype.str} {self.total_samples} {self.num_microphones}".encode())
        digest.update(np.ascontiguousarray(self.starts).tobytes())
        if self.locations_mm is not None:
            digest.update(str(self.locations_mm.shape).encode())
            digest.update(np.ascontiguousarray(self.locations_mm).tobytes())
        audio = self.audio()
        last_block = max(self.total_samples - _FINGERPRINT_SAMPLES, 0)
        for first in np.unique(np.linspace(0, last_block, _FINGERPRINT_BLOCKS).astype(np.int64)):
            digest.update(audio[first : first + _FINGERPRINT_SAMPLES].tobytes())
        return digest.hexdigest()


def open_event_file(path: Path) -> EventFile:
    """Read everything but the audio of a file of events, and check its structure.

    Raises:
        DatasetError: If the file does not exist, is no HDF5, lacks a dataset, or a dataset has a wrong
            shape, type or storage; the message says what to do.
    """
    path = Path(path).expanduser().absolute()
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "does not exist"
        raise DatasetError(f"{path}: {found}, but a file of events (HDF5) was expected")
    if path.stat().st_size == 0:
        raise DatasetError(f"{path}: the file is empty (0 bytes); copy or record it again")
    try:
        source = h5py.File(path, "r", locking="best-effort")
    except OSError as error:
        raise DatasetError(
            f"{path}: cannot be opened as HDF5 ({error}); it may be cut short, still being written, "
            "or of another format"
        ) from None
    with source:
        return _describe(path, source)


def _describe(path: Path, source: h5py.File) -> EventFile:
    layout = _find_layout(path, source)
    audio_name, index_name = LAYOUTS[layout]
    audio = source[audio_name]
    _check_audio(path, audio_name, audio)
    starts = _read_starts(path, source, index_name, audio.shape[0])
    num_events = len(starts) - 1
    site = attributes.read_site(path, source, num_microphones=audio.shape[1])
    locations = _read_locations(path, source, num_events, site.mm_per_unit)
    return EventFile(
        path=path,
        layout=layout,
        num_microphones=audio.shape[1],
        dtype=audio.dtype,
        audio_offset_bytes=_find_offset(path, audio_name, audio),
        total_samples=audio.shape[0],
        starts=starts,
        locations_mm=locations,
        keypoints=_read_keypoints(path, source, locations),
        sample_rate_hz=site.sample_rate_hz,
        arena_mm=site.arena_mm,
        microphones_mm=site.microphones_mm,
        groups=_read_groups(path, source, num_events),
        states_units=site.states_units,
    )


def _find_layout(path: Path, source: h5py.File) -> Layout:
    found = [layout for layout, (audio, _) in LAYOUTS.items() if audio in source]
    if len(found) == 1:
        return found[0]
    both = " or ".join(f"{audio!r} with {index!r}" for audio, index in LAYOUTS.values())
    if found:
        raise DatasetError(
            f"{path}: has the audio of both layouts, but must have {both}; delete one pair"
        )
    if "rir" in source:
        raise DatasetError(
            f"{path}: holds room impulse responses ('rir'), but audio is needed: {both}; "
            "convolve them with vocalizations first"
        )
    names = ", ".join(sorted(source)) or "none"
    raise DatasetError(f"{path}: needs the datasets {both}, but has: {names}")


def _check_audio(path: Path, name: str, audio: Any) -> None:
    """Raise unless this is a dataset (total, C) of integers or floats that is not empty."""
    if not isinstance(audio, h5py.Dataset):
        raise DatasetError(
            f"{path}: {name!r} is a group, but must be a dataset (samples, microphones)"
        )
    if audio.ndim != 2:
        advice = (
            "concatenate the events along the samples and write where each begins"
            if audio.ndim == 3
            else "one column a microphone"
        )
        raise DatasetError(
            f"{path}: dataset {name!r} has shape {audio.shape}, but must be (samples, microphones); "
            f"{advice}"
        )
    if audio.size == 0:
        raise DatasetError(
            f"{path}: dataset {name!r} has shape {audio.shape}: there is no audio in it"
        )
    if audio.dtype.kind not in "if":
        raise DatasetError(
            f"{path}: dataset {name!r} has type {audio.dtype}, but must be of signed integers or floats"
        )


def _find_offset(path: Path, name: str, audio: h5py.Dataset) -> int:
    """Byte at which the audio begins, for audio that lies in the file in one piece."""
    offset = audio.id.get_offset()
    if offset is None or audio.external:
        how = "outside this file or not in one piece"
        if audio.chunks is not None:
            how = f"in {audio.compression}-compressed chunks" if audio.compression else "in chunks"
        raise DatasetError(
            f"{path}: dataset {name!r} is stored {how}, but must be contiguous to be read in place; "
            f"rewrite it once: h5repack -l CONTI -f NONE {path.name} contiguous_{path.name}"
        )
    if offset + audio.size * audio.dtype.itemsize > path.stat().st_size:
        raise DatasetError(f"{path}: is shorter than dataset {name!r} says; copy it again")
    return int(offset)


def _read_starts(
    path: Path, source: h5py.File, name: str, total_samples: int
) -> npt.NDArray[np.int64]:
    """Read the index, int64 (n+1,)."""
    if name not in source:
        raise DatasetError(
            f"{path}: dataset {name!r} is missing; it must hold the first sample of each event and, "
            "last, the end of the last event"
        )
    stored = source[name]
    if not isinstance(stored, h5py.Dataset) or stored.ndim != 1 or stored.dtype.kind not in "iu":
        raise DatasetError(f"{path}: {name!r} must be a 1-D dataset of integers")
    if len(stored) < 2:
        raise DatasetError(
            f"{path}: dataset {name!r} has {len(stored)} entries, but must have one more than there "
            "are events: there is no event in the file"
        )
    starts = stored[:].astype(np.int64)
    falls = np.flatnonzero(np.diff(starts) < 0)
    if len(falls):
        i = int(falls[0])
        raise DatasetError(
            f"{path}: dataset {name!r} must not descend, but goes from {starts[i]} to "
            f"{starts[i + 1]} at entry {i + 1}"
        )
    if starts[0] < 0 or starts[-1] > total_samples:
        raise DatasetError(
            f"{path}: dataset {name!r} goes from {starts[0]} to {starts[-1]}, but must stay within the "
            f"{total_samples} samples of the audio"
        )
    return np.asarray(starts)


def _read_locations(
    path: Path, source: h5py.File, num_events: int, mm_per_unit: float
) -> npt.NDArray[np.float32] | None:
    """Read the locations as (n, K, D) in mm, or None if there are none."""
    if "locations" not in source:
        return None
    stored = source["locations"]
    if not isinstance(stored, h5py.Dataset) or stored.dtype.kind not in "iuf":
        raise DatasetError(f"{path}: 'locations' must be a dataset of numbers")
    if stored.ndim not in (2, 3) or stored.shape[-1] not in (2, 3) or 0 in stored.shape[1:]:
        raise DatasetError(
            f"{path}: dataset 'locations' has shape {stored.shape}, but must be (events, axes) or "
            "(events, keypoints, axes) with 2 or 3 axes"
        )
    if len(stored) != num_events:
        raise DatasetError(
            f"{path}: dataset 'locations' has {len(stored)} entries, but the index has {num_events} "
            "events; the index must have one entry more than the locations"
        )
    in_mm = stored[:].astype(np.float64) * mm_per_unit
    return np.asarray(in_mm.reshape(num_events, -1, stored.shape[-1]), dtype=np.float32)


def _read_keypoints(
    path: Path, source: h5py.File, locations: npt.NDArray[Any] | None
) -> tuple[str, ...]:
    """Names of the keypoints: ``node_names``, or made up where the file has none."""
    if "node_names" in source:
        stored = np.atleast_1d(np.asarray(source["node_names"][()]))
        names = tuple(name.decode() if isinstance(name, bytes) else str(name) for name in stored)
        if len(set(names)) != len(names):
            raise DatasetError(f"{path}: dataset 'node_names' names a keypoint twice: {names}")
        if locations is not None and len(names) != locations.shape[1]:
            raise DatasetError(
                f"{path}: dataset 'node_names' has {len(names)} names, but 'locations' has "
                f"{locations.shape[1]} keypoints"
            )
        return names
    if locations is None:
        return ()
    if locations.shape[1] == 1:
        return (DEFAULT_KEYPOINT,)
    return tuple(f"keypoint_{k}" for k in range(locations.shape[1]))


def _read_groups(path: Path, source: h5py.File, num_events: int) -> npt.NDArray[np.int64] | None:
    for name in GROUP_DATASETS:
        if name not in source:
            continue
        stored = source[name]
        if (
            not isinstance(stored, h5py.Dataset)
            or stored.shape != (num_events,)
            or stored.dtype.kind not in "iu"
        ):
            raise DatasetError(
                f"{path}: {name!r} must be a dataset of one integer an event, of shape ({num_events},)"
            )
        return np.asarray(stored[:].astype(np.int64))
    return None
