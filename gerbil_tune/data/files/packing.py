"""Audio that cannot be mapped into memory, packed once into the cache.

A packed copy is an ordinary contiguous file of events named by the content of the file it was made of: a file
that was changed is packed again, one that was moved is not. It gets its name when it is whole, under a lock,
so that of two processes that start at once one packs and the other waits for it.
"""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from gerbil_tune.data.files.cache import VARIABLE, cache_folder, content_of
from gerbil_tune.data.files.structure import Structure, audio_dataset
from gerbil_tune.data.files.writer import EventFileWriter, Header
from gerbil_tune.data.progress import Advance, progress_bar
from gerbil_tune.errors import DatasetError

_BLOCK_BYTES = 1 << 25
_CHUNK_CACHE_BYTES = 1 << 26
_SPACE_FOR_THE_REST = 1 << 24


def packed_file(structure: Structure) -> Path:
    """Path of the packed copy of a file's audio, dataset ``audio``; it is made where there is none.

    Raises:
        DatasetError: If the file cannot be read to its end, or the cache cannot be written or is full.
    """
    path = structure.path
    try:
        folder = cache_folder("packed")
        # Only a file that was never seen is read here, and then packing reads it from memory.
        target = folder / f"{content_of(path)}.h5"
        if _is_whole(target, structure):
            return target
        return _pack_locked(structure, target)
    except OSError as error:
        raise DatasetError(
            f"{path}: its audio is stored {structure.storage} and must be packed, but the cache cannot be "
            f"used ({error}); choose another place with --cache-dir or {VARIABLE}"
        ) from None


def _pack_locked(structure: Structure, target: Path) -> Path:
    import filelock

    lock = filelock.FileLock(target.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        print(f"waiting for another process that packs {structure.path.name}", file=sys.stderr)
        lock.acquire()
    try:
        if not _is_whole(target, structure):
            _remove_leftovers(target)
            _pack(structure, target)
        return target
    finally:
        lock.release()


def _is_whole(target: Path, structure: Structure) -> bool:
    """Whether a packed copy is there and as long as it must be; a disk that was full can have cut it."""
    try:
        with h5py.File(target, "r") as file:
            audio = file["audio"]
            end = audio.id.get_offset() + audio.size * audio.dtype.itemsize
            expected = (structure.total_samples, structure.num_microphones)
            return bool(audio.shape == expected and end <= target.stat().st_size)
    except (OSError, KeyError, RuntimeError, TypeError):
        return False


def _remove_leftovers(target: Path) -> None:
    """Delete what a process that was killed had packed; whoever holds the lock is the only one here."""
    for leftover in target.parent.glob(f".{target.name}.*"):
        leftover.unlink(missing_ok=True)


def _pack(structure: Structure, target: Path) -> None:
    num_bytes = structure.total_samples * structure.num_microphones * structure.dtype.itemsize
    free = shutil.disk_usage(target.parent).free
    if num_bytes + _SPACE_FOR_THE_REST > free:
        raise DatasetError(
            f"{structure.path}: its audio is stored {structure.storage} and takes {num_bytes / 1e9:.1f} GB "
            f"packed, but {target.parent} has {free / 1e9:.1f} GB left; choose another place with "
            f"--cache-dir or {VARIABLE}"
        )
    print(
        f"packing {structure.path.name} (stored {structure.storage}, {num_bytes / 1e6:,.0f} MB) once into "
        f"{target}",
        file=sys.stderr,
    )
    try:
        with (
            h5py.File(structure.path, "r", rdcc_nbytes=_CHUNK_CACHE_BYTES) as source,
            EventFileWriter(target, Header.of_structure(structure)) as writer,
            progress_bar(num_bytes, doing="packing", unit="bytes") as advance,
        ):
            for block_TC in _read_blocks(structure, source, advance):
                writer.append(block_TC)
    except (OSError, RuntimeError) as error:
        if getattr(error, "errno", None):  # of the disk, not of the HDF5 library
            raise
        raise DatasetError(
            f"{structure.path}: its audio is damaged and cannot be read to its end ({error}); copy or "
            "record it again"
        ) from None


def _read_blocks(
    structure: Structure, source: h5py.File, advance: Advance
) -> Iterator[npt.NDArray[Any]]:
    """Read all audio as (T, C) blocks, in whole chunks where it is chunked."""
    audio = audio_dataset(source, structure.layout)
    bytes_a_sample = structure.num_microphones * structure.dtype.itemsize
    if structure.layout == "fixed":
        events = max(1, _BLOCK_BYTES // (bytes_a_sample * audio.shape[2]))
        for first in range(0, len(audio), events):
            block_NCT = audio[first : first + events]
            advance(block_NCT.nbytes)
            yield np.ascontiguousarray(block_NCT.transpose(0, 2, 1)).reshape(
                -1, structure.num_microphones
            )
        return
    chunk = audio.chunks[0] if audio.chunks else 1
    samples = max(1, _BLOCK_BYTES // (bytes_a_sample * chunk)) * chunk
    for first in range(0, len(audio), samples):
        block_TC = audio[first : first + samples]
        advance(block_TC.nbytes)
        yield block_TC
