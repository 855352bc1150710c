"""Batches of events for training and evaluation, copied once from the mapped files.

Legend: B events of a batch, C microphones, T samples, K keypoints, D axes.
"""

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from gerbil_tune.data.events import EventSet
from gerbil_tune.data.shards import (
    crop_fractions,
    evaluation_shard,
    steps_per_epoch,
    training_schedule,
)
from gerbil_tune.errors import ConfigError

Item = TypeVar("Item")
_INT16 = np.dtype(np.int16)


@dataclass(frozen=True, slots=True)
class Batch:
    """Some events, padded with zeros at their ends to the longest.

    Attributes:
        audio_BTC: int16 where the files are, else float32.
        lengths_B: int64, samples of each event before the padding.
        locations_BKD_mm: float32, or None where the files have no locations.
        indices_B: int64, places of the events in their set.
    """

    audio_BTC: torch.Tensor
    lengths_B: torch.Tensor
    locations_BKD_mm: torch.Tensor | None
    indices_B: torch.Tensor

    def to(self, device: torch.device | str) -> "Batch":
        """Copy to a device; asynchronous where the memory is pinned."""
        locations = self.locations_BKD_mm
        return Batch(
            self.audio_BTC.to(device, non_blocking=True),
            self.lengths_B.to(device, non_blocking=True),
            None if locations is None else locations.to(device, non_blocking=True),
            self.indices_B.to(device, non_blocking=True),
        )


class _Reader:
    """Copies crops of events into padded batches."""

    def __init__(self, events: EventSet, pin_memory: bool) -> None:
        self._events = events
        self._pin_memory = pin_memory
        keeps_int16 = all(file.dtype.newbyteorder("=") == _INT16 for file in events.files)
        self._dtype = torch.int16 if keeps_int16 else torch.float32
        self._locations_mm = events.locations_mm
        # Plain arrays: slicing a numpy.memmap costs microseconds more, each time.
        self._audio = [file.audio().view(np.ndarray) for file in events.files]

    def read(
        self,
        indices_B: npt.NDArray[np.int64],
        starts_B: npt.NDArray[np.int64],
        lengths_B: npt.NDArray[np.int64],
    ) -> Batch:
        """Read samples [start, start + length) of each event."""
        events = self._events
        # An empty event still has a row, and no layer takes an empty axis.
        num_samples = max(int(lengths_B.max()), 1)
        shape = (len(indices_B), num_samples, events.num_microphones)
        audio_BTC = torch.empty(shape, dtype=self._dtype, pin_memory=self._pin_memory)
        rows = audio_BTC.numpy()
        crops = zip(
            rows,
            events.file_numbers[indices_B].tolist(),
            (events.first_samples[indices_B] + starts_B).tolist(),
            lengths_B.tolist(),
            strict=True,
        )
        for row, number, first, length in crops:
            row[:length] = self._audio[number][first : first + length]
            row[length:] = 0
        locations = self._locations_mm
        return Batch(
            audio_BTC,
            torch.from_numpy(lengths_B),
            None if locations is None else torch.from_numpy(locations[indices_B]),
            torch.from_numpy(indices_B),
        )


