"""The datasets beside the audio of a file of events, read and checked one by one.

Legend: n events, C microphones, K keypoints, D axes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from gerbil_tune.errors import DatasetError

GROUP_DATASETS = ("group_ids", "session_ids")
DEFAULT_KEYPOINT = "nose"


def read_starts(
    path: Path, source: h5py.File, name: str, *, total_samples: int, num_microphones: int
) -> npt.NDArray[np.int64]:
    """Read the index, int64 (n+1,)."""
    if name not in source:
        raise DatasetError(
            f"{path}: dataset {name!r} is missing; it must hold the first sample of each event and, "
            "last, the end of the last event"
        )
    stored = source[name]
    if not isinstance(stored, h5py.Dataset) or stored.ndim != 1 or stored.dtype.kind not in "iu":
        raise DatasetError(f"{path}: {name!r} must be a 1-D dataset of integers")
    if len(stored) < 2:
        raise DatasetError(
            f"{path}: dataset {name!r} has {len(stored)} entries, but must have one more than there "
            "are events: there is no event in the file"
        )
    starts = stored[:]
    if stored.dtype.kind == "u":  # what does not fit becomes the largest number, not a negative one
        starts = np.minimum(starts.astype(np.uint64), np.uint64(np.iinfo(np.int64).max))
    starts = starts.astype(np.int64)
    falls = np.flatnonzero(np.diff(starts) < 0)
    if len(falls):
        i = int(falls[0])
        raise DatasetError(
            f"{path}: dataset {name!r} must not descend, but goes from {starts[i]} to "
            f"{starts[i + 1]} at entry {i + 1}"
        )
    if starts[0] < 0 or starts[-1] > total_samples:
        advice = ""
        if starts[-1] == total_samples * num_microphones:
            advice = (
                f"; divide it by {num_microphones}, for it counts the samples of all microphones"
            )
        raise DatasetError(
            f"{path}: dataset {name!r} goes from {starts[0]} to {starts[-1]}, but must stay within the "
            f"{total_samples} samples of the audio{advice}"
        )
    return np.asarray(starts)


def read_locations(
    path: Path, source: h5py.File, num_events: int, mm_per_unit: float
) -> npt.NDArray[np.float32] | None:
    """Read the locations as (n, K, D) in mm, or None if there are none."""
    if "locations" not in source:
        return None
    stored = source["locations"]
    if not isinstance(stored, h5py.Dataset) or stored.dtype.kind not in "iuf":
        raise DatasetError(f"{path}: 'locations' must be a dataset of numbers")
    if stored.ndim == 4:
        raise DatasetError(
            f"{path}: dataset 'locations' has shape {stored.shape}, but must be (events, keypoints, axes); "
            "take the mean over the video frames of a call; if the second axis counts animals, rename the "
            "dataset to 'tracks': predict then tells which of them called"
        )
    if stored.ndim not in (2, 3) or stored.shape[-1] not in (2, 3) or 0 in stored.shape[1:]:
        raise DatasetError(
            f"{path}: dataset 'locations' has shape {stored.shape}, but must be (events, axes) or "
            "(events, keypoints, axes) with 2 or 3 axes"
        )
    if len(stored) != num_events:
        raise DatasetError(
            f"{path}: dataset 'locations' has {len(stored)} entries, but the index has {num_events} "
            "events; the index must have one entry more than the locations"
        )
    with np.errstate(over="ignore"):  # becomes infinite, which the checks report
        in_mm = stored[:].astype(np.float64) * mm_per_unit
        in_mm = in_mm.reshape(num_events, -1, stored.shape[-1])
        return np.asarray(in_mm, dtype=np.float32)


def read_keypoints(path: Path, source: h5py.File, counts: Mapping[str, int]) -> tuple[str, ...]:
    """Names of the keypoints: ``node_names``, or made up where the file has none.

    Args:
        path: The file, for messages.
        source: The same, open.
        counts: Keypoints of each dataset that has some, by its name.
    """
    names = read_names(path, source, "node_names", "keypoint") if "node_names" in source else None
    if names is not None and len(set(names)) != len(names):
        raise DatasetError(f"{path}: dataset 'node_names' names a keypoint twice: {names}")
    if len(set(counts.values())) > 1:
        (first, here), (second, there) = list(counts.items())[:2]
        raise DatasetError(
            f"{path}: dataset {first!r} has {here} keypoints, but {second!r} has {there}; both must be of "
            "the same keypoints, which node_names names"
        )
    for dataset, count in counts.items():
        if names is not None and len(names) != count:
            raise DatasetError(
                f"{path}: dataset 'node_names' has {len(names)} names, but {dataset!r} has "
                f"{count} keypoints"
            )
    if names is not None or not counts:
        return names or ()
    count = next(iter(counts.values()))
    return (
        (DEFAULT_KEYPOINT,)
        if count == 1
        else tuple(f"keypoint_{number}" for number in range(count))
    )


def read_names(path: Path, source: h5py.File, name: str, what: str) -> tuple[str, ...]:
    """Read a dataset of names, one for each ``what``."""
    stored = source[name]
    try:
        if not isinstance(stored, h5py.Dataset) or stored.dtype.kind not in "SO":
            raise TypeError
        values = np.atleast_1d(np.asarray(stored[()]))
        return tuple(name.decode() if isinstance(name, bytes) else str(name) for name in values)
    except (TypeError, UnicodeDecodeError):
        raise DatasetError(
            f"{path}: {name!r} must be a 1-D dataset of text in UTF-8, one name for each {what}"
        ) from None


def read_groups(path: Path, source: h5py.File, num_events: int) -> npt.NDArray[np.int64] | None:
    """Read the group of each event, int64 (n,), or None where the file states none."""
    for name in GROUP_DATASETS:
        groups = read_column(path, source, name, num_events, "iu", np.int64)
        if groups is not None:
            return groups
    return None


def read_column(
    path: Path, source: h5py.File, name: str, num_events: int, kinds: str, dtype: type
) -> npt.NDArray[Any] | None:
    """Read a dataset of one number an event, or None where there is none."""
    if name not in source:
        return None
    stored = source[name]
    if (
        not isinstance(stored, h5py.Dataset)
        or stored.shape != (num_events,)
        or stored.dtype.kind not in kinds
    ):
        what = "number" if "f" in kinds else "integer"
        raise DatasetError(
            f"{path}: {name!r} must be a dataset of one {what} an event, of shape ({num_events},)"
        )
    return np.asarray(stored[:].astype(dtype))


def read_statistics(
    path: Path, source: h5py.File, name: str, shape: tuple[int, int]
) -> npt.NDArray[np.float32] | None:
    """Read a statistic of each event and channel, float32 (n, C), or None where there is none."""
    if name not in source:
        return None
    stored = source[name]
    if not isinstance(stored, h5py.Dataset) or stored.shape != shape or stored.dtype.kind != "f":
        raise DatasetError(
            f"{path}: {name!r} must be a dataset of floats of shape (events, microphones) = {shape}; "
            "delete it to have it computed anew"
        )
    return np.asarray(stored[:].astype(np.float32))
