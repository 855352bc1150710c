"""Which events belong together, so that a split keeps them on one side.

Neighbouring calls of one bout sound alike and come from one place. With some of them in training and some in
the test part, a network looks better than it is.

Legend: N events.
"""

from dataclasses import dataclass

import h5py
import numpy as np
import numpy.typing as npt

from gerbil_tune.data.events import EventSet
from gerbil_tune.data.files.columns import GROUP_DATASETS
from gerbil_tune.data.files.formats import EventFile
from gerbil_tune.data.files.index_files import Indices
from gerbil_tune.data.files.manifest import MANIFEST
from gerbil_tune.data.files.structure import CHECKSUM_ATTRIBUTE
from gerbil_tune.errors import ConfigError, DatasetError
from gerbil_tune.units import counted

AUTO, BY_FILE, BY_GAP, UNGROUPED = "auto", "file", "gap", "none"
DEFAULT_GAP_S = 1.0
FEWEST_GROUPS = 10
"""Files, or bouts, from which on a grouping that no file states is used without being asked for."""
_SESSIONS = "session_ids"
_NO_GROUPING = {
    *("units", "origin", "sample_rate_hz", "simulation", "written_by"),
    *(CHECKSUM_ATTRIBUTE, "event_ids"),
}
"""What files hold that is another for each event or file, or the same for all."""


@dataclass(frozen=True)
class Grouping:
    """Groups of events, and how they were found.

    Attributes:
        groups: int64 (N,), one number a group; None: each event goes by itself.
        group_by: ``file``, ``gap``, ``none`` or the name of a dataset or attribute.
        description: For the user, such as "312 bouts (at least 1 s apart)".
    """

    groups: Indices | None
    group_by: str
    description: str


def group_events(
    events: EventSet, group_by: str = AUTO, *, gap_s: float = DEFAULT_GAP_S
) -> Grouping:
    """Find the groups of events.

    Args:
        events: All events of the data: what is left out later must not divide a bout.
        group_by: ``file``: each file is a group. ``gap``: bouts, divided where ``gap_s`` or more lies
            between the onsets of an event and the next; they cross neither files nor ``session_ids``.
            ``none``. Another name: a 1-D dataset with an integer or text for each event, or an attribute of
            each file; equal values are one group in all files. ``auto``: ``group_ids`` or ``session_ids``
            where a file states them; else files, if there are at least 10 and they are not shards of one
            data set; else bouts, if all onsets are known and there are at least 10; else none.
        gap_s: Seconds, above 0.

    Raises:
        DatasetError: If a file does not have what is asked for.
        ConfigError: If ``gap_s`` is not above 0.
    """
    if not 0 < gap_s < float("inf"):
        raise ConfigError(f"--gap-s must be a number of seconds above 0, but is {gap_s:g}")
    if group_by == AUTO:
        return _group_automatically(events, gap_s)
    if group_by == UNGROUPED:
        return Grouping(None, UNGROUPED, "each event by itself")
    if group_by == BY_FILE:
        return _group_by_file(events)
    if group_by == BY_GAP:
        _check_onsets(events)
        return _group_by_gap(events, gap_s)
    return _group_by_name(events, group_by)


def _group_automatically(events: EventSet, gap_s: float) -> Grouping:
    groups = events.groups
    if groups is not None:
        return Grouping(
            groups, AUTO, f"{counted(_count(groups), 'group')} ({' or '.join(GROUP_DATASETS)})"
        )
    if len(events.files) >= FEWEST_GROUPS and not _are_shards(events.files):
        return _group_by_file(events)
    if events.onsets_s is not None and np.isfinite(events.onsets_s).all():
        bouts = _group_by_gap(events, gap_s)
        if bouts.groups is not None and _count(bouts.groups) >= FEWEST_GROUPS:
            return bouts
    return Grouping(None, UNGROUPED, "each event by itself (no groups or onsets are known)")


def _are_shards(files: tuple[EventFile, ...]) -> bool:
    """Whether the files are pieces of one data set, cut without regard to sessions."""
    return any((file.path.parent / MANIFEST).is_file() for file in files)


