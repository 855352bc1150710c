"""Mean and standard deviation of every event and channel, computed once and kept.

Computing them for every batch costs several times the reading of the batch. A file that ``data shard`` or
the cache wrote brings them along. For any other file they are computed when an event is first read, and
kept in a table in the cache that all processes of a machine share.

Legend: n events of a file, C microphones, T samples.
"""

import contextlib
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gerbil_tune.data.files.cache import cache_folder

if TYPE_CHECKING:
    from gerbil_tune.data.files.formats import EventFile

_BLOCK_SAMPLES = 65536
_TABLE_TYPE = "<f4"


def event_statistics(
    audio_TC: npt.NDArray[Any],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Mean and standard deviation of each channel of an event, (C,) and (C,) float32.

    They are summed in float64; products of matrices are several times faster here than ``mean`` and ``std``,
    which walk along an axis of a few microphones. Of no samples both are 0.
    """
    num_samples, num_channels = audio_TC.shape
    total_C, squares_C = np.zeros(num_channels), np.zeros(num_channels)
    if num_samples == 0:
        return total_C.astype(np.float32), squares_C.astype(np.float32)
    # Counted from the first sample, so that a large offset costs no digits.
    first_C = np.nan_to_num(audio_TC[0].astype(np.float64))
    with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinity come out as such
        for start in range(0, num_samples, _BLOCK_SAMPLES):
            block_TC = audio_TC[start : start + _BLOCK_SAMPLES].astype(np.float64)
            block_TC -= first_C
            total_C += np.ones(len(block_TC)) @ block_TC
            squares_C += np.einsum("tc,tc->c", block_TC, block_TC)
        mean_C = total_C / num_samples
        variance_C = np.maximum(squares_C / num_samples - mean_C**2, 0.0)
        return (mean_C + first_C).astype(np.float32), np.sqrt(variance_C).astype(np.float32)


class StatisticsTable:
    """Statistics of the events of one file, filled as they are asked for."""

    def __init__(self, file: "EventFile") -> None:
        self._file = file
        self._table_N2C = _stated(file) if file.mean_NC is not None else _open_table(file)

    def get(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Mean and standard deviation of some events of the file, (len(rows), 2, C) float32."""
        found = self._table_N2C[rows]
        # A row is NaN as long as it was not computed, or where the audio is not finite.
        missing = np.isnan(found)
        if not missing.any():
            return found
        for place in np.flatnonzero(missing.any(axis=(1, 2))).tolist():
            row = int(rows[place])
            found[place] = event_statistics(self._file.read(row))
            self._table_N2C[row] = found[place]
        return found


def _stated(file: "EventFile") -> npt.NDArray[np.float32]:
    assert file.mean_NC is not None
    assert file.sd_NC is not None
    return np.stack([file.mean_NC, file.sd_NC], axis=1)


def _open_table(file: "EventFile") -> npt.NDArray[np.float32]:
    """Map the file's table in the cache; without a cache that can be written, a table in memory."""
    shape = (file.num_events, 2, file.num_microphones)
    with contextlib.suppress(OSError):
        path = cache_folder("statistics") / f"{file.fingerprint()}.f32"
        size = int(np.prod(shape)) * np.dtype(_TABLE_TYPE).itemsize
        if not path.exists() or path.stat().st_size != size:
            temporary = path.with_name(f".{path.name}.{os.getpid()}")
            np.full(shape, np.nan, _TABLE_TYPE).tofile(temporary)
            temporary.replace(path)
        # A plain array on it: taking rows of a numpy.memmap costs several times as much.
        return np.memmap(path, _TABLE_TYPE, mode="r+", shape=shape).view(np.ndarray)
    return np.full(shape, np.nan, np.float32)
