"""Events a second of the training feed, beside a copy in memory and beside an ordinary DataLoader.

    feed         TrainingBatches: crop, pad, to a tensor, with the statistics of every event
    copy         the same crops, padded, copied from an array in memory into an array that is used again
    feed+z       the feed, and the z-score as the network gets it
    DataLoader+z PyTorch's DataLoader with 2 workers; each item through h5py, with its own z-score

Crops of 8192 samples, batches of 64, page cache warm, one process but for the DataLoader's workers. The table
also has the memory of two processes on the same file: each has its own proportional share (PSS) of it.
"""

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from gerbil_tune.config.schema import EventZScore
from gerbil_tune.data.batches import TrainingBatches
from gerbil_tune.data.events import EventSet, open_events
from gerbil_tune.data.shards import crop_fractions, training_schedule
from gerbil_tune.models.scaling import scale_audio

CROP_LENGTH = 8192
GLOBAL_BATCH_SIZE = 64
EVENT_LENGTHS = (4096, 16384)
LOADER_EVENTS = 1000


def write_events(path: Path, num_events: int, channels: int, dtype: str, **storage: Any) -> None:
    generator = np.random.default_rng(0)
    lengths = generator.integers(*EVENT_LENGTHS, size=num_events)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    with h5py.File(path, "w") as file:
        audio = file.create_dataset("audio", (starts[-1], channels), dtype, **storage)
        block = (generator.standard_normal((1 << 20, channels)) * 1000).astype(dtype)
        for first in range(0, starts[-1], len(block)):
            audio[first : first + len(block)] = block[: starts[-1] - first]
        file["length_idx"] = starts
        file["locations"] = generator.uniform(-100, 100, (num_events, 2))


def batches_of(events: EventSet) -> TrainingBatches:
    return TrainingBatches(
        events,
        crop_length=CROP_LENGTH,
        global_batch_size=GLOBAL_BATCH_SIZE,
        seed=0,
        with_statistics=True,
    )


def feed(events: EventSet) -> int:
    """Read one epoch and return its events."""
    count = 0
    for batch in batches_of(events).epoch(0):
        count += len(batch.indices_B)
        del batch  # done with it: its memory serves the next one, as it does the copy's
    return count


def feed_scaled(events: EventSet) -> int:
    """The same, and each batch scaled."""
    count = 0
    for batch in batches_of(events).epoch(0):
        scaled_BTC = scale_audio(
            batch.audio_BTC,
            batch.lengths_B,
            EventZScore(),
            (batch.mean_BC, batch.sd_BC),
            may_overwrite=True,
        )
        count += len(scaled_BTC)
        del batch, scaled_BTC
    return count


def copy_crops(events: EventSet, memory: np.ndarray) -> int:
    """The crops of the same epoch from memory to memory."""
    schedule = training_schedule(
        len(events),
        epoch=0,
        seed=0,
        global_batch_size=GLOBAL_BATCH_SIZE,
        world_size=1,
        rank=0,
    )
    fractions = crop_fractions(len(events), epoch=0, seed=0)
    target = np.zeros((GLOBAL_BATCH_SIZE, CROP_LENGTH, events.num_microphones), memory.dtype)
    for indices in schedule:
        lengths = np.minimum(events.lengths[indices], CROP_LENGTH)
        offsets = (fractions[indices] * (events.lengths[indices] - lengths + 1)).astype(int)
        starts = events.first_samples[indices] + offsets
        for row, start, length in zip(target, starts.tolist(), lengths.tolist(), strict=True):
            row[:length] = memory[start : start + length]
            row[length:] = 0
    return schedule.size


