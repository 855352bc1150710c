"""Batches of events for training and evaluation, copied once from the mapped files.

Legend: B events of a batch, C microphones, T samples, K keypoints, D axes.
"""

import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from gerbil_tune.buffers import BufferPool
from gerbil_tune.data.events import EventSet
from gerbil_tune.data.shards import (
    crop_fractions,
    evaluation_shard,
    steps_per_epoch,
    training_schedule,
)
from gerbil_tune.errors import ConfigError

Item = TypeVar("Item")
_Indices = npt.NDArray[np.int64]
_Crops = tuple[_Indices, _Indices, _Indices]
"""Events of a batch, where the crop of each begins, and its samples."""
_INT16 = np.dtype(np.int16)
_BYTES_A_SECOND_FROM_MEMORY = 2e9
"""What is copied slower than this comes from a disk."""
_BATCHES_TO_ANNOUNCE = 256
_POOL = BufferPool()


@dataclass(frozen=True, slots=True)
class Batch:
    """Some events, padded with zeros at their ends to the longest.

    Attributes:
        audio_BTC: int16 where all files are, else float32; integers of other sizes as fractions of their
            full scale.
        lengths_B: int64, samples of each event before the padding.
        locations_BKD_mm: float32, or None where the files have no locations.
        indices_B: int64, places of the events in their set.
        mean_BC: float32, mean of each channel over the whole event, not the crop, in the unit of the audio;
            None where the statistics were not asked for.
        sd_BC: float32, standard deviation of each channel, likewise.
    """

    audio_BTC: torch.Tensor
    lengths_B: torch.Tensor
    locations_BKD_mm: torch.Tensor | None
    indices_B: torch.Tensor
    mean_BC: torch.Tensor | None = None
    sd_BC: torch.Tensor | None = None

    def to(self, device: torch.device | str) -> "Batch":
        """Copy to a device; asynchronous where the memory is pinned."""
        moved = {
            item.name: tensor.to(device, non_blocking=True)
            for item in fields(self)
            if (tensor := getattr(self, item.name)) is not None
        }
        return replace(self, **moved)


