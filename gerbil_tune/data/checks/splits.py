"""Checks of the files that divide a set: train_set.npy, val_set.npy and test_set.npy.

Each names events by their places in the set, counted from 0 through its files, or is a mask of all events.
All faults are told, not only the first, for they tend to come together.
"""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gerbil_tune.data.checks.findings import (
    NUM_EXAMPLES,
    BoolArray,
    Finding,
    IntArray,
    Level,
    errors_first,
)
from gerbil_tune.data.events import EventSet
from gerbil_tune.data.splits.new_split import PART_NAMES

_ADVICE = "; split anew: gerbil-tune data split"


@dataclass
class IndexFiles:
    """What index files say, as far as it can be used, and what is wrong with them.

    Attributes:
        parts: For each part that could be read, which events of the set are in it, bool (N,).
        findings: All faults.
    """

    parts: dict[str, BoolArray] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


def check_index_files(folder: Path, events: EventSet) -> IndexFiles:
    """Read the index files of a folder and look for every fault in them.

    Args:
        folder: Where train_set.npy, val_set.npy and perhaps test_set.npy are.
        events: The set that they divide.
    """
    result = IndexFiles()
    if folder.is_file():
        text = (
            f"{folder}: is a file, but --split takes a folder with train_set.npy, val_set.npy and perhaps "
            "test_set.npy; gerbil-tune data split writes one"
        )
        result.findings.append(Finding("error", text, "split-missing", 1, (folder.name,)))
        return result
    for name in PART_NAMES:
        path = folder / f"{name}.npy"
        if not path.exists():
            if name != "test_set":
                text = f"{path}: does not exist, but a split needs it{_ADVICE}"
                result.findings.append(Finding("error", text, "split-missing", 1, (path.name,)))
            continue
        places, findings = _read_places(path, len(events))
        result.findings += findings
        if places is not None:
            result.parts[name] = np.zeros(len(events), dtype=np.bool_)
            result.parts[name][places] = True
    result.findings += check_parts(result.parts, events, str(folder))
    result.findings = errors_first(result.findings)
    return result


def check_parts(parts: dict[str, BoolArray], events: EventSet, source: str) -> list[Finding]:
    """Find events and groups on two sides of a split.

    Args:
        parts: For each part, which events of the set are in it.
        events: The set.
        source: Named in the sentences.
    """
    findings = []
    groups = events.groups
    for (first, in_first), (second, in_second) in itertools.combinations(parts.items(), 2):
        both = np.flatnonzero(in_first & in_second)
        if len(both):
            text = (
                f"{source}: {len(both)} events are in {first} and in {second}, the first {both[0]}; each "
                f"must be in one{_ADVICE}"
            )
            examples = tuple(events.describe(i) for i in both[:NUM_EXAMPLES].tolist())
            findings.append(Finding("error", text, "split-overlap", len(both), examples))
        if groups is None:
            continue
        shared = np.intersect1d(groups[in_first & ~in_second], groups[in_second & ~in_first])
        if len(shared):
            few = ", ".join(str(group) for group in shared[:NUM_EXAMPLES].tolist())
            text = (
                f"{source}: {len(shared)} groups of events (first: {few}) are in {first} and in {second}; "
                f"calls of one bout on both sides make results look better than they are{_ADVICE}"
            )
            examples = tuple(f"group {group}" for group in shared[:NUM_EXAMPLES].tolist())
            findings.append(Finding("warning", text, "group-leak", len(shared), examples))
    return findings


def _read_places(path: Path, num_events: int) -> tuple[IntArray | None, list[Finding]]:
    """Places that a file names, as far as they exist; None where it is no list of places."""
    try:
        # np.load leaves files open that are not what they should be.
        with path.open("rb") as stream:
            stored = np.load(stream, allow_pickle=False)
            if not isinstance(stored, np.ndarray):
                stored.close()
                raise ValueError("it is an archive of several arrays")
    except (OSError, ValueError, EOFError) as error:
        reason = getattr(error, "strerror", None) or str(error).split("\n")[0]
        text = f"{path}: cannot be read as an array ({reason}){_ADVICE}"
        return None, [Finding("error", text, "split-unreadable", 1, (path.name,))]
    return _check_places(path, stored, num_events)


def _check_places(
    path: Path, stored: npt.NDArray[np.generic], num_events: int
) -> tuple[IntArray | None, list[Finding]]:
    if stored.dtype.kind == "b" and stored.shape == (num_events,):
        stored = np.flatnonzero(stored)
    findings = list(_name_wrong_kind(path, stored, num_events))
    if findings:
        return None, findings
    places = stored.astype(np.int64)
    outside = (places < 0) | (places >= num_events)
    if outside.any():
        text = (
            f"{path}: {outside.sum()} of its {len(places)} places are not events of these data, which have "
            f"places 0 to {num_events - 1}, the first is {places[outside][0]}; it was made for other data"
        )
        findings.append(
            _about_places("error", "split-out-of-range", text + _ADVICE, places[outside])
        )
    inside = places[~outside]
    unique, counts = np.unique(inside, return_counts=True)
    if len(unique) < len(inside):
        repeated = unique[counts > 1]
        text = (
            f"{path}: names {len(repeated)} events more than once, the first {repeated[0]}; each must "
            "stand once"
        )
        findings.append(_about_places("error", "split-duplicates", text + _ADVICE, repeated))
    return unique, findings


def _name_wrong_kind(
    path: Path, stored: npt.NDArray[np.generic], num_events: int
) -> Iterator[Finding]:
    faults: Iterable[tuple[bool, str, str]] = (
        (
            stored.ndim != 1,
            "split-not-1d",
            f"must be 1-D, the places of events, but has shape {stored.shape}",
        ),
        (
            stored.dtype.kind not in "iu",
            "split-not-integer",
            f"must hold integers, the places of events, or a mask of {num_events} booleans, but holds "
            f"{stored.dtype} of shape {stored.shape}",
        ),
        (stored.size == 0, "split-empty", "is empty, but must name at least one event"),
    )
    for is_wrong, code, text in faults:
        if is_wrong:
            yield Finding("error", f"{path}: {text}{_ADVICE}", code, 1, (path.name,))


def _about_places(level: Level, code: str, text: str, places: IntArray) -> Finding:
    examples = tuple(f"place {place}" for place in places[:NUM_EXAMPLES].tolist())
    return Finding(level, text, code, len(places), examples)
