"""Folders of shards: a data set as contiguous files of about one size, with a manifest and checksums."""

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gerbil_tune.data.cores import num_cores
from gerbil_tune.data.events import EventSet, open_events
from gerbil_tune.data.files.formats import EventFile, open_event_file
from gerbil_tune.data.files.manifest import (
    MANIFEST,
    Manifest,
    Shard,
    read_any_manifest,
    read_manifest,
)
from gerbil_tune.data.files.writer import (
    EventFileWriter,
    Header,
    content_checksum,
    write_events,
)
from gerbil_tune.errors import ConfigError, DatasetError

SHARD_BYTES = 1 << 30
_IN_PROCESS_BELOW_BYTES = 1 << 26


@dataclass(frozen=True)
class Rendering:
    """How impulse responses become recordings.

    Attributes:
        folder: Of the wav files.
        sample_rate_hz: Of the impulse responses.
        seed: Chooses the sound of each event.
    """

    folder: Path
    sample_rate_hz: float
    seed: int


@dataclass(frozen=True)
class _Task:
    """One shard to write: its events, their places in the whole set, and how they are rendered."""

    events: EventSet
    places: npt.NDArray[np.int64]
    path: Path
    rendering: Rendering | None


def write_shards(
    events: EventSet,
    folder: Path,
    *,
    rendering: Rendering | None = None,
    shard_bytes: int = SHARD_BYTES,
    processes: int | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> Manifest:
    """Write a set as shards, in parallel, and then the manifest.

    A shard that an interrupted run left is kept if it holds the same events, sample by sample.

    Args:
        events: The set, in order.
        folder: Where the shards go; made where it does not exist.
        rendering: Write impulse responses convolved with sounds; None: all events as they are.
        shard_bytes: Of audio in a shard, about; a shard has at least one event.
        processes: Worker processes; default: one a core, or this one for little data.
        advance: Is told how many events more are written.

    Returns:
        The manifest, which is on the disk.

    Raises:
        ConfigError: If the folder holds anything else, or cannot be written.
    """
    folder = folder.expanduser().absolute()
    fingerprint = _identify(events, rendering)
    try:
        _check_folder(folder, events, fingerprint)
        folder.mkdir(parents=True, exist_ok=True)
        Manifest(folder, fingerprint, (), finished=False).write()
        tasks = [
            _Task(events.subset(part), part, folder / f"shard-{number:05d}.h5", rendering)
            for number, part in enumerate(plan_shards(events, shard_bytes))
        ]
        shards: dict[str, Shard] = {}
        for shard in _write_all(tasks, processes):
            shards[shard.name] = shard
            advance(shard.num_events)
        manifest = Manifest(folder, fingerprint, tuple(shards[task.path.name] for task in tasks))
        _remove_others(manifest)
        manifest.write()
    except OSError as error:
        raise ConfigError(
            f"{error.filename or folder}: cannot be written ({error.strerror or error}); choose another "
            "folder, or make room, and run the command again"
        ) from None
    return manifest


def _identify(events: EventSet, rendering: Rendering | None) -> str:
    """What the shards will hold: the events and, for impulse responses, the sounds and their choice."""
    if rendering is None:
        return events.fingerprint()
    digest = hashlib.blake2b(events.fingerprint().encode(), digest_size=16)
    digest.update(f"{rendering.sample_rate_hz} {rendering.seed}".encode())
    for path in sorted(rendering.folder.iterdir()):
        if path.is_file():
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def _check_folder(folder: Path, events: EventSet, fingerprint: str) -> None:
    """Refuse a folder that holds anything but this very set, whole or half-written.

    Raises:
        ConfigError: Naming the folder.
    """
    if any(file.path.parent == folder for file in events.files):
        raise ConfigError(f"{folder}: holds the events to be sharded; choose another folder")
    existing = read_any_manifest(folder) if folder.is_dir() else None
    if existing is not None and existing.fingerprint != fingerprint:
        raise ConfigError(
            f"{folder}: holds shards of other data already; choose another folder, or delete it first"
        )
    if existing is None and (found := sorted(folder.glob("shard-*.h5"))):
        raise ConfigError(
            f"{found[0]}: is there already, and no {MANIFEST} says whose it is; choose another folder"
        )


def plan_shards(events: EventSet, shard_bytes: int) -> list[npt.NDArray[np.int64]]:
    """Cut a set into runs of events of about equal audio: places of the events of each shard."""
    itemsize = max(file.dtype.itemsize for file in events.files)
    ends = np.cumsum(events.lengths) * events.num_microphones * itemsize
    num_shards = int(min(max(1, round(int(ends[-1]) / shard_bytes)), len(events)))
    inner = np.searchsorted(ends, int(ends[-1]) * np.arange(1, num_shards) / num_shards)
    parts = np.split(np.arange(len(events)), np.unique(inner))
    return [part for part in parts if len(part)]


def verify_checksums(
    events: EventSet, *, advance: Callable[[int], None] | None = None
) -> list[str]:
    """Compare the content of files with the checksums that they or their manifest state.

    Args:
        events: Their files are read whole; those that state no checksum are left out.
        advance: Is told how many bytes more were read.

    Returns:
        One sentence for each file that is not what it was when it was written.
    """
    problems = []
    for file in events.files:
        stated = _stated_checksum(file)
        if stated is not None and content_checksum(file, advance) != stated:
            problems.append(
                f"{file.path}: its content does not have the checksum that was stated when it was written; "
                "copy it again from the original, or write it anew with gerbil-tune data shard"
            )
    return problems


def _stated_checksum(file: EventFile) -> str | None:
    """The manifest's word, for a file may have been replaced by another whole one; else the file's own."""
    manifest = read_manifest(file.path.parent)
    if manifest is not None:
        for shard in manifest.shards:
            if shard.name == file.path.name:
                return shard.checksum
    return file.stated_checksum


def _write_all(tasks: list[_Task], processes: int | None) -> Iterator[Shard]:
    num_bytes = sum(
        int(task.events.lengths.sum())
        * task.events.num_microphones
        * task.events.files[0].dtype.itemsize
        for task in tasks
    )
    if processes is None:
        processes = 1 if num_bytes < _IN_PROCESS_BELOW_BYTES else num_cores()
    processes = min(processes, len(tasks))
    if processes == 1:
        yield from map(_write_shard, tasks)
        return
    # Spawned: a fork would copy threads' locks (h5py, OpenMP) in whatever state they are.
    with ProcessPoolExecutor(
        processes, mp_context=get_context("spawn"), initializer=_end_with_parent
    ) as pool:
        waiting = [pool.submit(_write_shard, task) for task in tasks]
        try:
            for done in as_completed(waiting):
                yield done.result()
        finally:
            for future in waiting:
                future.cancel()


def _end_with_parent() -> None:
    """End this process when the one that started it is gone, however that ended."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="watch-parent", daemon=True).start()


def _write_shard(task: _Task) -> Shard:
    if not _is_written(task):
        if task.rendering is None:
            write_events(task.path, task.events)
        else:
            _render_shard(task, task.rendering)
    written = open_event_file(task.path)
    assert written.stated_checksum is not None
    return Shard(
        task.path.name, len(task.events), task.path.stat().st_size, written.stated_checksum
    )


def _render_shard(task: _Task, rendering: Rendering) -> None:
    # Here, for it brings torch, which a process that writes ordinary shards need not wait for.
    from gerbil_tune.data.sources import SourceSounds

    sounds = SourceSounds.open(rendering.folder, rendering.sample_rate_hz)
    chosen = sounds.choose(task.places, seed=rendering.seed, epoch=None)
    header = Header.of_rendered(task.events, task.events.lengths + sounds.lengths[chosen] - 1)
    with EventFileWriter(task.path, header) as writer:
        for _, audio_TC in sounds.render_events(task.events, rendering.seed, task.places):
            writer.append(audio_TC)


def _is_written(task: _Task) -> bool:
    """Whether an earlier run wrote this very shard; all that it holds is looked at."""
    if not task.path.is_file():
        return False
    try:
        written = open_events(task.path)
    except DatasetError:
        return False
    file, expected = written.files[0], task.events
    labels, expected_labels = (
        np.empty(0) if part.locations_mm is None else part.locations_mm
        for part in (written, expected)
    )
    if len(written) != len(expected) or not np.array_equal(labels, expected_labels):
        return False
    if task.rendering is not None:
        ids = expected.rows if expected.event_ids is None else expected.event_ids
        same_events = np.array_equal(np.asarray(file.event_ids), ids)
        return same_events and content_checksum(file) == file.stated_checksum
    return np.array_equal(written.lengths, expected.lengths) and all(
        np.array_equal(written.read(i), expected.read(i)) for i in range(len(expected))
    )


def _remove_others(manifest: Manifest) -> None:
    """Delete shards of an earlier run with other sizes, which the manifest does not list."""
    listed = {shard.name for shard in manifest.shards}
    for path in manifest.folder.glob("shard-*.h5"):
        if path.name not in listed:
            path.unlink()
