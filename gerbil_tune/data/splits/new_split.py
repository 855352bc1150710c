"""Making a split, saying how far its parts differ, and writing it down.

    train_set.npy  val_set.npy  test_set.npy    places of events in all of the data, as vocalocator has them
    split.json                                  how and of which data it was made, and how its parts differ

Legend: N events, D axes.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import gerbil_tune
from gerbil_tune.config.schema import DataConfig
from gerbil_tune.data.events import EventSet
from gerbil_tune.data.files.index_files import Indices, read_indices, write_indices
from gerbil_tune.data.files.manifest import read_manifest
from gerbil_tune.data.splits.grouping import AUTO, DEFAULT_GAP_S, Grouping, group_events
from gerbil_tune.data.splits.stratify import ArenaCells, find_cells, split_events, total_variation
from gerbil_tune.errors import ConfigError, DatasetError

PART_NAMES = ("train_set", "val_set", "test_set")
RECORD = "split.json"
_FORMAT = "gerbil_tune split"
_VERSION = 1
_DRAWS = 50
"""Random splits that a part's distance is compared with."""


@dataclass(frozen=True)
class NewSplit:
    """A split that was just made.

    Attributes:
        parts: Places of events in the whole data, ascending, by ``train_set``, ``val_set`` and perhaps
            ``test_set``.
        grouping: Groups of all events of the data.
        cells: Arena cells of all events of the data; None without locations.
    """

    parts: Mapping[str, Indices]
    grouping: Grouping
    cells: ArenaCells | None

    def describe(self) -> str:
        """How it was made, for the user."""
        method = (
            f"by {self.grouping.description}" if self.grouping.groups is not None else "by event"
        )
        if self.cells is None:
            return f"{method}, at random (no locations)"
        columns, rows = self.cells.grid
        return f"{method}, stratified over {columns} x {rows} cells of the arena"


def make_split(
    whole: EventSet,
    config: DataConfig,
    *,
    chosen: Indices | None = None,
    group_by: str = AUTO,
    gap_s: float = DEFAULT_GAP_S,
    with_test: bool = True,
) -> NewSplit:
    """Divide events by group, alike over the arena.

    Args:
        whole: All events of the data.
        config: ``validation_fraction``, ``test_fraction``, ``split_seed`` and ``arena_mm`` are used.
        chosen: Places of the events that take part; None: all.
        group_by: See ``group_events``.
        gap_s: See ``group_events``.
        with_test: Whether there is a test part, unless its fraction is 0.

    Raises:
        DatasetError: If there are too few events or groups.
    """
    places = np.arange(len(whole)) if chosen is None else np.sort(chosen)
    grouping = group_events(whole, group_by, gap_s=gap_s)
    fractions = [config.validation_fraction]
    if with_test and config.test_fraction != 0:
        fractions.append(config.test_fraction or config.validation_fraction)
    smallest = max(1, round(min(fractions) * len(places)))
    cells = _cells_of(whole, config, smallest)
    parts = split_events(
        len(places),
        groups=None if grouping.groups is None else grouping.groups[places],
        fraction=fractions[0],
        seed=config.split_seed,
        num_held_out=len(fractions),
        test_fraction=fractions[-1],
        cells=None if cells is None else ArenaCells(cells.numbers[places], cells.grid),
        source=str(whole.files[0].path),
    )
    named = {name: places[part] for name, part in zip(PART_NAMES, parts, strict=False)}
    return NewSplit(named, grouping, cells)


def _cells_of(whole: EventSet, config: DataConfig, smallest_part: int) -> ArenaCells | None:
    locations = whole.locations_mm
    if locations is None:
        return None
    stated = [file.arena_mm for file in whole.files if file.arena_mm is not None]
    arena_mm = config.arena_mm or (stated[0] if stated else None)
    return find_cells(locations[:, 0], arena_mm, smallest_part)


