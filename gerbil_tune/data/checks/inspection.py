"""Everything that can be said of data files: what is in them, and what is wrong with it.

What is wrong with one file or rule hides nothing else: each is looked at on its own as far as possible.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gerbil_tune.config.schema import DataConfig
from gerbil_tune.data.checks.audio import check_audio
from gerbil_tune.data.checks.audio_scan import scan_audio
from gerbil_tune.data.checks.cheap import check_some_audio
from gerbil_tune.data.checks.findings import BoolArray, Finding, errors_first
from gerbil_tune.data.checks.index import check_index
from gerbil_tune.data.checks.labels import check_labels
from gerbil_tune.data.checks.site import check_site, fewest_samples, find_setup
from gerbil_tune.data.checks.splits import check_index_files, check_parts
from gerbil_tune.data.checks.summary import FileSummary, SetSummary
from gerbil_tune.data.checks.tracks import check_tracks
from gerbil_tune.data.events import EventSet, list_event_files
from gerbil_tune.data.files.formats import EventFile, open_event_file
from gerbil_tune.data.files.index_files import read_indices
from gerbil_tune.data.files.manifest import MANIFEST
from gerbil_tune.data.progress import progress_bar
from gerbil_tune.data.splits.new_split import PART_NAMES, check_record
from gerbil_tune.data.splits.splits import find_split_files
from gerbil_tune.errors import DatasetError

FORMAT_VERSION = 1
"""Of the JSON; raised when a reader of it would have to change."""
CLEANABLE = frozenset(
    {
        "nan-audio",
        "nan-locations",
        "silent-events",
        "quiet-events",
        "clipped-events",
        "duplicate-events",
        "leaked-events",
        "empty-events",
        "short-events",
        "outside-arena",
        "wrong-height",
        "keypoints-far-apart",
        "partly-dead-microphones",
    }
)
"""Codes of faults of single events, which can be removed."""
_MISTAKES_OF_ALL = frozenset({"outside-arena", "wrong-height"})
"""Those that, as errors, are of most events: cleaning would leave nothing."""
_READ_ERRORS = (OSError, RuntimeError, KeyError, TypeError, ValueError)
"""What h5py raises on damaged files, and DatasetError, which is a ValueError."""
_INDEX_FOLDER = "indices"


@dataclass
class Inspection:
    """What was found in some files.

    Attributes:
        sets: All events, and the parts of a split where there is one.
        files: The files that could be opened.
        findings: All faults, errors first.
        is_full: Whether all audio was read.
    """

    sets: list[SetSummary] = field(default_factory=list)
    files: list[FileSummary] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    is_full: bool = True

    @property
    def num_errors(self) -> int:
        """How many findings are errors."""
        return sum(finding.level == "error" for finding in self.findings)

    @property
    def num_warnings(self) -> int:
        """How many findings are warnings."""
        return len(self.findings) - self.num_errors

    @property
    def is_labelled(self) -> bool:
        """Whether all files have locations."""
        return bool(self.files) and all(file.is_labelled for file in self.files)

    @property
    def are_impulse_responses(self) -> bool:
        """Whether the events are impulse responses."""
        return any(file.layout == "rir" for file in self.files)

    @property
    def wants_cleaning(self) -> bool:
        """Whether ``gerbil-tune data clean`` is the next step: it removes all errors, or some warnings."""
        kinds = {finding.code: finding.level for finding in self.findings}
        errors = {code for code, level in kinds.items() if level == "error"}
        return bool(kinds.keys() & CLEANABLE) and errors <= CLEANABLE - _MISTAKES_OF_ALL

    def to_json(self) -> dict[str, Any]:
        """Return a dictionary that ``json`` can write; no value is NaN.

        ``version`` is 1 as long as no key changes its meaning or goes.
        """
        return {
            "version": FORMAT_VERSION,
            "usable": self.num_errors == 0,
            "full": self.is_full,
            "errors": self.num_errors,
            "warnings": self.num_warnings,
            "sets": [one.to_json() for one in self.sets],
            "files": [one.to_json() for one in self.files],
            "findings": [one.to_json() for one in self.findings],
        }


@dataclass
class _Sources:
    """Files that were asked for: of each its path and the part of a split that it is."""

    paths: list[tuple[str | None, Path]] = field(default_factory=list)
    opened: list[tuple[str | None, EventFile]] = field(default_factory=list)
    index_folder: Path | None = None


def inspect(
    paths: Sequence[Path],
    data_config: DataConfig,
    *,
    split_folder: Path | None = None,
    events_path: Path | None = None,
    full: bool = True,
    show_progress: bool = False,
) -> Inspection:
    """Look at files of events, alone and together.

    Args:
        paths: Files and folders. A folder with ``train_set.h5`` is looked at as its parts.
        data_config: Facts of the recording site, and the keypoints, have the last word.
        split_folder: Folder of train_set.npy, val_set.npy and perhaps test_set.npy; by default those beside
            the files of a folder, or in its ``indices``.
        events_path: Index file of the events to look at; None: all.
        full: Whether to read all audio; else some of 64 events.
        show_progress: Whether to show how far the reading is, on standard error.
    """
    result = Inspection(is_full=full)
    sources = _open_all(paths, result.findings)
    facts = data_config.sample_rate_hz, data_config.arena_mm
    result.files = [FileSummary.of(file, *facts) for _, file in sources.opened]
    index_folder = split_folder or sources.index_folder
    for whole, names in _group(sources.opened, result.findings):
        events = _choose_keypoints(whole, data_config)
        parts = _find_parts(events, names, index_folder, result.findings)
        if events_path is not None:
            events, parts = _choose_events(events, parts, events_path, result.findings)
        _check_set(events, parts, data_config, result, show_progress=show_progress)
    result.findings = errors_first(result.findings)
    return result


def _open_all(paths: Sequence[Path], findings: list[Finding]) -> _Sources:
    """Open what can be opened, and tell of the rest."""
    sources = _Sources()
    for path in paths:
        try:
            _list_files(path.expanduser().absolute(), sources)
        except _READ_ERRORS as error:
            findings.append(_tell(path, error))
    seen: set[Path] = set()
    for name, path in sources.paths:
        try:
            if path.resolve() in seen:
                text = f"{path}: is given twice; its events would count twice"
                findings.append(Finding("error", text, "given-twice", 1, (path.name,)))
                continue
            seen.add(path.resolve())
            sources.opened.append((name, open_event_file(path)))
        except _READ_ERRORS as error:
            findings.append(_tell(path, error))
    return sources


def _tell(path: Path, error: Exception) -> Finding:
    text = str(error) if isinstance(error, DatasetError) else f"{path}: cannot be read ({error})"
    return Finding("error", " ".join(text.split()), "cannot-open", 1, (path.name,))


def _list_files(path: Path, sources: _Sources) -> None:
    named = find_split_files(path) if path.is_dir() else {}
    if PART_NAMES[0] in named:
        # In the order in which places count through the files of a folder.
        for name, part in sorted(named.items(), key=lambda item: item[1].name):
            sources.paths += [(name, file) for file in list_event_files(part)]
        return
    sources.paths += [(None, file) for file in list_event_files(path)]
    if path.is_dir() and sources.index_folder is None:
        places = (path, path / _INDEX_FOLDER)
        found = (place for place in places if (place / f"{PART_NAMES[0]}.npy").is_file())
        sources.index_folder = next(found, None)


def _group(
    opened: list[tuple[str | None, EventFile]], findings: list[Finding]
) -> Iterator[tuple[EventSet, list[str | None]]]:
    """Give all files as one set with the part that each is, or one by one where they do not fit together."""
    if not opened:
        return
    names = [name for name, _ in opened]
    files = [file for _, file in opened]
    try:
        yield EventSet(files), names
        return
    except DatasetError as error:
        findings.append(Finding("error", str(error), "files-disagree", len(files)))
    for name, file in opened:
        yield EventSet([file]), [name]


def _choose_keypoints(events: EventSet, data_config: DataConfig) -> EventSet:
    """Look only at the keypoints that will be used; an unknown one is told with the site."""
    try:
        names = data_config.keypoints
        return events if names is None else events.select_keypoints(names)
    except DatasetError:
        return events


def _choose_events(
    events: EventSet, parts: dict[str, BoolArray], path: Path, findings: list[Finding]
) -> tuple[EventSet, dict[str, BoolArray]]:
    """Take the events of an index file, or all where it cannot be used."""
    try:
        places = read_indices(path, len(events))
    except DatasetError as error:
        findings.append(Finding("error", str(error), "events-file", 1, (path.name,)))
        return events, parts
    chosen = {name: in_part[places] for name, in_part in parts.items()}
    return events.subset(places), chosen


def _find_parts(
    events: EventSet,
    names: list[str | None],
    index_folder: Path | None,
    findings: list[Finding],
) -> dict[str, BoolArray]:
    """Which events are in which part of a split: by files of parts, or by index files."""
    stated = [name for name in PART_NAMES if name in names]
    if stated:
        parts = {
            name: np.isin(events.file_numbers, [i for i, of in enumerate(names) if of == name])
            for name in stated
        }
        findings += check_parts(parts, events, str(events.files[0].path.parent))
        if events.locations_mm is None:
            text = (
                f"{events.files[0].path}: dataset 'locations' is missing, but training needs the location "
                "of each event in mm from the arena centre"
            )
            findings.append(Finding("error", text, "no-locations", len(events)))
        return parts
    if index_folder is None:
        return {}
    found = check_index_files(index_folder, events)
    findings += found.findings
    try:
        check_record(index_folder, events)
    except DatasetError as error:
        findings.append(Finding("error", str(error), "split-of-other-data"))
    return found.parts


def _check_set(
    events: EventSet,
    parts: dict[str, BoolArray],
    data_config: DataConfig,
    result: Inspection,
    *,
    show_progress: bool,
) -> None:
    """Summarize a set and look for all its faults."""
    setup, arena_mm, findings = find_setup(events, data_config)
    rate = data_config.sample_rate_hz or events.files[0].sample_rate_hz
    result.sets.append(SetSummary.of("all", events, rate))
    for name, in_part in parts.items():
        part = events.subset(np.flatnonzero(in_part))
        result.sets.append(SetSummary.of(name, part, rate))
    if setup is not None:
        findings += check_site(events, setup)
    findings += check_index(events, fewest_samples(setup))
    findings += [*check_labels(events, arena_mm), *check_tracks(events, arena_mm)]
    findings += _check_files(events, arena_mm, {finding.code for finding in findings})
    try:
        if result.is_full:
            findings += _read_all(events, parts, show_progress)
        else:
            findings += check_some_audio(events)
    except DatasetError as error:
        findings.append(Finding("error", str(error), "cannot-read"))
    result.findings += findings


def _check_files(
    events: EventSet, arena_mm: tuple[float, ...] | None, known: set[str]
) -> Iterator[Finding]:
    """Find files whose locations are wrong as a whole where those of the set together are not."""
    if len(events.files) == 1:
        return
    for number, file in enumerate(events.files):
        alone = events.subset(np.flatnonzero(events.file_numbers == number))
        for finding in check_labels(alone, arena_mm):
            if finding.code not in known:
                text = f"{file.path.name}: {finding.message}"
                yield Finding(finding.level, text, finding.code, finding.count, finding.examples)


def _read_all(events: EventSet, parts: dict[str, BoolArray], show_progress: bool) -> list[Finding]:
    """Read all audio, and compare files with the checksums that they state."""
    with progress_bar(len(events), doing="reading audio", show=show_progress) as advance:
        findings = check_audio(scan_audio(events, advance=advance), parts)
    stating = [file for file in events.files if _states_checksum(file)]
    if stating:
        # It brings what shards are written with, which takes longer to load than small files to check.
        from gerbil_tune.data.files.shard_set import verify_checksums

        total = sum(
            file.total_samples * file.num_microphones * file.dtype.itemsize for file in stating
        )
        doing = "verifying checksums"
        with progress_bar(total, doing=doing, unit="bytes", show=show_progress) as advance:
            problems = verify_checksums(EventSet(stating), advance=advance)
        findings += [Finding("error", text, "checksum") for text in problems]
    return findings


def _states_checksum(file: EventFile) -> bool:
    return file.stated_checksum is not None or (file.path.parent / MANIFEST).is_file()
