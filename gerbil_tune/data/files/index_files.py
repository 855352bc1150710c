"""Index files: which events of a data set are meant, as a NumPy file of their places.

A place counts through all files of the data in the order given, from 0. vocalocator writes its splits the
same way.
"""

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gerbil_tune.errors import ConfigError, DatasetError

Indices = npt.NDArray[np.int64]


def read_indices(path: Path, num_events: int) -> Indices:
    """Read the places of events, or a mask over all of them.

    Args:
        path: A ``.npy`` file: 1-D integers, each at least 0 and below ``num_events``, none twice; or
            ``num_events`` booleans of which at least one is true.
        num_events: Events of the data that the places count in.

    Returns:
        int64 (n,), n > 0, in the order of the file; for a mask in ascending order.

    Raises:
        DatasetError: If the file is missing, holds something else, or was made for other data.
    """
    stored = _load(path)
    if stored.ndim == 1 and stored.dtype.kind == "b" and len(stored):
        stored = _places_of_mask(path, stored, num_events)
    if stored.ndim != 1 or stored.dtype.kind not in "iu" or not len(stored):
        raise DatasetError(
            f"{path}: must be a 1-D array of integers that is not empty (or a mask of {num_events} "
            f"booleans), but is {stored.dtype} of shape {stored.shape}"
        )
    if stored.min() < 0 or stored.max() >= num_events:
        raise DatasetError(
            f"{path}: names events {stored.min()} to {stored.max()}, but the data has {num_events} "
            f"events, 0 to {num_events - 1}; it was made for other data: give those, or write it anew"
        )
    numbers, times = np.unique(stored, return_counts=True)
    if len(numbers) < len(stored):
        raise DatasetError(
            f"{path}: names event {numbers[times > 1][0]} twice ({len(stored) - len(numbers)} of "
            f"{len(stored)} entries are repeated); each event may stand once"
        )
    return stored.astype(np.int64)


def write_indices(path: Path, indices: npt.ArrayLike) -> None:
    """Write the places of events as int64; the file appears whole or not at all.

    Args:
        path: The ``.npy`` file; its folder is made where it is missing.
        indices: (n,), in the order to be kept.

    Raises:
        ConfigError: If the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as stream:
            np.save(stream, np.asarray(indices, dtype=np.int64))
        temporary.replace(path)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be written ({error.strerror}); name a folder that can be"
        ) from None
    finally:
        if temporary.parent.is_dir():
            temporary.unlink(missing_ok=True)


def _load(path: Path) -> npt.NDArray[np.generic]:
    if not path.is_file():
        raise DatasetError(f"{path}: does not exist; an index file is a .npy file of event numbers")
    try:
        with path.open("rb") as stream:
            beginning = stream.read(len(np.lib.format.MAGIC_PREFIX))
            stream.seek(0)
            if beginning == np.lib.format.MAGIC_PREFIX:
                return np.asarray(np.load(stream, allow_pickle=False))
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, EOFError):
        # NumPy's own words advise to load what may hold a program.
        raise DatasetError(
            f"{path}: cannot be read as an array of event numbers: it is cut short, damaged, or holds "
            "Python objects; write it anew with numpy.save"
        ) from None
    what = "an archive of several arrays" if beginning.startswith(b"PK") else "no .npy file"
    raise DatasetError(
        f"{path}: must be one array of event numbers, but is {what}; write it with numpy.save"
    )


def _places_of_mask(
    path: Path, mask: npt.NDArray[np.generic], num_events: int
) -> npt.NDArray[np.generic]:
    if len(mask) != num_events:
        raise DatasetError(
            f"{path}: is a mask of {len(mask)} events, but the data has {num_events} events; it was "
            "made for other data: give those, or write it anew"
        )
    if not mask.any():
        raise DatasetError(f"{path}: is a mask that takes no event; at least one must be true")
    return np.flatnonzero(mask)