@dataclass(frozen=True)
class PartSummary:
    """What a part of a split holds.

    Attributes:
        num_events: Its events.
        num_groups: Its groups; None where each event goes by itself.
        distance: Total variation between where its events lie and where all do, 0 to 1.
        random_distance: The mean of the same for random parts of that size, by whole groups.
        mean_location_mm: Mean of the first keypoint.
        median_duration_s: Of its events; None where the sample rate is unknown.
    """

    num_events: int
    num_groups: int | None
    distance: float | None
    random_distance: float | None
    mean_location_mm: tuple[float, ...] | None
    median_duration_s: float | None


def summarize_parts(
    split: NewSplit, whole: EventSet, sample_rate_hz: float | None = None
) -> dict[str, PartSummary]:
    """Say how far the parts of a split differ from the whole, without reading audio.

    Args:
        split: Of these data.
        whole: All events of the data.
        sample_rate_hz: Where the files do not state it.
    """
    rate_hz = sample_rate_hz or whole.files[0].sample_rate_hz
    together = np.sort(np.concatenate(list(split.parts.values())))
    groups, locations = split.grouping.groups, whole.locations_mm
    summaries = {}
    for name, part in split.parts.items():
        distance = random_distance = mean = None
        if split.cells is not None and locations is not None:
            distance = total_variation(split.cells, part, together)
            random_distance = _distance_by_chance(split.cells, groups, together, len(part))
            first = locations[part, 0].astype(np.float64)
            first = first[np.isfinite(first).all(axis=1)]
            mean = tuple(first.mean(axis=0).round(3).tolist()) if len(first) else None
        summaries[name] = PartSummary(
            num_events=len(part),
            num_groups=None if groups is None else len(np.unique(groups[part])),
            distance=distance,
            random_distance=random_distance,
            mean_location_mm=mean,
            median_duration_s=float(np.median(whole.lengths[part])) / rate_hz if rate_hz else None,
        )
    return summaries


def _distance_by_chance(
    cells: ArenaCells, groups: Indices | None, together: Indices, num_events: int
) -> float:
    """Mean distance of parts of about ``num_events`` that are drawn group by group."""
    generator = np.random.default_rng(0)
    members = np.arange(len(together))
    if groups is not None:
        members = np.unique(groups[together], return_inverse=True)[1].reshape(-1)
    sizes = np.bincount(members)
    distances = []
    for _ in range(_DRAWS):
        order = generator.permutation(len(sizes))
        ends = np.cumsum(sizes[order])
        last = min(int(np.searchsorted(ends, num_events)), len(ends) - 1)
        drawn = np.zeros(len(sizes), dtype=bool)
        drawn[order[: last + 1]] = True
        distances.append(total_variation(cells, together[drawn[members]], together))
    return float(np.mean(distances))


def write_split(
    folder: Path,
    split: NewSplit,
    whole: EventSet,
    config: DataConfig,
    *,
    gap_s: float,
    summaries: Mapping[str, PartSummary],
) -> None:
    """Write a split into a folder; ``train_set.npy`` comes last, so where it is the split is whole.

    Raises:
        ConfigError: If the folder holds another split, or cannot be written.
    """
    _check_is_no_other(folder, split, len(whole))
    chosen = sum(len(part) for part in split.parts.values())
    record = {
        "format": _FORMAT,
        "version": _VERSION,
        "method": split.describe(),
        "group_by": split.grouping.group_by,
        "gap_s": gap_s,
        "seed": config.split_seed,
        "validation_fraction": config.validation_fraction,
        "test_fraction": config.test_fraction,
        "grid": None if split.cells is None else split.cells.grid,
        "data": {
            "files": [file.path.name for file in whole.files],
            "num_events": len(whole),
            "chosen_events": chosen,
            "fingerprint": _fingerprint(whole),
        },
        "distance": "total variation of the arena-cell histogram to that of all events, 0 to 1",
        "parts": {name: asdict(summary) for name, summary in summaries.items()},
        "versions": {"gerbil_tune": gerbil_tune.__version__, "numpy": np.__version__},
    }
    _write_text(folder / RECORD, json.dumps(record, indent=1) + "\n")
    write_parts(folder, split.parts)


