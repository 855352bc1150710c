"""Batch prediction beside the network alone, two workers beside one, and evaluation beside a loop.

- 20,000 events of noise in one file are predicted by the whole job, from opening the file to the last byte of
  the result, in this process; the network alone predicts the same batches, read before, in memory. They take
  turns; the ratio is that of the medians.
- The same job in a pool of one and of two actors on a Ray of two CPUs that runs already. Each actor holds one
  CPU and computes on one thread, whatever OMP_NUM_THREADS says; the thread that reads ahead in it needs a few
  hundredths of a core. One and two take turns; the ratio of a round is that of two jobs side by side, and the
  median is printed, with all of them. First as the user sees it; then without the start of the actors, which
  is what the same job takes of one batch for each actor: the ratio of a long job.
- Evaluation with calibration of 100,000 predictions: error, likelihood, level of the truth, coverage, regions
  and the table's figures, at once and event by event in Python (of 1,000 events, times 100).

    python tests/benchmarks/predict.py [--events 20000] [--model gcc-net] [--only forward workers evaluation]
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import torch

from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.data.batches import Batch, EvaluationBatches
from gerbil_tune.data.events import open_events
from gerbil_tune.evaluation.calibration import calibration_error
from gerbil_tune.evaluation.predictions import describe
from gerbil_tune.evaluation.score import score
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.inference.job import predict_files
from gerbil_tune.inference.predict import plan_tasks
from gerbil_tune.models.bundle import WEIGHTS, load_bundle, save_bundle, save_weights, weights_name
from gerbil_tune.models.calibrated import Calibration
from gerbil_tune.models.density import LocationDensity
from gerbil_tune.models.localizer import Localizer
from gerbil_tune.tracking.model_registry import ResolvedModel

SETUP = RecordingSetup(4, 125_000.0, (572.0, 356.0))
LENGTHS = (1_000, 8_000)
BATCH = 64
NUM_PREDICTIONS, NUM_IN_LOOP = 100_000, 1_000


def make_bundle(folder: Path, kind: str) -> Path:
    """Export a network with random weights."""
    torch.manual_seed(0)
    config = ExperimentConfig.model_validate({"model": {"kind": kind}})
    weights = Localizer(config, SETUP).state_dict()
    for which in WEIGHTS:
        save_weights(folder / weights_name(which), weights)
    return save_bundle(
        folder / "models",
        config=config,
        setup=SETUP,
        weights_folder=folder,
        metrics={},
        calibration=Calibration(),
        provenance={"data_fingerprint": "0"},
    )


def make_recording(path: Path, num_events: int) -> Path:
    """Write events of noise, int16."""
    generator = np.random.default_rng(0)
    lengths = generator.integers(*LENGTHS, num_events)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    with h5py.File(path, "w") as file:
        audio = file.create_dataset("vocalizations", (starts[-1], SETUP.num_microphones), np.int16)
        for first in range(0, num_events, 1000):
            begin, end = starts[first], starts[min(first + 1000, num_events)]
            noise = generator.standard_normal((end - begin, SETUP.num_microphones), np.float32)
            audio[begin:end] = noise * 1000
        file["len_idx"] = starts
        file.attrs["sample_rate_hz"] = SETUP.sample_rate_hz
        file.attrs["arena_mm"] = SETUP.arena_mm
    return path


def seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def no_ray(_: object) -> None:
    raise AssertionError("this job needs no Ray")


def against_forward(bundle_path: Path, recording: Path, rounds: int) -> None:
    """Print the ratio of the job's events a second to those of the network alone."""
    bundle, events = load_bundle(bundle_path), open_events(recording)
    batches: list[Batch] = []
    for task in plan_tasks([events], per_worker_batch_size=BATCH, crop_length=bundle.crop_length):
        part = events.subset(np.arange(task.start, task.stop))
        options = {"crop_length": bundle.crop_length, "per_worker_batch_size": BATCH}
        batches += EvaluationBatches(part, with_statistics=bundle.uses_statistics, **options)

    def forward() -> None:
        for batch in batches:
            bundle.predict_batch(batch.audio_BTC, batch.lengths_B, batch.mean_BC, batch.sd_BC)

    def job() -> None:
        with tempfile.TemporaryDirectory() as folder:
            model = ResolvedModel(bundle_path, "benchmark")
            predict_files(model, [recording], Path(folder, "out.h5"), start_ray=no_ray, workers=0)

    forward()
    job()
    alone = [seconds(forward) for _ in range(rounds)]
    whole = [seconds(job) for _ in range(rounds)]
    rates = [len(events) / statistics.median(taken) for taken in (whole, alone)]
    print(
        f"{bundle.kind}: predict {rates[0]:,.0f} events/s, network alone {rates[1]:,.0f}: "
        f"{rates[0] / rates[1]:.2f} ({torch.get_num_threads()} threads)",
        flush=True,
    )


