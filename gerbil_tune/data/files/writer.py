"""Files of events written by this package: contiguous, vocalocator's layout, with statistics and checksum.

They hold ``audio`` (total, C), ``length_idx`` (n+1,), ``event_mean`` and ``event_sd`` (n, C) and, where
known, ``locations`` (n, K, D), ``node_names`` (K,), ``group_ids``, ``onsets_s`` and ``event_ids`` (n,), and
the tracks of several animals.
Attributes: those of the recording site, units, origin, the package's version, and a checksum of audio,
index and locations.

Legend: n events, C microphones, T samples, K keypoints, D axes.
"""

import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import numpy.typing as npt

from gerbil_tune import __version__
from gerbil_tune.data.files.statistics import event_statistics
from gerbil_tune.data.files.structure import (
    CHECKSUM_ATTRIBUTE,
    LAYOUTS,
    STATISTICS_DATASETS,
    Contents,
    Structure,
)
from gerbil_tune.units import ORIGIN, UNITS

if TYPE_CHECKING:
    from gerbil_tune.data.events import EventSet
    from gerbil_tune.data.files.formats import EventFile

_BLOCK_SAMPLES = 1 << 18


@dataclass(frozen=True, eq=False, kw_only=True)
class Header(Contents):
    """All of a file that is to be written, but its audio."""

    @classmethod
    def of_structure(cls, structure: Structure) -> "Header":
        """The header of a file of the same events in vocalocator's layout."""
        stated = {item.name: getattr(structure, item.name) for item in dataclasses.fields(cls)}
        return cls(**stated | {"layout": "vocalocator"})

    @classmethod
    def of_events(cls, events: "EventSet") -> "Header":
        """The header of a file of the events of a set, one after the other.

        Where a set has no event ids, they are the places of the events in the files that the set was made of.
        """
        site = {
            name: next((value for file in events.files if (value := getattr(file, name))), None)
            for name in ("sample_rate_hz", "arena_mm", "microphones_mm")
        }
        # int32 beside int16, or float32 beside float64: the type that holds both.
        dtype = np.result_type(*(file.dtype.newbyteorder("=") for file in events.files))
        ids = events.event_ids
        starts = np.concatenate([[0], np.cumsum(events.lengths)]).astype(np.int64)
        return cls(
            layout="rir" if events.is_impulse_response else "vocalocator",
            dtype=dtype,
            num_microphones=events.num_microphones,
            total_samples=int(starts[-1]),
            starts=starts,
            locations_mm=events.locations_mm,
            keypoints=events.keypoints,
            groups=events.groups,
            onsets_s=events.onsets_s,
            event_ids=events.rows if ids is None else ids,
            animals=events.animals,
            **site,
        )

    @classmethod
    def of_rendered(cls, events: "EventSet", lengths: npt.NDArray[np.int64]) -> "Header":
        """The header of the recordings that impulse responses become.

        Args:
            events: The impulse responses.
            lengths: int64 (n,), samples of each recording.
        """
        starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        return dataclasses.replace(
            cls.of_events(events),
            layout="vocalocator",
            dtype=np.dtype(np.float32),
            total_samples=int(starts[-1]),
            starts=starts,
        )