def write_parts(folder: Path, parts: Mapping[str, Indices]) -> None:
    """Write the index files of a split, ``train_set.npy`` last; a part that it lacks is removed.

    Raises:
        ConfigError: If the folder cannot be written.
    """
    for name in reversed(PART_NAMES):
        if name in parts:
            write_indices(folder / f"{name}.npy", parts[name])
        else:
            (folder / f"{name}.npy").unlink(missing_ok=True)


def _check_is_no_other(folder: Path, split: NewSplit, num_events: int) -> None:
    """Raise if the folder holds a whole split that is not this one: studies may rely on it."""
    if not (folder / f"{PART_NAMES[0]}.npy").exists():
        return
    for name in PART_NAMES:
        path = folder / f"{name}.npy"
        difference = find_difference(path, split.parts.get(name), num_events)
        if difference:
            raise ConfigError(
                f"{folder} holds another split, or a part of one ({difference}); give another --out, or "
                f"delete its {', '.join(PART_NAMES)} (.npy)"
            )


def find_difference(path: Path, part: Indices | None, num_events: int) -> str:
    """Say how the index file of a part differs from that part, in its order too; empty if it does not.

    Args:
        path: The index file, which need not exist.
        part: What it should hold; None: it should not exist.
        num_events: Events of the data.
    """
    if not path.exists():
        return "" if part is None else f"{path.name} is missing"
    if part is None:
        return f"it has a {path.name}"
    try:
        same = np.array_equal(read_indices(path, num_events), part)
    except DatasetError:
        same = False
    return "" if same else f"{path.name} differs"


def check_record(folder: Path, whole: EventSet) -> None:
    """Compare the data that a folder's ``split.json`` names, where there is one, with some data.

    Shards that were made of those data are the same data.

    Raises:
        DatasetError: If the split was made for other data, or its record cannot be read.
    """
    path = folder / RECORD
    if not path.is_file():
        return
    try:
        record: dict[str, Any] = json.loads(path.read_text())
        data, parts = record["data"], dict(record.get("parts", {}))
        fingerprint, num_events = str(data["fingerprint"]), int(data["num_events"])
        names = ", ".join(data["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"{path}: cannot be read as the record of a split ({type(error).__name__}: {error}); split "
            "the data again, or delete it to use the index files as they are"
        ) from None
    missing = [f"{name}.npy" for name in parts if not (folder / f"{name}.npy").exists()]
    if missing:
        raise DatasetError(
            f"{folder}: {', '.join(missing)} of the split that {RECORD} describes is missing; copy the whole "
            f"folder, or delete {RECORD} to use the index files as they are"
        )
    if fingerprint not in _fingerprints(whole):
        raise DatasetError(
            f"{path}: the split was made for other data ({num_events} events of {names}, fingerprint "
            f"{fingerprint[:12]}) than {whole.files[0].path} ({len(whole)} events, fingerprint "
            f"{_fingerprint(whole)[:12]}); split these data with gerbil-tune data split"
        )


def _fingerprint(whole: EventSet) -> str:
    """Of all events and keypoints of the files."""
    return EventSet(whole.files).fingerprint()


def _fingerprints(whole: EventSet) -> set[str]:
    """Of the data, and of the data that they are shards of."""
    found = {_fingerprint(whole)}
    manifest = read_manifest(whole.files[0].path.parent)
    if manifest is not None and manifest.paths == [file.path for file in whole.files]:
        found.add(manifest.fingerprint)
    return found


def _write_text(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text)
        temporary.replace(path)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be written ({error.strerror}); name a folder that can be"
        ) from None