class _Reader:
    """Copies crops of events into padded batches."""

    def __init__(self, events: EventSet, *, pin_memory: bool, with_statistics: bool) -> None:
        self._events = events
        self._pin_memory = pin_memory
        self._with_statistics = with_statistics
        # Impulse responses are convolved, so their integers are of no use.
        keeps_int16 = not events.is_impulse_response and all(
            file.dtype.newbyteorder("=") == _INT16 for file in events.files
        )
        self._dtype = torch.int16 if keeps_int16 else torch.float32
        # In a batch of floats integers are fractions of their full scale, as int16 is on the device.
        self._scales = [
            1.0 if keeps_int16 or file.dtype.kind == "f" else -1.0 / np.iinfo(file.dtype).min
            for file in events.files
        ]
        self._are_scaled = any(scale != 1.0 for scale in self._scales)
        self._locations_mm = events.locations_mm
        self._mappings = [file.mapping() for file in events.files]
        self._audio = [mapping.audio for mapping in self._mappings]

    def read_all(self, crops: Iterator[_Crops]) -> Iterator[Batch]:
        """Read batches; where they come from a disk, it reads the next one while the one before is used.

        Telling it so costs a third of the copying where the audio is in memory. A batch that is slow without
        shows that it is not; those after it are announced, until one goes without to see what has changed.
        """
        to_announce = 0
        is_announced = False
        upcoming = next(crops, None)
        while upcoming is not None:
            current, upcoming = upcoming, next(crops, None)
            begin = time.perf_counter()
            batch = self._read(*current)
            seconds = time.perf_counter() - begin
            num_bytes = batch.audio_BTC.numel() * batch.audio_BTC.element_size()
            is_slow = num_bytes < _BYTES_A_SECOND_FROM_MEMORY * seconds
            to_announce = _BATCHES_TO_ANNOUNCE if is_slow and not is_announced else to_announce - 1
            is_announced = to_announce > 0 and upcoming is not None
            if is_announced and upcoming is not None:
                self._will_need(*upcoming)
            yield batch
            del batch  # so that its memory is free for the next one, if nobody else holds it

    def _will_need(self, indices_B: _Indices, starts_B: _Indices, lengths_B: _Indices) -> None:
        events = self._events
        for number, first, length in zip(
            events.file_numbers[indices_B].tolist(),
            (events.first_samples[indices_B] + starts_B).tolist(),
            lengths_B.tolist(),
            strict=True,
        ):
            self._mappings[number].will_need(first, length)

    def _read(self, indices_B: _Indices, starts_B: _Indices, lengths_B: _Indices) -> Batch:
        """Read samples [start, start + length) of each event."""
        events = self._events
        numbers_B = events.file_numbers[indices_B]
        for number in self._files_of(numbers_B):
            events.files[number].check_unchanged()
        # An empty event still has a row, and no layer takes an empty axis.
        num_samples = max(int(lengths_B.max()), 1)
        audio_BTC = self._allocate((len(indices_B), num_samples, events.num_microphones))
        crops = zip(
            audio_BTC.numpy(),
            numbers_B.tolist(),
            (events.first_samples[indices_B] + starts_B).tolist(),
            lengths_B.tolist(),
            strict=True,
        )
        for row, number, first, length in crops:
            row[:length] = self._audio[number][first : first + length]
            row[length:] = 0
        if self._are_scaled:
            scales_B = np.array(self._scales, np.float32)[numbers_B]
            audio_BTC *= torch.from_numpy(scales_B)[:, None, None]
        locations = self._locations_mm
        mean, sd = self._statistics(indices_B, numbers_B) if self._with_statistics else (None, None)
        return Batch(
            audio_BTC,
            torch.from_numpy(lengths_B),
            None if locations is None else torch.from_numpy(locations[indices_B]),
            torch.from_numpy(indices_B),
            mean,
            sd,
        )

    def _allocate(self, shape: tuple[int, int, int]) -> torch.Tensor:
        if self._pin_memory:  # torch keeps such memory itself
            return torch.empty(shape, dtype=self._dtype, pin_memory=True)
        return _POOL.empty(shape, self._dtype)

    def _statistics(
        self, indices_B: npt.NDArray[np.int64], numbers_B: npt.NDArray[np.int64]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation of whole events, (B, C) each, in the unit of the batch's audio."""
        events = self._events
        rows_B = events.file_rows[indices_B]
        tables = [file.statistics() for file in events.files]
        if len(tables) == 1:
            found_B2C = tables[0].get(rows_B)
        else:
            found_B2C = np.empty((len(indices_B), 2, events.num_microphones), np.float32)
            for number in self._files_of(numbers_B):
                of_file = numbers_B == number
                found_B2C[of_file] = tables[number].get(rows_B[of_file])
        if self._are_scaled:
            found_B2C *= np.array(self._scales, np.float32)[numbers_B][:, None, None]
        return torch.from_numpy(found_B2C[:, 0]), torch.from_numpy(found_B2C[:, 1])

    def _files_of(self, numbers_B: _Indices) -> list[int]:
        """Numbers of the files that a batch is read from."""
        return [0] if len(self._audio) == 1 else np.unique(numbers_B).tolist()


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
        with_statistics: bool = False,
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
            with_statistics: Give each batch the mean and standard deviation of its events.

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
        self._with_statistics = with_statistics

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
        reader = _Reader(events, pin_memory=self._pin_memory, with_statistics=self._with_statistics)

        def crop(indices_B: _Indices) -> _Crops:
            full_B = events.lengths[indices_B]
            lengths_B = np.minimum(full_B, self._crop_length)
            starts_B = (fractions[indices_B] * (full_B - lengths_B + 1)).astype(np.int64)
            return indices_B, starts_B, lengths_B

        return reader.read_all(map(crop, schedule[start_step:]))


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
        with_statistics: bool = False,
    ) -> None:
        """Set up one worker's share.

        Args:
            events: The set, the same on all workers.
            crop_length: Samples of an event that are seen at most.
            per_worker_batch_size: Events of a batch; the last has what is left.
            world_size: Number of workers.
            rank: This worker.
            pin_memory: Read into page-locked memory, for asynchronous copies to a GPU.
            with_statistics: Give each batch the mean and standard deviation of its events.

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
        self._with_statistics = with_statistics
        cropped = np.minimum(events.lengths, crop_length)
        longest_first = np.argsort(-cropped, kind="stable")
        places = evaluation_shard(len(events), world_size=world_size, rank=rank)
        self._indices = longest_first[places]

    def __len__(self) -> int:
        return -(-len(self._indices) // self._per_worker_batch_size)

    def __iter__(self) -> Iterator[Batch]:
        reader = _Reader(
            self._events, pin_memory=self._pin_memory, with_statistics=self._with_statistics
        )
        return reader.read_all(self._crops())

    def _crops(self) -> Iterator[_Crops]:
        for first in range(0, len(self._indices), self._per_worker_batch_size):
            indices_B = self._indices[first : first + self._per_worker_batch_size]
            full_B = self._events.lengths[indices_B]
            lengths_B = np.minimum(full_B, self._crop_length)
            # A copy, so that no batch shares memory with the order of all later ones.
            yield indices_B.copy(), (full_B - lengths_B) // 2, lengths_B


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
