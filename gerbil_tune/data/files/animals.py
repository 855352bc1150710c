"""Where several animals were during each event of a file, and which of them called where that is known.

    tracks         float (n, A, K, D)   in the unit and from the origin of the locations; NaN: not seen
    emitter        integer (n,)         place of the caller in ``tracks``, -1: unknown; optional
    animal_names   text (A,)            optional; default: 0, 1, ...

Legend: n events, A animals, K keypoints, D axes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from gerbil_tune.data.files.columns import read_column, read_names
from gerbil_tune.errors import DatasetError

TRACKS, EMITTER, NAMES = "tracks", "emitter", "animal_names"
UNKNOWN = -1
"""Emitter of an event whose caller is not known."""


@dataclass(frozen=True, eq=False, slots=True)
class Animals:
    """Tracks of several animals.

    Attributes:
        tracks_mm: float32 (n, A, K, D) from the arena centre; NaN where an animal was not seen.
        names: Of the A animals.
        emitters: int64 (n,), place of the animal that called, -1: unknown; None where no file says.
    """

    tracks_mm: npt.NDArray[np.float32]
    names: tuple[str, ...]
    emitters: npt.NDArray[np.int64] | None = None

    @property
    def facts(self) -> str:
        """What the animals of files that are used together agree in."""
        num_animals, num_keypoints, num_axes = self.tracks_mm.shape[1:]
        return (
            f"{num_animals} animals {', '.join(self.names)} with {num_keypoints} keypoints in {num_axes} "
            "axes"
        )

    @classmethod
    def joined(cls, parts: "Sequence[Animals]") -> "Animals":
        """The animals of files that agree, one after the other."""
        if len(parts) == 1:
            return parts[0]
        emitters = [
            np.full(len(part.tracks_mm), UNKNOWN) if part.emitters is None else part.emitters
            for part in parts
        ]
        is_known = any(part.emitters is not None for part in parts)
        return cls(
            np.concatenate([part.tracks_mm for part in parts]),
            parts[0].names,
            np.concatenate(emitters) if is_known else None,
        )

    def chosen(self, rows: npt.NDArray[np.int64], keypoints: Sequence[int]) -> "Animals":
        """Some of the events and keypoints."""
        return replace(
            self,
            tracks_mm=self.tracks_mm[rows][:, :, list(keypoints)],
            emitters=None if self.emitters is None else self.emitters[rows],
        )

    def columns(self) -> Iterator[tuple[str, npt.NDArray[Any]]]:
        """Datasets that state it, by name."""
        yield TRACKS, self.tracks_mm
        yield NAMES, np.array([name.encode() for name in self.names])
        if self.emitters is not None:
            yield EMITTER, self.emitters


def read_animals(
    path: Path, source: h5py.File, num_events: int, mm_per_unit: float
) -> Animals | None:
    """Read the tracks of several animals, or None if there are none.

    Raises:
        DatasetError: If a dataset has a wrong shape, type or content.
    """
    if TRACKS not in source:
        return None
    stored = source[TRACKS]
    wanted = f"({num_events}, animals, keypoints, axes) with 2 or 3 axes, one row an event"
    if not isinstance(stored, h5py.Dataset) or stored.dtype.kind not in "iuf":
        raise DatasetError(f"{path}: {TRACKS!r} must be a dataset of numbers of shape {wanted}")
    if (
        stored.ndim != 4
        or len(stored) != num_events
        or stored.shape[3] not in (2, 3)
        or 0 in stored.shape
    ):
        raise DatasetError(
            f"{path}: dataset {TRACKS!r} has shape {stored.shape}, but must be {wanted}"
        )
    tracks_mm = np.asarray(stored[:].astype(np.float64) * mm_per_unit, np.float32)
    num_animals = stored.shape[1]
    emitters = read_column(path, source, EMITTER, num_events, "iu", np.int64)
    if emitters is not None and not ((emitters >= UNKNOWN) & (emitters < num_animals)).all():
        wrong = int(emitters[(emitters < UNKNOWN) | (emitters >= num_animals)][0])
        raise DatasetError(
            f"{path}: dataset {EMITTER!r} must hold the place of an animal in {TRACKS!r}, 0 to "
            f"{num_animals - 1}, or {UNKNOWN} for unknown, but holds {wrong}"
        )
    return Animals(tracks_mm, _names(path, source, num_animals), emitters)


def _names(path: Path, source: h5py.File, num_animals: int) -> tuple[str, ...]:
    if NAMES not in source:
        return tuple(str(number) for number in range(num_animals))
    names = read_names(path, source, NAMES, "animal")
    if len(names) != num_animals or len(set(names)) != num_animals:
        raise DatasetError(
            f"{path}: dataset {NAMES!r} must name each of the {num_animals} animals in {TRACKS!r} once, but "
            f"is {list(names)}"
        )
    return names