class TrainingBatches:
    """Random crops of all events of a set, in an order that depends on seed and epoch alone.

    Which events share a step, and where each is cropped, is the same for any number of workers.
    """

    def __init__(
        self,
        events: EventSet,
        *,
        crop_length: int,
        global_batch_size: int,
        seed: int,
        world_size: int = 1,
        rank: int = 0,
        pin_memory: bool = False,
    ) -> None:
        """Set up one worker's share.

        Args:
            events: The training set, the same on all workers.
            crop_length: Samples of an event that are seen at most.
            global_batch_size: Events of a step over all workers; a multiple of ``world_size``.
            seed: Of order and crops.
            world_size: Number of workers.
            rank: This worker.
            pin_memory: Read into page-locked memory, for asynchronous copies to a GPU.

        Raises:
            ConfigError: If ``global_batch_size`` cannot be shared out equally.
            DatasetError: If there are fewer events than workers.
        """
        self.num_steps, _ = steps_per_epoch(
            len(events), global_batch_size=global_batch_size, world_size=world_size
        )
        self._events = events
        self._crop_length = crop_length
        self._global_batch_size = global_batch_size
        self._seed = seed
        self._world_size = world_size
        self._rank = rank
        self._pin_memory = pin_memory

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """Batches of one epoch.

        Args:
            epoch: From 0.
            start_step: Steps to leave out at the beginning, for a run that goes on within an epoch.
        """
        events = self._events
        schedule = training_schedule(
            len(events),
            epoch=epoch,
            seed=self._seed,
            global_batch_size=self._global_batch_size,
            world_size=self._world_size,
            rank=self._rank,
        )
        fractions = crop_fractions(len(events), epoch=epoch, seed=self._seed)
        reader = _Reader(events, self._pin_memory)
        for indices_B in schedule[start_step:]:
            full_B = events.lengths[indices_B]
            lengths_B = np.minimum(full_B, self._crop_length)
            starts_B = (fractions[indices_B] * (full_B - lengths_B + 1)).astype(np.int64)
            yield reader.read(indices_B, starts_B, lengths_B)


class EvaluationBatches:
    """Every event of a set once over all workers, the middle of those that are too long.

    Events of similar length share a batch, the longest first: padding is little, and memory that does not
    suffice shows at once.
    """

    def __init__(
        self,
        events: EventSet,
        *,
        crop_length: int,
        per_worker_batch_size: int,
        world_size: int = 1,
        rank: int = 0,
        pin_memory: bool = False,
    ) -> None:
        """Set up one worker's share.

        Args:
            events: The set, the same on all workers.
            crop_length: Samples of an event that are seen at most.
            per_worker_batch_size: Events of a batch; the last has what is left.
            world_size: Number of workers.
            rank: This worker.
            pin_memory: Read into page-locked memory, for asynchronous copies to a GPU.

        Raises:
            ConfigError: If ``per_worker_batch_size`` is not positive, or the rank not below world_size.
        """
        if per_worker_batch_size < 1:
            raise ConfigError(
                f"per_worker_batch_size is {per_worker_batch_size}, but must be at least 1"
            )
        self._events = events
        self._crop_length = crop_length
        self._per_worker_batch_size = per_worker_batch_size
        self._pin_memory = pin_memory
        cropped = np.minimum(events.lengths, crop_length)
        longest_first = np.argsort(-cropped, kind="stable")
        places = evaluation_shard(len(events), world_size=world_size, rank=rank)
        self._indices = longest_first[places]

    def __len__(self) -> int:
        return -(-len(self._indices) // self._per_worker_batch_size)

    def __iter__(self) -> Iterator[Batch]:
        reader = _Reader(self._events, self._pin_memory)
        for first in range(0, len(self._indices), self._per_worker_batch_size):
            indices_B = self._indices[first : first + self._per_worker_batch_size]
            full_B = self._events.lengths[indices_B]
            lengths_B = np.minimum(full_B, self._crop_length)
            # A copy, so that no batch shares memory with the order of all later ones.
            yield reader.read(indices_B.copy(), (full_B - lengths_B) // 2, lengths_B)


def prefetch(iterator: Iterator[Item], depth: int = 2) -> Iterator[Item]:
    """Let a thread read ahead.

    Args:
        iterator: What to read; the thread alone uses it.
        depth: Items that are kept ready at most, 1 or more.

    Yields:
        The items in order. An error of the iterator is raised here, at its place. The thread ends with the
        items, or when this generator is closed or forgotten.
    """
    ready: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
    free = threading.Semaphore(depth)
    closed = threading.Event()
    end = object()

    def read_ahead() -> None:
        try:
            item: Any = None
            while item is not end:
                free.acquire()
                if closed.is_set():
                    return
                item = next(iterator, end)
                ready.put((item, None))
        except BaseException as error:
            # Raised again in the thread that takes the items.
            ready.put((end, error))

    thread = threading.Thread(target=read_ahead, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is end:
                return
            free.release()
            yield item
    finally:
        closed.set()
        free.release()
        thread.join()