class OrdinaryDataset(Dataset):
    """Event by event through h5py, opened in each worker, as is usual: index, event, crop, pad, z-score."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file: h5py.File | None = None
        with h5py.File(path) as file:
            self.num_events = min(len(file["locations"]), LOADER_EVENTS)

    def __len__(self) -> int:
        return self.num_events

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        if self.file is None:
            self.file = h5py.File(self.path)
        start, stop = self.file["length_idx"][i : i + 2]
        audio = self.file["audio"][start:stop].astype(np.float32)
        if len(audio) > CROP_LENGTH:
            first = np.random.default_rng(i).integers(len(audio) - CROP_LENGTH + 1)
            audio = audio[first : first + CROP_LENGTH]
        padded = np.zeros((CROP_LENGTH, audio.shape[1]), np.float32)
        padded[: len(audio)] = (audio - audio.mean()) / audio.std()
        return torch.from_numpy(padded), torch.from_numpy(self.file["locations"][i])


def ordinary_loader(loader: DataLoader) -> int:
    return sum(len(audio) for audio, _ in loader)


def best_rate(work: Callable[[], int], repeats: int) -> float:
    """Largest events a second of some repeats, after one to warm up."""
    work()
    best = 0.0
    for _ in range(repeats):
        begin = time.perf_counter()
        num_events = work()
        best = max(best, num_events / (time.perf_counter() - begin))
    return best


def measure(name: str, path: Path) -> None:
    events = open_events(path)
    memory = np.array(events.files[0].audio())
    rate = best_rate(lambda: feed(events), 5)
    copy = best_rate(partial(copy_crops, events, memory), 5)
    scaled = best_rate(lambda: feed_scaled(events), 3)
    loader = DataLoader(
        OrdinaryDataset(path),
        GLOBAL_BATCH_SIZE,
        shuffle=True,
        num_workers=2,
        persistent_workers=True,
    )
    ordinary = best_rate(lambda: ordinary_loader(loader), 2)
    print(
        f"{name:22s} feed {rate:8,.0f}/s  copy {copy:8,.0f}/s  ratio {rate / copy:4.2f}   "
        f"feed+z {scaled:7,.0f}/s  DataLoader+z {ordinary:5,.0f}/s  ratio {scaled / ordinary:5.1f}",
        flush=True,
    )


def memory_kib(path: Path) -> dict[str, int]:
    """Resident and proportional memory of this process's mappings of a file, in KiB."""
    sizes = {"Rss": 0, "Pss": 0}
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        head = line.split()
        if "-" in head[0] and not head[0].endswith(":"):
            inside = line.endswith(str(path))
        elif inside and head[0][:-1] in sizes:
            sizes[head[0][:-1]] += int(head[1])
    return sizes


def feed_and_wait(path: Path, barrier: Any, results: Any) -> None:
    events = open_events(path)
    for file in events.files:
        file.audio()[::512].sum()  # touch every page
    feed(events)
    barrier.wait()
    results.put(memory_kib(path))
    barrier.wait()


def share_of_memory(path: Path) -> None:
    """Two processes read everything; print what each has of the file."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    processes = [
        context.Process(target=feed_and_wait, args=(path, barrier, results)) for _ in range(2)
    ]
    for process in processes:
        process.start()
    found = [results.get() for _ in processes]
    for process in processes:
        process.join()
    size = path.stat().st_size / 2**20
    shares = [one["Pss"] / 1024 for one in found]
    print(
        f"memory of a file of {size:,.0f} MB read by two processes: "
        f"{shares[0]:,.0f} + {shares[1]:,.0f} MB proportional = {sum(shares) / size:.2f} copies"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=3000)
    parser.add_argument("--only", help="part of a name")
    arguments = parser.parse_args()
    many, few = arguments.events, arguments.events // 4
    cases: list[tuple[str, int, int, str, dict[str, Any]]] = [
        ("4 channels float32", many, 4, "float32", {}),
        ("4 channels int16", many, 4, "int16", {}),
        ("24 channels float32", few, 24, "float32", {}),
        ("24 channels int16", few, 24, "int16", {}),
        ("4 ch. gzip, packed", few, 4, "int16", {"chunks": (4096, 4), "compression": "gzip"}),
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.h5"
        for name, num_events, channels, dtype, storage in cases:
            if arguments.only and arguments.only not in name:
                continue
            write_events(path, num_events, channels, dtype, **storage)
            measure(name, path)
        write_events(path, many, 4, "float32")
        share_of_memory(path)


if __name__ == "__main__":
    main()
