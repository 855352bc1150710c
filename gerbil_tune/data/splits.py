"""Which events train, validate and test: files of their own, or a seeded split that is written down."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gerbil_tune.config.schema import DataConfig
from gerbil_tune.data.events import FILE_SUFFIXES, EventSet, check_same_site, open_events
from gerbil_tune.errors import DatasetError

Indices = npt.NDArray[np.int64]
_FOLDER_FILES = ("train_set", "val_set", "test_set")


@dataclass(frozen=True, slots=True)
class Splits:
    """Three sets of events without an event in common; ``test`` may be missing."""

    train: EventSet
    validation: EventSet
    test: EventSet | None


def load_splits(
    path: Path | Sequence[Path], data_config: DataConfig, save_dir: Path | None = None
) -> Splits:
    """Open data for training.

    Args:
        path: A folder with ``train_set.h5`` and perhaps ``val_set.h5`` and ``test_set.h5`` (``.hdf5`` too),
            whose split is kept; without a validation file a part of the training file validates. Or a
            file, several files, or a folder of other files: split by group where groups are known, else by
            event.
        data_config: ``validation_fraction`` (for validation and again for test), ``split_seed`` and
            ``keypoints`` are used.
        save_dir: Where a split is written as ``train_set.npy``, ``val_set.npy`` and ``test_set.npy``
            (int64, places of events); a split that is there already is used as it is.

    Raises:
        DatasetError: If a file is wrong, has no locations, does not fit the others, or holds too few events
            or groups to split; or if the split in ``save_dir`` does not fit the data.
    """
    folder = _find_folder_files(Path(path)) if isinstance(path, str | Path) else {}
    if "train_set" not in folder:
        events = _open_labelled(path, data_config)
        parts = _split_once(events, data_config, save_dir, with_test=True)
        test = events.subset(parts[2]) if len(parts) == 3 else None
        return Splits(events.subset(parts[0]), events.subset(parts[1]), test)
    opened = {name: _open_labelled(file, data_config) for name, file in folder.items()}
    files = [file for events in opened.values() for file in events.files]
    EventSet(files)  # raises where they do not fit together
    check_same_site(files)
    train, validation = opened["train_set"], opened.get("val_set")
    if validation is None:
        parts = _split_once(train, data_config, save_dir, with_test=False)
        train, validation = train.subset(parts[0]), train.subset(parts[1])
    return Splits(train, validation, opened.get("test_set"))


def _find_folder_files(path: Path) -> dict[str, Path]:
    """Files of a folder that is split already, by name."""
    path = path.expanduser()
    return {
        name: path / f"{name}{suffix}"
        for name in _FOLDER_FILES
        for suffix in FILE_SUFFIXES
        if (path / f"{name}{suffix}").is_file()
    }


def _open_labelled(path: Path | Sequence[Path], data_config: DataConfig) -> EventSet:
    events = open_events(path)
    if events.files[0].locations_mm is None:
        raise DatasetError(
            f"{events.files[0].path}: dataset 'locations' is missing, but training needs the location of "
            "each event in mm from the arena centre"
        )
    if data_config.keypoints is not None:
        events = events.select_keypoints(data_config.keypoints)
    return events


def _split_once(
    events: EventSet, data_config: DataConfig, save_dir: Path | None, *, with_test: bool
) -> list[Indices]:
    """Return train, validation and perhaps test: those written in ``save_dir``, or new ones."""
    if save_dir is not None:
        # The training part is written last: where it is, the split is whole.
        if (save_dir / "train_set.npy").exists():
            return _read_split(events, save_dir, with_test=with_test)
        save_dir.mkdir(parents=True, exist_ok=True)
    parts = split_events(
        len(events),
        groups=events.groups,
        fraction=data_config.validation_fraction,
        seed=data_config.split_seed,
        num_held_out=2 if with_test else 1,
        source=str(events.files[0].path),
    )
    if save_dir is not None:
        for name, part in reversed(list(zip(_FOLDER_FILES, parts, strict=False))):
            _write_indices(save_dir / f"{name}.npy", part)
    return parts


def split_events(
    num_events: int,
    *,
    groups: Indices | None,
    fraction: float,
    seed: int,
    num_held_out: int = 2,
    source: str = "the data",
) -> list[Indices]:
    """Divide events at random into a training part and held-out parts.

    Args:
        num_events: Events to divide.
        groups: int64 (num_events,), events of one number stay together; None: each goes by itself.
        fraction: Of all events, for each held-out part.
        seed: Any integer.
        num_held_out: 1 (validation) or 2 (validation and test).
        source: Named in errors.

    Returns:
        Places of the events in ascending order: training, validation and perhaps test. Each has at least
        one event, and a held-out part has at most its fraction, unless its one group is larger.

    Raises:
        DatasetError: If there are fewer events or groups than parts.
    """
    if groups is None:
        sizes, members = np.ones(num_events, dtype=np.int64), np.arange(num_events)
    else:
        _, members, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if len(sizes) < num_held_out + 1:
        what = "events" if groups is None else "groups of events"
        raise DatasetError(
            f"{source}: has {len(sizes)} {what}, but a split needs at least {num_held_out + 1}; add "
            "data, or give a folder with train_set.h5 and val_set.h5"
        )
    order = np.random.default_rng(seed % 2**64).permutation(len(sizes))
    wanted = max(1, round(fraction * num_events))
    part_of_group = np.zeros(len(sizes), dtype=np.int64)
    for part in range(1, num_held_out + 1):
        free = order[part_of_group[order] == 0]
        most = len(free) - (num_held_out + 1 - part)  # one for each part to come, training too
        part_of_group[_choose_groups(free, sizes, wanted, most)] = part
    parts = part_of_group[members]
    return [np.flatnonzero(parts == part) for part in range(num_held_out + 1)]


def _choose_groups(free: Indices, sizes: Indices, wanted: int, most: int) -> Indices:
    """Take up to ``most`` groups in order that fit in ``wanted`` events; if none fits, the smallest."""
    chosen, room = [], wanted
    for group, size in zip(free.tolist(), sizes[free].tolist(), strict=True):
        if size <= room:
            chosen.append(group)
            room -= size
        if room == 0 or len(chosen) == most:
            break
    return np.array(chosen or [free[np.argmin(sizes[free])]], dtype=np.int64)


def _write_indices(path: Path, indices: Indices) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as stream:
        np.save(stream, indices)
    temporary.replace(path)


def _read_split(events: EventSet, save_dir: Path, *, with_test: bool) -> list[Indices]:
    """Read a written split; a missing test part is fine, for a split that came from elsewhere."""
    names = [*_FOLDER_FILES[:2]]
    if with_test and (save_dir / "test_set.npy").exists():
        names.append("test_set")
    parts = [_read_indices(save_dir / f"{name}.npy", len(events)) for name in names]
    together = np.concatenate(parts)
    if len(np.unique(together)) != len(together):
        raise DatasetError(
            f"{save_dir}: an event is in more than one of {', '.join(names)} (.npy), or twice in one; "
            "delete these files to split anew"
        )
    return parts


def _read_indices(path: Path, num_events: int) -> Indices:
    try:
        indices = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DatasetError(
            f"{path}: cannot be read as an array ({error}); delete the split's .npy files to split anew"
        ) from None
    if indices.ndim != 1 or indices.dtype.kind not in "iu" or not len(indices):
        raise DatasetError(
            f"{path}: must be a 1-D array of integers that is not empty, but is {indices.dtype} of shape "
            f"{indices.shape}; delete the split's .npy files to split anew"
        )
    if indices.min() < 0 or indices.max() >= num_events:
        raise DatasetError(
            f"{path}: names events {indices.min()} to {indices.max()}, but the data has {num_events} "
            "events; it was made for other data: delete the split's .npy files to split anew"
        )
    return np.asarray(indices, dtype=np.int64)