def against_one_worker(bundle_path: Path, recording: Path, num_events: int, rounds: int) -> None:
    """Print how many times the events a second of one actor two have."""
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    model = ResolvedModel(bundle_path, "benchmark")

    def job(workers: int, *recordings: Path) -> None:
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder, "out")
            predict_files(model, recordings, output, start_ray=lambda _: None, workers=workers)

    few = [make_recording(recording.with_name(f"few-{i}.h5"), BATCH) for i in range(2)]
    job(2, *few)  # files and programs are in memory from here on
    whole: dict[int, list[float]] = {1: [], 2: []}
    start: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(rounds):
        for workers in whole:
            start[workers].append(seconds(partial(job, workers, *few[:workers])))
            whole[workers].append(seconds(partial(job, workers, recording)))
    ray.shutdown()
    work = {n: [w - s for w, s in zip(whole[n], start[n], strict=True)] for n in whole}
    for what, taken in (("with the start of the actors", whole), ("without", work)):
        rates = [num_events / statistics.median(taken[n]) for n in (1, 2)]
        ratios = sorted(one / two for one, two in zip(taken[1], taken[2], strict=True))
        print(
            f"two workers of one CPU and one thread {rates[1]:,.0f} events/s, one {rates[0]:,.0f}: "
            f"x{statistics.median(ratios):.2f} ({what}; {', '.join(f'{x:.2f}' for x in ratios)})",
            flush=True,
        )
    print(
        f"start of the actors: one {statistics.median(start[1]):.1f} s, two "
        f"{statistics.median(start[2]):.1f} s",
        flush=True,
    )


def against_loop() -> None:
    """Print how long evaluation takes, and how many times as long a loop over events."""
    generator = torch.Generator().manual_seed(0)
    factor = 20 * torch.randn(NUM_PREDICTIONS, 1, 2, 2, generator=generator).tril()
    factor.diagonal(dim1=-2, dim2=-1).abs_().add_(10.0)
    density = LocationDensity.gaussian(torch.zeros(NUM_PREDICTIONS, 1, 2), factor)
    noise = torch.randn(NUM_PREDICTIONS, 1, 2, 1, generator=generator)
    truth = (factor @ noise)[..., 0]
    found: dict[str, float] = {}

    def at_once() -> None:
        found.update(score(density, truth))
        describe(density, Calibration(), SETUP, truth.numpy())

    def one_by_one() -> None:
        levels = []
        for i in range(NUM_IN_LOOP):
            row = slice(i, i + 1)
            score(density.rows(row), truth[row])
            each = describe(density.rows(row), Calibration(), SETUP, truth[row].numpy())
            levels.append(each.level_NK)
        calibration_error(np.concatenate(levels))

    at_once()
    vectorized, loop = seconds(at_once), seconds(one_by_one) * NUM_PREDICTIONS / NUM_IN_LOOP
    print(
        f"evaluation of {NUM_PREDICTIONS:,} predictions: {vectorized:.2f} s, event by event {loop:,.0f} s: "
        f"x{loop / vectorized:,.0f}; calibration error {found['calibration_error']:.4f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--model", default="gcc-net")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=["forward", "workers", "evaluation"])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bundle = make_bundle(Path(folder), arguments.model)
        recording = make_recording(Path(folder, "calls.h5"), arguments.events)
        if "forward" in arguments.only:
            against_forward(bundle, recording, arguments.rounds)
        if "workers" in arguments.only:
            against_one_worker(bundle, recording, arguments.events, arguments.rounds)
        if "evaluation" in arguments.only:
            against_loop()


if __name__ == "__main__":
    main()