class EventFileWriter:
    """Writes a file from its header and its audio, block after block; it gets its name when it is whole.

    Used with ``with``: an error or an interrupt inside removes what was written.
    """

    def __init__(self, path: Path, header: Header) -> None:
        self._path = path
        self._header = header
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
        self._digest = _begin_digest(header.dtype, header.total_samples, header.num_microphones)
        shape = (len(header.starts) - 1, 2, header.num_microphones)
        self._statistics_N2C = np.zeros(shape, np.float32)
        self._written = self._mapped = 0
        self._events_done = 0

    def __enter__(self) -> "EventFileWriter":
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._offset = self._create()
            self._stream = self._temporary.open("r+b")
            self._stream.seek(self._offset)
        except BaseException:
            self._temporary.unlink(missing_ok=True)
            raise
        return self

    def append(self, audio_TC: npt.NDArray[Any]) -> None:
        """Write the next samples; blocks need not end where events do."""
        block_TC = np.ascontiguousarray(audio_TC, self._header.dtype)
        self._stream.write(block_TC.data)
        self._digest.update(block_TC.data)
        self._written += len(block_TC)
        # Soon enough that the events are still in memory, seldom enough that mapping costs nothing.
        if self._written - self._mapped >= _BLOCK_SAMPLES:
            self._add_statistics()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._add_statistics()
            self._stream.close()
            if kind is None:
                self._finish()
        finally:
            self._temporary.unlink(missing_ok=True)

    def _create(self) -> int:
        """Lay the file out and return where its audio begins."""
        header = self._header
        audio_name, index_name = LAYOUTS[header.layout]
        shape = (header.total_samples, header.num_microphones)
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_layout(h5py.h5d.CONTIGUOUS)
        properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        with h5py.File(self._temporary, "w") as file:
            space = h5py.h5s.create_simple(shape)
            kind = h5py.h5t.py_create(header.dtype)
            audio = h5py.h5d.create(file.id, audio_name.encode(), kind, space, properties)
            file[index_name] = header.starts
            for name, values in _columns(header):
                file[name] = values
            for name, value in _attributes(header):
                file.attrs[name] = value
            offset = audio.get_offset()
        return int(offset)

    def _add_statistics(self) -> None:
        """Compute the statistics of the events that are written whole, while they are in the page cache."""
        starts = self._header.starts
        ready = int(np.searchsorted(starts[1:], self._written, side="right"))
        self._mapped = self._written
        if ready == self._events_done:
            return
        self._stream.flush()
        shape = (self._written, self._header.num_microphones)
        audio = np.memmap(self._temporary, self._header.dtype, "r", self._offset, shape)
        for i in range(self._events_done, ready):
            self._statistics_N2C[i] = event_statistics(audio[starts[i] : starts[i + 1]])
        self._events_done = ready

    def _finish(self) -> None:
        if self._written != self._header.total_samples:
            raise ValueError(
                f"{self._written} samples written, {self._header.total_samples} stated"
            )
        _end_digest(self._digest, self._header.starts, self._header.locations_mm)
        with h5py.File(self._temporary, "r+") as file:
            for place, name in enumerate(STATISTICS_DATASETS):
                file[name] = self._statistics_N2C[:, place]
            file.attrs[CHECKSUM_ATTRIBUTE] = self._digest.hexdigest()
        self._temporary.replace(self._path)


def write_events(
    path: Path, events: "EventSet", *, advance: Callable[[int], None] | None = None
) -> Path:
    """Write the events of a set, one after the other, as a file that is whole or not there.

    Args:
        path: The file; replaced where it exists.
        events: The set.
        advance: Is told how many events more are written.

    Returns:
        ``path``.
    """
    header = Header.of_events(events)
    with EventFileWriter(path, header) as writer:
        for i in range(len(events)):
            audio_TC = events.read(i)
            if audio_TC.dtype.kind == "i" and header.dtype.kind == "i":
                # Integers keep their full scale: int16 in a file of int32 is shifted to its upper half.
                shift = 8 * (header.dtype.itemsize - audio_TC.dtype.itemsize)
                audio_TC = audio_TC.astype(header.dtype) << shift
            writer.append(audio_TC)
            if advance is not None:
                advance(1)
    return path


def content_checksum(file: "EventFile", watch: Callable[[int], None] | None = None) -> str:
    """Checksum of the audio, index and locations that a file has now, 32 hex digits.

    Args:
        file: The file.
        watch: Is told how many bytes of audio more were read.
    """
    digest = _begin_digest(file.dtype, file.total_samples, file.num_microphones)
    audio = file.audio()
    for first in range(0, file.total_samples, _BLOCK_SAMPLES):
        block_TC = audio[first : first + _BLOCK_SAMPLES]
        digest.update(block_TC.data)
        if watch is not None:
            watch(block_TC.nbytes)
    _end_digest(digest, file.starts, file.locations_mm)
    return str(digest.hexdigest())


def _begin_digest(dtype: np.dtype[Any], total_samples: int, num_microphones: int) -> Any:
    digest = hashlib.blake2b(digest_size=16)
    digest.update(f"{dtype.str} {total_samples} {num_microphones}".encode())
    return digest


def _end_digest(
    digest: Any, starts: npt.NDArray[np.int64], locations_mm: npt.NDArray[np.float32] | None
) -> None:
    digest.update(np.ascontiguousarray(starts).tobytes())
    if locations_mm is not None:
        digest.update(np.ascontiguousarray(locations_mm).tobytes())


def _columns(header: Header) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """Datasets beside audio and index, by name."""
    if header.locations_mm is not None:
        yield "locations", header.locations_mm
    if header.keypoints:
        yield "node_names", np.array([name.encode() for name in header.keypoints])
    for name, values in (
        ("group_ids", header.groups),
        ("onsets_s", header.onsets_s),
        ("event_ids", header.event_ids),
    ):
        if values is not None:
            yield name, values
    if header.animals is not None:
        yield from header.animals.columns()


def _attributes(header: Header) -> Iterator[tuple[str, Any]]:
    for name in ("sample_rate_hz", "arena_mm", "microphones_mm"):
        value = getattr(header, name)
        if value is not None:
            yield name, value
    yield "units", UNITS
    yield "origin", ORIGIN
    yield "written_by", f"gerbil_tune {__version__}"
