"""HDF5 files of events, whose audio is read in place.

The audio is mapped into memory at its place in the file. The page cache then serves all processes of a
machine, nothing is copied but what a batch needs, and no HDF5 handle crosses a fork. Audio that cannot be
mapped, because it is chunked, compressed or of the fixed layout, is packed once into the cache and mapped
there. ``structure`` says which layouts there are.

Legend: n events, C microphones, T samples.
"""

import hashlib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from gerbil_tune.data.files.mapping import AudioMapping
from gerbil_tune.data.files.packing import packed_file
from gerbil_tune.data.files.statistics import StatisticsTable
from gerbil_tune.data.files.structure import (
    CONTIGUOUS,
    STATISTICS_DATASETS,
    Structure,
    audio_dataset,
    read_structure,
)
from gerbil_tune.errors import DatasetError

_FINGERPRINT_BLOCKS = 64
_FINGERPRINT_SAMPLES = 1024


@dataclass(frozen=True, eq=False, kw_only=True)
class EventFile(Structure):
    """One file of events; the audio is mapped when first read.

    It can be pickled: the other process maps the file anew. A forked process shares the mapping, which is
    read-only.

    Attributes:
        audio_path: File in which the audio lies in one piece: ``path``, or its packed copy in the cache.
        audio_offset_bytes: Where the audio begins in ``audio_path``.
    """

    audio_path: Path
    audio_offset_bytes: int
    _map: AudioMapping | None = field(default=None, init=False, repr=False)
    _statistics: StatisticsTable | None = field(default=None, init=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        # The default would pickle the whole audio.
        state = {item.name: getattr(self, item.name) for item in fields(self)}
        return {**state, "_map": None, "_statistics": None}

    @property
    def end_bytes(self) -> int:
        """Where the audio ends in ``audio_path``."""
        values = self.total_samples * self.num_microphones
        return self.audio_offset_bytes + values * self.dtype.itemsize

    def audio(self) -> npt.NDArray[Any]:
        """All audio of the file, (total_samples, C) in the file's dtype, read-only.

        Raises:
            DatasetError: If the file has gone or has become shorter since it was opened.
        """
        return self.mapping().audio

    def mapping(self) -> AudioMapping:
        """The mapped audio of the file.

        Raises:
            DatasetError: If the file has gone or has become shorter since it was opened.
        """
        if self._map is None:
            shape = (self.total_samples, self.num_microphones)
            try:
                opened = AudioMapping(self.audio_path, self.dtype, shape, self.audio_offset_bytes)
            except (OSError, ValueError) as error:
                raise DatasetError(
                    f"{self.audio_path}: the audio cannot be mapped any more ({error}); was the file moved "
                    "or rewritten after the start, or is it not on this machine?"
                ) from None
            object.__setattr__(self, "_map", opened)
            return opened
        return self._map

    def check_unchanged(self) -> None:
        """Notice a file that is being cut short, before reading beyond its end kills the process.

        Raises:
            DatasetError: If the file has gone or does not reach as far as its audio.
        """
        try:
            size = self.audio_path.stat().st_size
        except OSError as error:
            raise DatasetError(
                f"{self.audio_path}: cannot be read any more ({error.strerror}); leave the files in place "
                "while they are used"
            ) from None
        if size < self.end_bytes:
            raise DatasetError(
                f"{self.audio_path}: has become shorter while it was read ({size} of {self.end_bytes} "
                "bytes); leave the files as they are while they are used"
            )

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
        return self.audio()[first + start : last]

    def statistics(self) -> StatisticsTable:
        """Mean and standard deviation of the events, in the unit of the audio."""
        if self._statistics is None:
            object.__setattr__(self, "_statistics", StatisticsTable(self))
        assert self._statistics is not None
        return self._statistics

    def fingerprint(self) -> str:
        """Hash of the content: shapes, index, locations, tracks and 64 blocks of the audio, 32 hex digits.

        It does not depend on the path, the layout or the storage, and takes milliseconds.
        """
        digest = hashlib.blake2b(digest_size=16)
        digest.update(f"{self.dtype.str} {self.total_samples} {self.num_microphones}".encode())
        digest.update(np.ascontiguousarray(self.starts).tobytes())
        if self.locations_mm is not None:
            digest.update(str(self.locations_mm.shape).encode())
            digest.update(np.ascontiguousarray(self.locations_mm).tobytes())
        if self.animals is not None:
            digest.update(self.animals.facts.encode())
            digest.update(np.ascontiguousarray(self.animals.tracks_mm).tobytes())
        audio = self.audio()
        last_block = max(self.total_samples - _FINGERPRINT_SAMPLES, 0)
        for first in np.unique(np.linspace(0, last_block, _FINGERPRINT_BLOCKS).astype(np.int64)):
            digest.update(audio[first : first + _FINGERPRINT_SAMPLES].tobytes())
        return digest.hexdigest()


def open_event_file(path: Path) -> EventFile:
    """Read everything but the audio of a file of events, and check its structure.

    Audio that cannot be mapped is packed into the cache first, which is said on standard error.

    Raises:
        DatasetError: If the file does not exist, is no HDF5, lacks a dataset, or a dataset has a wrong
            shape, type or storage; the message says what to do.
    """
    path = Path(path).expanduser().absolute()
    _check_readable(path)
    try:
        source = h5py.File(path, "r", locking="best-effort")
    except OSError as error:
        raise DatasetError(
            f"{path}: cannot be opened as HDF5 ({error}); it may be cut short, still being written, "
            "or of another format"
        ) from None
    with source:
        try:
            structure = read_structure(path, source)
        except (OSError, RuntimeError, KeyError) as error:
            raise DatasetError(
                f"{path}: is damaged, a part of it cannot be read ({error}); copy or record it again"
            ) from None
        audio = audio_dataset(source, structure.layout)
        if structure.storage == CONTIGUOUS:
            return _with_audio(structure, path, audio)
    packed = packed_file(structure)
    with h5py.File(packed, "r") as copy:
        return _with_audio(structure, packed, copy["audio"])


def _with_audio(structure: Structure, audio_path: Path, audio: h5py.Dataset) -> EventFile:
    described = {item.name: getattr(structure, item.name) for item in fields(structure)}
    if structure.storage != CONTIGUOUS:
        mean, sd = (audio.parent[name][:] for name in STATISTICS_DATASETS)
        described |= {"dtype": audio.dtype, "mean_NC": mean, "sd_NC": sd}
    return EventFile(
        **described, audio_path=audio_path, audio_offset_bytes=int(audio.id.get_offset())
    )


def _check_readable(path: Path) -> None:
    """Raise with the reason where a path is no file that can be read."""
    try:
        if not path.is_file():
            found = "is a folder" if path.is_dir() else "does not exist"
            raise DatasetError(f"{path}: {found}, but a file of events (HDF5) was expected")
        with path.open("rb") as stream:
            if not stream.read(1):
                raise DatasetError(f"{path}: the file is empty (0 bytes); copy or record it again")
    except PermissionError:
        raise DatasetError(
            f"{path}: may not be read by you; ask its owner for read permission (chmod a+r)"
        ) from None
    except OSError as error:  # a circle of links, a name that is too long, a disk that fails
        raise DatasetError(f"{path}: cannot be read ({error.strerror})") from None
