"""Events a second of TrainingBatches, beside h5py event by event and a bare copy of as many bytes.

4 microphones, crops of 8192 samples, global batch 64, one process, page cache warm.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from gerbil_tune.data.batches import TrainingBatches
from gerbil_tune.data.events import EventSet, open_events

NUM_MICROPHONES = 4
CROP_LENGTH = 8192
GLOBAL_BATCH_SIZE = 64
EVENT_LENGTHS = (4096, 16384)


def write_events(path: Path, num_events: int, dtype: str) -> None:
    generator = np.random.default_rng(0)
    lengths = generator.integers(*EVENT_LENGTHS, size=num_events)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    with h5py.File(path, "w") as file:
        audio = file.create_dataset("audio", (starts[-1], NUM_MICROPHONES), dtype)
        block = (generator.standard_normal((1 << 20, NUM_MICROPHONES)) * 1000).astype(dtype)
        for first in range(0, starts[-1], len(block)):
            audio[first : first + len(block)] = block[: starts[-1] - first]
        file["length_idx"] = starts
        file["locations"] = generator.uniform(-100, 100, (num_events, 2))


def read_batches(events: EventSet) -> int:
    """Read one epoch and return its events."""
    batches = TrainingBatches(
        events, crop_length=CROP_LENGTH, global_batch_size=GLOBAL_BATCH_SIZE, seed=0
    )
    return sum(len(batch.indices_B) for batch in batches.epoch(0))


def read_naively(path: Path) -> int:
    """Read event by event as the predecessors did: index, whole event, location; then pad."""
    with h5py.File(path) as file:
        num_events = min(len(file["locations"]), 1000)
        order = np.random.default_rng(0).permutation(len(file["locations"]))[:num_events]
        for first in range(0, num_events, GLOBAL_BATCH_SIZE):
            rows = []
            for i in order[first : first + GLOBAL_BATCH_SIZE]:
                start, stop = file["length_idx"][i], file["length_idx"][i + 1]
                rows.append(file["audio"][start:stop][:CROP_LENGTH])
                file["locations"][i]
            padded = np.zeros((len(rows), CROP_LENGTH, NUM_MICROPHONES), file["audio"].dtype)
            for row, crop in zip(padded, rows, strict=True):
                row[: len(crop)] = crop
    return num_events


def copy_memory(source: np.ndarray, target: np.ndarray) -> int:
    """Copy as many bytes as an epoch's batches have, in batches, from memory to memory."""
    for batch in source:
        np.copyto(target, batch)
    return len(source) * GLOBAL_BATCH_SIZE


def best_rate(work: Callable[[], int], repeats: int = 4) -> float:
    """Largest events a second of some repeats; the first repeat warms up."""
    best = 0.0
    for _ in range(repeats):
        begin = time.perf_counter()
        num_events = work()
        best = max(best, num_events / (time.perf_counter() - begin))
    return best


def measure(folder: Path, num_events: int, dtype: str) -> None:
    path = folder / f"{dtype}.h5"
    write_events(path, num_events, dtype)
    events = open_events(path)
    shape = (GLOBAL_BATCH_SIZE, CROP_LENGTH, NUM_MICROPHONES)
    source = np.ones((num_events // GLOBAL_BATCH_SIZE, *shape), dtype)
    target = np.ones(shape, dtype)
    batches = best_rate(lambda: read_batches(events))
    naive = best_rate(lambda: read_naively(path), repeats=2)
    copy = best_rate(lambda: copy_memory(source, target))
    gigabytes = batches * target[0].nbytes / 1e9
    print(
        f"{dtype:8s} TrainingBatches {batches:8,.0f} events/s ({gigabytes:.1f} GB/s)   "
        f"h5py by event {naive:6,.0f} (x{batches / naive:.1f})   "
        f"bare copy {copy:8,.0f} (x{batches / copy:.2f})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=3000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for dtype in ("float32", "int16"):
            measure(Path(folder), arguments.events, dtype)


if __name__ == "__main__":
    main()
