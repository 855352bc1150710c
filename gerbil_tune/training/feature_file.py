"""Features of a set of events in one file, made once and shared by all runs of a machine.

The file is NumPy's .npy of float32 (N, R), a row an event, and the CRC-32 of the rows in four bytes more. It
gets its name when it is whole, under a lock, so that of the runs that start at once one makes it and the
others wait for it. All map it, so it is in memory once. It may be deleted at any time, but not changed.

Letters: N events, R numbers of an event.
"""

import errno
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock
import numpy as np
import numpy.typing as npt

_TYPE = "<f4"
_CHECKSUM_BYTES = 4
_POLL_S = 0.2
_SPACE_FOR_THE_REST = 1 << 24
Rows = npt.NDArray[np.float32]


def open_feature_file(path: Path, shape: tuple[int, int]) -> Rows | None:
    """Map the rows of a file; None where there is none, or one that is cut, damaged or of another shape.

    Args:
        path: The file.
        shape: (N, R) as it must be.
    """
    try:
        # A private copy, were it written: PyTorch takes no array that is read-only, and the file is safe.
        rows_NR = np.lib.format.open_memmap(path, mode="c")
        with path.open("rb") as file:
            file.seek(-_CHECKSUM_BYTES, os.SEEK_END)
            end, checksum = file.tell(), file.read()
    except (OSError, ValueError, EOFError):
        return None
    if (rows_NR.shape, rows_NR.dtype) != (shape, np.dtype(_TYPE)):
        return None
    if end != rows_NR.offset + rows_NR.nbytes or checksum != _checksum(zlib.crc32(rows_NR.data)):
        return None
    return rows_NR.view(np.ndarray)


def make_feature_file(
    path: Path, shape: tuple[int, int], blocks: Iterator[Rows], stop: Callable[[], bool]
) -> Rows | None:
    """Map the rows of a file, which is made first where there is no whole one.

    Args:
        path: The file; its folder is made.
        shape: (N, R).
        blocks: All rows in order, some at a time; only the process that makes the file asks for them.
        stop: Whether to leave it; asked between blocks and while another process makes the file.

    Returns:
        (N, R), or None if asked to stop.

    Raises:
        OSError: If it cannot be written, locked or read back, as on a full disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path.with_suffix(".lock"))
    while not _acquired(lock):
        if stop():
            return None
    try:
        rows_NR = open_feature_file(path, shape)
        if rows_NR is None:
            _remove_leftovers(path)
            if not _write(path, shape, blocks, stop):
                return None
            rows_NR = open_feature_file(path, shape)
            if rows_NR is None:
                raise OSError(errno.EIO, "the file is not what was written", str(path))
        return rows_NR
    finally:
        lock.release()


def _acquired(lock: filelock.BaseFileLock) -> bool:
    try:
        lock.acquire(timeout=_POLL_S)
    except filelock.Timeout:
        return False
    return True


def _remove_leftovers(path: Path) -> None:
    """Delete what a process that was killed had written; whoever holds the lock is the only one here."""
    for leftover in path.parent.glob(f".{path.name}.*"):
        leftover.unlink(missing_ok=True)


def _write(
    path: Path, shape: tuple[int, int], blocks: Iterator[Rows], stop: Callable[[], bool]
) -> bool:
    """Write the file; False if asked to stop."""
    num_bytes = shape[0] * shape[1] * np.dtype(_TYPE).itemsize
    if num_bytes + _SPACE_FOR_THE_REST > shutil.disk_usage(path.parent).free:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    checksum = 0
    header = {"descr": _TYPE, "fortran_order": False, "shape": shape}
    try:
        # Written, not mapped: a disk that is full is then an error and not the end of the process.
        with temporary.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for block_BR in blocks:
                if stop():
                    return False
                written = np.ascontiguousarray(block_BR, _TYPE).data
                file.write(written)
                checksum = zlib.crc32(written, checksum)
            file.write(_checksum(checksum))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _checksum(crc: int) -> bytes:
    return crc.to_bytes(_CHECKSUM_BYTES, "little")
