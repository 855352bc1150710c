"""Files of predictions as tables: CSV and Parquet for people and their programs, NPZ for arrays as they are.

A table has a row an event. Columns are named for keypoint (where there are several), axis and unit:
``x_mm``, ``nose_x_mm``, ``covariance_xy_mm2``, ``region_area_95_mm2``, ``in_region_95``, ``confidence``,
``nll``, ``emitter`` (the animal's name), ``caller_probability_NAME``, ``flags``. CSV leaves out what is not a
number; an emitter that is not clear is null.

Letters: N events, K keypoints, D axes, R regions.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from gerbil_tune.errors import LaunchError
from gerbil_tune.inference.callers import EMITTER, PROBABILITY, TRUE_EMITTER
from gerbil_tune.inference.writer import region_dataset

_AXES = "xyz"
Table = dict[str, npt.NDArray[Any]]


def write_table(source: Path, kind: str) -> Path:
    """Write a file of predictions once more, beside it, in another format.

    Args:
        source: The HDF5 file.
        kind: ``csv``, ``parquet`` or ``npz``.

    Returns:
        The new file.

    Raises:
        LaunchError: If it cannot be written.
    """
    target = source.with_suffix(f".{kind}")
    temporary = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with h5py.File(source, "r") as file:
            _WRITERS[kind](file, temporary)
        temporary.replace(target)
    except OSError as error:
        raise LaunchError(
            f"{target}: cannot be written ({error.strerror or error}); the predictions are in {source}"
        ) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return target


def read_table(file: h5py.File) -> Table:
    """The columns of a file of predictions, (N,) each, in order."""
    mean_NKD = file["predictions"][()]
    num_events = len(mean_NKD)
    mean_NKD = mean_NKD.reshape(num_events, -1, mean_NKD.shape[-1])
    num_keypoints, num_axes = mean_NKD.shape[1:]
    table: Table = {}
    if "files" in file:
        table["file"] = file["files"].asstr()[()][file["file_index"][()]]
    index = file["event_index"][()] if "event_index" in file else np.arange(num_events)
    table["event"] = index
    names = str(file.attrs["keypoints"]).split(",")
    prefixes = [f"{name}_" for name in names] if num_keypoints > 1 else [""]
    for keypoint, prefix in enumerate(prefixes):
        columns = _of_keypoint(file, keypoint, num_keypoints, num_axes)
        table.update({f"{prefix}{name}": values for name, values in columns})
    table.update(_of_callers(file))
    table["flags"] = file["flags"][()]
    return table


def _of_callers(file: h5py.File) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    for dataset in (EMITTER, TRUE_EMITTER):
        if dataset in file:
            # Last, so that the place of nobody, -1, is its.
            names = np.array([*file[dataset].attrs["animals"], None], object)
            yield dataset, names[file[dataset][()]]
    if PROBABILITY in file:
        animals = file[PROBABILITY].attrs["animals"]
        for name, values in zip(animals, file[PROBABILITY][()].T, strict=True):
            yield f"{PROBABILITY}_{name}", values


def _of_keypoint(
    file: h5py.File, keypoint: int, num_keypoints: int, num_axes: int
) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    def rows(name: str, *tail: int) -> npt.NDArray[Any]:
        values = file[name][()]
        return values.reshape(len(values), num_keypoints, *tail)[:, keypoint]

    axes = _AXES[:num_axes]
    for i, axis in enumerate(axes):
        yield f"{axis}_mm", rows("predictions", num_axes)[:, i]
    for i, first in enumerate(axes):
        for j in range(i, num_axes):
            covariance_N = rows("covariance", num_axes, num_axes)[:, i, j]
            yield f"covariance_{first}{axes[j]}_mm2", covariance_N
    region = region_dataset(num_axes)
    name, _, unit = region.rpartition("_")
    for dataset, form in ((region, f"{name}_{{}}_{unit}"), ("in_region", "in_region_{}")):
        if dataset in file:
            for i, level in enumerate(file[dataset].attrs["levels"]):
                values = rows(dataset, len(file[dataset].attrs["levels"]))[:, i]
                yield form.format(f"{100 * level:g}"), values
    for dataset in ("confidence", "nll"):
        if dataset in file:
            yield dataset, rows(dataset)
    if "locations" in file:
        for i, axis in enumerate(axes):
            yield f"true_{axis}_mm", rows("locations", num_axes)[:, i]


def _write_csv(file: h5py.File, path: Path) -> None:
    import pyarrow
    from pyarrow import csv

    csv.write_csv(pyarrow.table(_with_nulls(read_table(file))), path)


def _write_parquet(file: h5py.File, path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    facts = {name: str(value) for name, value in file.attrs.items()}
    table = pyarrow.table(read_table(file)).replace_schema_metadata(facts)
    parquet.write_table(table, path)


def _write_npz(file: h5py.File, path: Path) -> None:
    arrays = {
        name: dataset.asstr()[()].astype(str) if name == "files" else dataset[()]
        for name, dataset in file.items()
    }
    facts = {name: np.asarray(value) for name, value in file.attrs.items()}
    with path.open("wb") as target:
        np.savez(target, allow_pickle=False, **{**arrays, **facts})


def _with_nulls(table: Table) -> Mapping[str, Any]:
    import pyarrow

    return {
        name: pyarrow.array(values, mask=np.isnan(values) if values.dtype.kind == "f" else None)
        for name, values in table.items()
    }


_WRITERS: Mapping[str, Callable[[h5py.File, Path], None]] = {
    "csv": _write_csv,
    "parquet": _write_parquet,
    "npz": _write_npz,
}
FORMATS = tuple(_WRITERS)
