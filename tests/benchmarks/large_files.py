"""Files larger than memory: how fast they open, what they cost, and whether they can be trained on.

open    a file of 200,000 events: seconds, and memory above a process that has imported as much
train   a sparse file of twice the machine's memory: a few steps of the real training loop
"""

import argparse
import gc
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import torch

NUM_MICROPHONES = 4


def write_sparse(path: Path, num_events: int, total_bytes: int) -> None:
    """Write a file whose audio takes no disk but for noise at the start of some events."""
    samples = total_bytes // (2 * NUM_MICROPHONES)
    generator = np.random.default_rng(0)
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.CONTIGUOUS)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    with h5py.File(path, "w") as file:
        space = h5py.h5s.create_simple((samples, NUM_MICROPHONES))
        h5py.h5d.create(file.id, b"audio", h5py.h5t.NATIVE_INT16, space, properties)
        starts = np.linspace(0, samples, num_events + 1).astype(np.int64)
        noise = generator.integers(-1000, 1000, (2048, NUM_MICROPHONES), dtype=np.int16)
        for start in starts[: -1 : max(1, num_events // 2000)]:
            file["audio"][start : start + 2048] = noise
        file["length_idx"] = starts
        file["locations"] = generator.uniform(-150, 150, (num_events, 2)).astype(np.float32)
        file.attrs["sample_rate_hz"] = 125_000.0
        file.attrs["arena_mm"] = [572.0, 356.0]


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6


def measure_open(path: Path) -> None:
    from gerbil_tune.data.events import open_events

    gc.collect()
    before = resident_mb()
    begin = time.perf_counter()
    events = open_events(path)
    seconds = time.perf_counter() - begin
    print(
        f"open: {len(events):,} events of a file of {path.stat().st_size / 1e9:,.1f} GB in {seconds:.3f} s, "
        f"{resident_mb() - before:.1f} MB"
    )


def measure_cold(path: Path) -> None:
    from gerbil_tune.data import batches
    from gerbil_tune.data.events import open_events

    events = open_events(path)
    rates = []
    for to_announce in (0, batches._BATCHES_TO_ANNOUNCE):
        batches._BATCHES_TO_ANNOUNCE = to_announce
        with path.open("rb") as stream:
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        source = batches.TrainingBatches(
            events, crop_length=8192, global_batch_size=64, seed=to_announce
        )
        begin = time.perf_counter()
        count = sum(
            len(batch.indices_B) for batch, _ in zip(source.epoch(0), range(40), strict=False)
        )
        rates.append(count / (time.perf_counter() - begin))
    print(
        f"cold: {rates[1]:,.0f} events/s announced, {rates[0]:,.0f} not: x{rates[1] / rates[0]:.1f} "
        "(first batch always unannounced)"
    )


def measure_training(path: Path, folder: Path) -> None:
    from gerbil_tune.config.load import load_experiment
    from gerbil_tune.data.batches import TrainingBatches
    from gerbil_tune.data.events import recording_setup
    from gerbil_tune.data.splits.splits import load_splits
    from gerbil_tune.training.job import TrainingJob
    from gerbil_tune.training.loop import train_loop
    from gerbil_tune.training.session import InProcessSession

    config = load_experiment(
        None, ["training/epochs=1", "data/crop_length=8192", "data/evaluation_crop_length=8192"]
    )
    splits = load_splits(path, config.data, folder)
    setup = recording_setup(splits.train, config.data)
    batches = TrainingBatches(splits.train, crop_length=8192, global_batch_size=64, seed=0)
    begin = time.perf_counter()
    train_loop(
        TrainingJob(config, setup, splits, folder / "run"),
        InProcessSession(lambda _: None, torch.device("cpu")),
    )
    seconds = time.perf_counter() - begin
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGESIZE")
    print(
        f"train: {batches.num_steps} steps of 64 events and the validation on a file of "
        f"{path.stat().st_size / memory:.1f} times the memory in {seconds:.0f} s; peak resident "
        f"{peak_mb():,.0f} MB, mapped pages included"
    )


def peak_mb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1000
    raise RuntimeError("the kernel states no peak")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--step", choices=("open", "cold", "train"), help="one, in this process")
    parser.add_argument("--path", type=Path)
    arguments = parser.parse_args()
    if arguments.step == "open":
        measure_open(arguments.path)
        return
    if arguments.step == "cold":
        measure_cold(arguments.path)
        return
    if arguments.step == "train":
        measure_training(arguments.path, arguments.path.parent / "training")
        return
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGESIZE")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.h5"
        environment = os.environ | {"GERBIL_TUNE_CACHE_DIR": folder}
        for step, num_events, size in (
            ("open", 200_000, 16 << 30),
            ("cold", 4000, 16 << 30),
            ("train", 4000, 2 * memory),
        ):
            write_sparse(path, num_events, size)
            command = [sys.executable, __file__, "--step", step, "--path", str(path)]
            subprocess.run(command, check=True, env=environment)


if __name__ == "__main__":
    main()
