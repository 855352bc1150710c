"""Render events in several processes, each of which writes its events to their place in the file."""

import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Generator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gerbil_tune.data.simulate.rooms import SimulationSpec
from gerbil_tune.data.simulate.wavs import WavCalls
from gerbil_tune.errors import GerbilTuneError

_EVENTS_A_TASK = 16
_TASKS_AHEAD = 3

Task = tuple[int, NDArray[np.int64]]
"""First event, and the samples at which its events begin, with one more for the end of the last."""


@dataclass(frozen=True)
class RenderJob:
    """What a worker needs to know once.

    Attributes:
        spec: The room and the ranges.
        wavs: The recorded calls, if any.
        seed: Of the simulation.
        path: The file, whose audio has its full size already.
        audio_offset_bytes: Where the audio begins in it: (total samples, C) float32, little-endian.
    """

    spec: SimulationSpec
    wavs: WavCalls | None
    seed: int
    path: Path
    audio_offset_bytes: int


def render_all(
    job: RenderJob, starts: NDArray[np.int64], processes: int
) -> Generator[int, None, None]:
    """Render all events into the file.

    Args:
        job: What to render, and where to.
        starts: (N + 1,) first sample of each event, and the total.
        processes: Workers at most; with one, or with one task, this process does the work.

    Yields:
        How many more events are in the file.

    Raises:
        GerbilTuneError: If a worker dies.
        OSError: If the file cannot be written.
    """
    num_events = len(starts) - 1
    tasks = [
        (first, starts[first : min(first + _EVENTS_A_TASK, num_events) + 1])
        for first in range(0, num_events, _EVENTS_A_TASK)
    ]
    processes = min(processes, len(tasks))
    if processes == 1:
        for first, part in tasks:
            yield _render(job, first, part)
    else:
        yield from _render_in_pool(job, tasks, processes)


def _render_in_pool(
    job: RenderJob, tasks: list[Task], processes: int
) -> Generator[int, None, None]:
    # Not fork: the caller may have threads, whose locks a forked child would inherit held.
    pool = ProcessPoolExecutor(
        processes,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(job,),
    )
    waiting = iter(tasks)
    try:
        running: set[Future[int]] = set()
        while True:
            free = processes * _TASKS_AHEAD - len(running)
            running |= {
                pool.submit(_render_task, *task) for task in itertools.islice(waiting, free)
            }
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    except BrokenProcessPool as error:
        raise GerbilTuneError(
            "a simulation worker process ended unexpectedly, out of memory perhaps; pass --processes"
            " with a smaller number (a script must call simulate under `if __name__ == '__main__':`)"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_job: RenderJob | None = None
"""Set once in each worker; sending it with every task would pickle the list of wav files anew."""


def _start_worker(job: RenderJob) -> None:
    global _job
    _job = job
    # Ctrl-C reaches the whole process group; the parent alone decides, and stops its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this worker if its parent is killed: it would wait for tasks for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _render_task(first: int, starts: NDArray[np.int64]) -> int:
    if _job is None:
        raise RuntimeError("the worker was started without its job")
    return _render(_job, first, starts)


def _render(job: RenderJob, first: int, starts: NDArray[np.int64]) -> int:
    """Render the events of one task into the file; returns how many they are."""
    from gerbil_tune.data.simulate.render import render_event

    num_events = len(starts) - 1
    file = os.open(job.path, os.O_WRONLY)
    try:
        for index in range(num_events):
            audio, _ = render_event(job.spec, job.wavs, job.seed, first + index)
            if len(audio) != starts[index + 1] - starts[index]:
                raise GerbilTuneError(
                    f"event {first + index} has {len(audio)} samples where"
                    f" {starts[index + 1] - starts[index]} were planned; its wav file has changed meanwhile"
                )
            row_bytes = audio.shape[1] * audio.itemsize
            _write(file, audio, job.audio_offset_bytes + int(starts[index]) * row_bytes)
    finally:
        os.close(file)
    return num_events


def _write(file: int, audio: NDArray[np.float32], offset_bytes: int) -> None:
    # Not a memory map: on a full disk that is a bus error, this an OSError.
    left = memoryview(audio.astype("<f4", copy=False).data).cast("B")
    while left:
        written = os.pwrite(file, left, offset_bytes)
        left, offset_bytes = left[written:], offset_bytes + written