def _group_by_file(events: EventSet) -> Grouping:
    groups = np.asarray(events.file_numbers, dtype=np.int64)
    return Grouping(groups, BY_FILE, counted(_count(groups), "file"))


def _check_onsets(events: EventSet) -> None:
    for file in events.files:
        if file.onsets_s is None or not np.isfinite(file.onsets_s).all():
            raise DatasetError(
                f"{file.path}: grouping by gap needs the dataset 'onsets_s' with the second at which each "
                "event began, but the file has none or not for every event; add it or group by "
                "something else"
            )


def _group_by_gap(events: EventSet, gap_s: float) -> Grouping:
    """Bouts: within a file and session, onsets that lie less than ``gap_s`` apart."""
    onsets = events.onsets_s
    assert onsets is not None
    sessions = np.concatenate([_sessions(file) for file in events.files])[events.rows]
    order = np.lexsort((onsets, sessions, events.file_numbers))
    begins = np.diff(onsets[order]) >= gap_s
    for boundary in (sessions, events.file_numbers):
        begins |= np.diff(boundary[order]) != 0
    groups = np.empty(len(events), dtype=np.int64)
    groups[order] = np.concatenate([[0], np.cumsum(begins)])
    return Grouping(
        groups, BY_GAP, f"{counted(_count(groups), 'bout')} (at least {gap_s:g} s apart)"
    )


def _sessions(file: EventFile) -> npt.NDArray[np.int64]:
    """The session of each event of a file; zeros where the file has no such dataset."""
    with h5py.File(file.path, "r") as source:
        stored = source.get(_SESSIONS)
        if isinstance(stored, h5py.Dataset) and stored.shape == (file.num_events,):
            return np.unique(stored[:], return_inverse=True)[1].astype(np.int64)
    return np.zeros(file.num_events, dtype=np.int64)


def _group_by_name(events: EventSet, name: str) -> Grouping:
    values = np.concatenate([_read_values(file, name) for file in events.files])
    groups = np.unique(values[events.rows], return_inverse=True)[1].reshape(-1).astype(np.int64)
    return Grouping(groups, name, f"{counted(_count(groups), 'group')} of {name!r}")


def _read_values(file: EventFile, name: str) -> npt.NDArray[np.str_]:
    """Values of a dataset or attribute as text, one for each event of the file."""
    with h5py.File(file.path, "r") as source:
        stored = source.get(name)
        if stored is None and name in source.attrs:
            value = np.asarray(source.attrs[name])
            if value.ndim == 0 and value.dtype.kind in "iuSUO":
                return np.full(file.num_events, _as_text(value[()]))
        elif isinstance(stored, h5py.Dataset) and stored.shape == (file.num_events,):
            if h5py.check_string_dtype(stored.dtype) is not None:
                return np.array([_as_text(value) for value in stored[:]])
            if stored.dtype.kind in "iu":
                return np.asarray(stored[:], dtype=np.str_)
        valid = ", ".join([*_names_of_groupings(file, source), BY_FILE, BY_GAP, UNGROUPED])
    raise DatasetError(
        f"{file.path}: cannot group by {name!r}: it is no dataset of one integer or text for each of the "
        f"{file.num_events} events and no attribute with an integer or text; valid: {valid}"
    )


def _names_of_groupings(file: EventFile, source: h5py.File) -> list[str]:
    datasets = [
        name
        for name, stored in source.items()
        if isinstance(stored, h5py.Dataset)
        and stored.shape == (file.num_events,)
        and (stored.dtype.kind in "iu" or h5py.check_string_dtype(stored.dtype) is not None)
    ]
    attributes = [
        name
        for name, value in source.attrs.items()
        if np.ndim(value) == 0 and np.asarray(value).dtype.kind in "iuSUO"
    ]
    return sorted({*datasets, *attributes} - _NO_GROUPING)


def _as_text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _count(groups: Indices) -> int:
    return len(np.unique(groups))
