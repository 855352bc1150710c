"""What is in files of events, in a few numbers."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gerbil_tune.data.checks.findings import IntArray
from gerbil_tune.data.events import EventSet
from gerbil_tune.data.files.formats import EventFile


@dataclass(frozen=True, slots=True)
class Lengths:
    """How many events there are, and how long they are.

    Attributes:
        events: How many.
        samples: Of all events together.
        shortest: Samples of the shortest event; 0 without events.
        median: Of the median event.
        longest: Of the longest event.
        sample_rate_hz: None where it is unknown.
    """

    events: int
    samples: int
    shortest: int
    median: float
    longest: int
    sample_rate_hz: float | None

    @classmethod
    def of(cls, lengths: IntArray, sample_rate_hz: float | None) -> "Lengths":
        """Summarize lengths in samples, int64 (N,)."""
        if not len(lengths):
            return cls(0, 0, 0, 0.0, 0, sample_rate_hz)
        return cls(
            len(lengths),
            int(lengths.sum()),
            int(lengths.min()),
            float(np.median(lengths)),
            int(lengths.max()),
            sample_rate_hz,
        )

    @property
    def seconds(self) -> float | None:
        """All events together, in seconds."""
        return None if self.sample_rate_hz is None else self.samples / self.sample_rate_hz

    @property
    def range_ms(self) -> tuple[float, float, float] | None:
        """Shortest, median and longest event in milliseconds."""
        if self.sample_rate_hz is None:
            return None
        to_ms = 1000 / self.sample_rate_hz
        return self.shortest * to_ms, self.median * to_ms, self.longest * to_ms

    def to_json(self) -> dict[str, Any]:
        """Return a dictionary that ``json`` can write; None where the sample rate would be needed."""
        milliseconds = self.range_ms or (None, None, None)
        names = ("shortest_ms", "median_ms", "longest_ms")
        return {
            "events": self.events,
            "samples": self.samples,
            "seconds": self.seconds,
            **dict(zip(names, milliseconds, strict=True)),
        }


@dataclass(frozen=True, slots=True)
class FileSummary:
    """What is in one file.

    Attributes:
        path: Of the file.
        layout: Whose dataset names it has.
        storage: How its audio is stored.
        dtype: Of its audio in memory.
        size_bytes: Of the file.
        lengths: Its events.
        microphones: How many.
        arena_mm: Full widths that the file or the config states; None where neither does.
        keypoints: Their names.
        axes: 2 or 3; None without locations.
        groups: How many groups of events the file states; None where it states none.
        states_onsets: Whether it says when its events began.
        animals: Names of those whose tracks it has; empty without tracks.
    """

    path: str
    layout: str
    storage: str
    dtype: str
    size_bytes: int
    lengths: Lengths
    microphones: int
    arena_mm: tuple[float, ...] | None
    keypoints: tuple[str, ...]
    axes: int | None
    groups: int | None
    states_onsets: bool
    animals: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        file: EventFile,
        sample_rate_hz: float | None,
        arena_mm: tuple[float, ...] | None,
    ) -> "FileSummary":
        """Summarize a file.

        Args:
            file: The file.
            sample_rate_hz: What the config says in its place.
            arena_mm: Likewise.
        """
        locations = file.locations_mm
        return cls(
            path=str(file.path),
            layout=file.layout,
            storage=file.storage,
            dtype=str(file.dtype),
            size_bytes=file.path.stat().st_size,
            lengths=Lengths.of(np.diff(file.starts), sample_rate_hz or file.sample_rate_hz),
            microphones=file.num_microphones,
            arena_mm=arena_mm or file.arena_mm,
            keypoints=file.keypoints,
            axes=None if locations is None else locations.shape[2],
            groups=None if file.groups is None else len(np.unique(file.groups)),
            states_onsets=file.onsets_s is not None,
            animals=() if file.animals is None else file.animals.names,
        )

    @property
    def is_labelled(self) -> bool:
        """Whether the file has locations."""
        return self.axes is not None

    def to_json(self) -> dict[str, Any]:
        """Return a dictionary that ``json`` can write."""
        values = asdict(self)
        del values["lengths"]
        lengths = self.lengths.to_json()
        rate = self.lengths.sample_rate_hz
        return {**values, **lengths, "sample_rate_hz": rate, "labelled": self.is_labelled}


@dataclass(frozen=True, slots=True)
class SetSummary:
    """Events that are used together: all, or one part of a split.

    Attributes:
        name: ``all``, ``train_set``, ``val_set`` or ``test_set``.
        files: Paths of the files that its events are in.
        lengths: Its events.
        groups: How many groups of events it has; None where no file states groups.
    """

    name: str
    files: tuple[str, ...]
    lengths: Lengths
    groups: int | None

    @classmethod
    def of(cls, name: str, events: EventSet, sample_rate_hz: float | None) -> "SetSummary":
        """Summarize a set."""
        used: Sequence[int] = np.unique(events.file_numbers).tolist()
        groups = events.groups
        return cls(
            name,
            tuple(str(events.files[number].path) for number in used),
            Lengths.of(events.lengths, sample_rate_hz),
            None if groups is None else len(np.unique(groups)),
        )

    def to_json(self) -> dict[str, Any]:
        """Return a dictionary that ``json`` can write."""
        lengths = self.lengths.to_json()
        return {"name": self.name, "files": list(self.files), **lengths, "groups": self.groups}
