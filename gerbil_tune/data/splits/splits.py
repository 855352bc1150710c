"""Which events train, validate and test: files of their own, index files, or a seeded split that is kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gerbil_tune.config.schema import DataConfig
from gerbil_tune.data.events import (
    FILE_SUFFIXES,
    EventSet,
    check_same_site,
    list_event_files,
    open_events,
)
from gerbil_tune.data.files.index_files import Indices, read_indices
from gerbil_tune.data.files.manifest import MANIFEST
from gerbil_tune.data.splits.new_split import (
    PART_NAMES,
    check_record,
    find_difference,
    make_split,
    write_parts,
)
from gerbil_tune.errors import DatasetError
from gerbil_tune.units import counted

_TRAIN, _VALIDATION, _TEST = PART_NAMES
_INDEX_FOLDER = "indices"

Parts = Mapping[str, Indices]


@dataclass(frozen=True, slots=True)
class Splits:
    """Three sets of events without an event in common; ``test`` may be missing.

    Attributes:
        train: Events to learn from.
        validation: Events by which training and search decide.
        test: Events that nothing sees before the end.
        origin: Where the split comes from, for the user.
    """

    train: EventSet
    validation: EventSet
    test: EventSet | None
    origin: str = ""


@dataclass(frozen=True)
class _Choice:
    """The events that take part: all, or those of an index file."""

    path: Path | None
    places: Indices | None

    def only(self, part: Indices, source: Path) -> Indices:
        """The events of a part that take part.

        Raises:
            DatasetError: If none does.
        """
        if self.places is None:
            return part
        left = part[np.isin(part, self.places)]
        if not len(left):
            raise DatasetError(
                f"{source}: none of its {counted(len(part), 'event')} is among those of --events "
                f"{self.path}; choose more events or split those that are chosen"
            )
        return left

    def tell(self, num_dropped: int) -> str:
        """Say how many events were dropped, if any were."""
        if not num_dropped:
            return ""
        verb = "is" if num_dropped == 1 else "are"
        return f" ({counted(num_dropped, 'event')} {verb} not in {self.path})"


def load_splits(
    path: Path | Sequence[Path],
    data_config: DataConfig,
    save_dir: Path | None = None,
    *,
    split: Path | None = None,
    events: Path | None = None,
) -> Splits:
    """Open data for training.

    The split is, in this order: ``split``; the files of a folder with ``train_set.h5`` and perhaps
    ``val_set.h5`` and ``test_set.h5`` (``.hdf5`` too), where without a validation file a part of the training
    file validates; ``train_set.npy``, ``val_set.npy`` and perhaps ``test_set.npy`` in a folder of other files
    or in its ``indices``; the one kept in ``save_dir``; a new one, by ``make_split``.

    Args:
        path: A file, several files, or a folder.
        data_config: ``validation_fraction``, ``test_fraction``, ``split_seed``, ``arena_mm`` and
            ``keypoints`` are used.
        save_dir: Where the split is kept as ``train_set.npy``, ``val_set.npy`` and ``test_set.npy`` (int64,
            places of events), so that what continues later has the same.
        split: Folder of a split, as vocalocator's ``--indices`` and ``gerbil-tune data split`` write it.
        events: Index file of the events that take part; others are dropped from any split.

    Raises:
        DatasetError: If a file is wrong, has no locations, does not fit the others, or holds too few events
            or groups to split; if a split does not fit the data or leaves a part empty; or if it is another
            than the one kept in ``save_dir``.
    """
    folder = Path(path).expanduser() if isinstance(path, str | Path) else None
    files = {} if folder is None else find_split_files(folder)
    if split is None and folder is not None and _TRAIN in files:
        return _open_split_files(folder, files, data_config, save_dir, events)
    whole = _open_labelled(path)
    choice = _Choice(events, None if events is None else read_indices(events, len(whole)))
    index_folder = _find_index_folder(folder) if split is None else _asked_index_folder(split)
    if index_folder is not None:
        check_record(index_folder, whole)
        parts, dropped = _read_parts(index_folder, len(whole), choice)
        _keep(save_dir, parts, len(whole), index_folder)
        origin = f"index files of {index_folder}{dropped}"
    else:
        parts, origin = _kept_or_new(whole, data_config, save_dir, choice)
    sets = {name: _select(whole.subset(part), data_config) for name, part in parts.items()}
    return Splits(sets[_TRAIN], sets[_VALIDATION], sets.get(_TEST), origin)


def find_split_files(folder: Path) -> dict[str, Path]:
    """Event files of a folder that is split already, by ``train_set``, ``val_set`` and ``test_set``.

    A part may also be a folder of shards of that name.
    """
    files = {
        name: folder / f"{name}{suffix}"
        for name in PART_NAMES
        for suffix in FILE_SUFFIXES
        if (folder / f"{name}{suffix}").is_file()
    }
    shards = {name: folder / name for name in PART_NAMES if (folder / name / MANIFEST).is_file()}
    return shards | files


def _open_split_files(
    folder: Path,
    named: Mapping[str, Path],
    data_config: DataConfig,
    save_dir: Path | None,
    events: Path | None,
) -> Splits:
    """Open the files of a folder that is split already."""
    opened = {name: _open_labelled(file) for name, file in named.items()}
    files = [file for part in opened.values() for file in part.files]
    EventSet(files)  # raises where they do not fit together
    check_same_site(files)
    choices = {name: _Choice(None, None) for name in opened}
    origin = f"the files {', '.join(file.name for file in named.values())} of {folder}"
    if events is not None:
        choices, dropped = _choose_in_files(folder, opened, events)
        origin += dropped
    if _VALIDATION in opened:
        sets = {
            name: whole.subset(choices[name].only(np.arange(len(whole)), named[name]))
            for name, whole in opened.items()
        }
    else:
        train = opened[_TRAIN]
        parts, how = _kept_or_new(train, data_config, save_dir, choices[_TRAIN], with_test=False)
        sets = {name: train.subset(part) for name, part in parts.items()}
        origin += f"; validation from {_TRAIN}: {how}"
        if _TEST in opened:
            whole = opened[_TEST]
            places = choices[_TEST].only(np.arange(len(whole)), named[_TEST])
            sets[_TEST] = whole.subset(places)
    sets = {name: _select(part, data_config) for name, part in sets.items()}
    return Splits(sets[_TRAIN], sets[_VALIDATION], sets.get(_TEST), origin)


def _choose_in_files(
    folder: Path, opened: Mapping[str, EventSet], events: Path
) -> tuple[dict[str, _Choice], str]:
    """Bring places in all files of a folder to places in each of some of them."""
    # As everywhere, places count through the files of the folder by name.
    counts = {file: len(open_events(file)) for file in list_event_files(folder)}
    unlisted = [part.files[0].path for part in opened.values() if part.files[0].path not in counts]
    if unlisted:
        raise DatasetError(
            f"{events}: the number of an event is its place in the files that {folder}/manifest.json lists, "
            f"but {unlisted[0].name} is not one of them; move that file to a folder of its own"
        )
    ends = dict(zip(counts, np.cumsum(list(counts.values())).tolist(), strict=True))
    places = read_indices(events, sum(counts.values()))
    choices = {}
    for name, part in opened.items():
        end = ends[part.files[0].path]
        inside = places[(places >= end - len(part)) & (places < end)]
        choices[name] = _Choice(events, inside - (end - len(part)))
    total = sum(len(part) for part in opened.values())
    taken = sum(len(choice.places) for choice in choices.values() if choice.places is not None)
    return choices, _Choice(events, None).tell(total - taken)


def _open_labelled(path: Path | Sequence[Path]) -> EventSet:
    events = open_events(path)
    if events.files[0].locations_mm is None:
        raise DatasetError(
            f"{events.files[0].path}: dataset 'locations' is missing, but training needs the location of "
            "each event in mm from the arena centre"
        )
    return events


def _select(events: EventSet, data_config: DataConfig) -> EventSet:
    if data_config.keypoints is None:
        return events
    return events.select_keypoints(data_config.keypoints)


def _kept_or_new(
    whole: EventSet,
    data_config: DataConfig,
    save_dir: Path | None,
    choice: _Choice,
    *,
    with_test: bool = True,
) -> tuple[Parts, str]:
    """The split kept in ``save_dir``, or a new one, which is then kept there; and where it comes from."""
    # The training part is written last: where it is, the split is whole.
    if save_dir is not None and (save_dir / f"{_TRAIN}.npy").exists():
        parts, dropped = _read_parts(save_dir, len(whole), choice, with_test=with_test)
        return parts, f"as kept in {save_dir}{dropped}"
    new = make_split(whole, data_config, chosen=choice.places, with_test=with_test)
    if save_dir is not None:
        write_parts(save_dir, new.parts)
    num_dropped = 0 if choice.places is None else len(whole) - len(choice.places)
    return new.parts, f"new, {new.describe()}{choice.tell(num_dropped)}"


def _asked_index_folder(folder: Path) -> Path:
    folder = folder.expanduser()
    found = _find_index_folder(folder)
    if found is None:
        what = "does not exist"
        if folder.exists():
            what = f"holds no {_TRAIN}.npy" if folder.is_dir() else "is a file"
        raise DatasetError(
            f"{folder}: {what}, but --split takes a folder with {_TRAIN}.npy, {_VALIDATION}.npy and perhaps "
            f"{_TEST}.npy: gerbil-tune data split writes one"
        )
    return found


def _find_index_folder(folder: Path | None) -> Path | None:
    """A folder itself or its ``indices``, whichever has index files."""
    for place in () if folder is None else (folder, folder / _INDEX_FOLDER):
        if (place / f"{_TRAIN}.npy").is_file():
            return place
    return None


def _read_parts(
    folder: Path, num_events: int, choice: _Choice, *, with_test: bool = True
) -> tuple[Parts, str]:
    """Read a written split; a missing test part is fine, for a split that came from elsewhere.

    Returns:
        The parts, and a remark on events that do not take part.
    """
    names = [_TRAIN, _VALIDATION]
    if with_test and (folder / f"{_TEST}.npy").exists():
        names.append(_TEST)
    if not (folder / f"{_VALIDATION}.npy").exists():
        raise DatasetError(
            f"{folder}: holds a part of a split only: {_VALIDATION}.npy is missing; copy all of it, or "
            "delete it and split the data anew with gerbil-tune data split"
        )
    parts = {name: read_indices(folder / f"{name}.npy", num_events) for name in names}
    numbers, times = np.unique(np.concatenate(list(parts.values())), return_counts=True)
    if (times > 1).any():
        twice = numbers[times > 1]
        more = f" and {counted(len(twice) - 1, 'other event')}" if len(twice) > 1 else ""
        raise DatasetError(
            f"{folder}: in more than one of {', '.join(names)} (.npy) are event {twice[0]}{more}; each event "
            "may be in one part only"
        )
    left = {name: choice.only(part, folder / f"{name}.npy") for name, part in parts.items()}
    return left, choice.tell(len(numbers) - sum(len(part) for part in left.values()))


def _keep(save_dir: Path | None, parts: Parts, num_events: int, source: Path) -> None:
    """Keep a split that came from elsewhere; raise if another one is kept already."""
    if save_dir is None or save_dir.resolve() == source.resolve():
        return
    if not (save_dir / f"{_TRAIN}.npy").exists():
        write_parts(save_dir, parts)
        return
    for name in PART_NAMES:
        difference = find_difference(save_dir / f"{name}.npy", parts.get(name), num_events)
        if difference:
            raise DatasetError(
                f"{save_dir} was begun with another split than that of {source} ({difference}); give the "
                "split and events of the start, or begin anew under another name"
            )
