"""An easy training problem: bursts of noise that reach four corners after their way through the air.

Letters: C microphones, T samples.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.data.events import open_events
from gerbil_tune.data.splits.splits import Splits
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.training.job import TrainingJob
from gerbil_tune.training.loop import train_loop
from gerbil_tune.training.session import InProcessSession

RATE_HZ = 50_000.0
ARENA_MM = (572.0, 356.0)
MICROPHONES_MM = tuple((x, y, 100.0) for x in (-286.0, 286.0) for y in (-178.0, 178.0))
SETUP = RecordingSetup(4, RATE_HZ, ARENA_MM, MICROPHONES_MM)
NUM_TRAINING, NUM_VALIDATION = 160, 41

BASE: dict[str, Any] = {
    "data": {"crop_length": 600},
    "features": {"gcc": {"window_length": 512}},
    "model": {
        "kind": "gcc-net",
        "lags": {"num_channels": 8, "num_blocks": 2, "hidden": 32, "dropout": 0.1},
    },
    "optimizer": {"kind": "adamw", "learning_rate": 3e-3},
    "augmentation": {"polarity_prob": 0.5, "noise_prob": 0.5, "mirror_prob": 0.2},
    "training": {"epochs": 3, "global_batch_size": 32, "seed": 5},
}


@pytest.fixture(autouse=True, scope="package")
def one_thread():
    """Small tensors on a busy machine: threads that wait for each other cost ten times the work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_bursts(lengths: np.ndarray, locations_mm: np.ndarray) -> np.ndarray:
    """Audio (T, C) of all events: white noise, delayed for each microphone, with a little noise."""
    generator = np.random.default_rng(0)
    events = []
    for length, place_mm in zip(lengths, locations_mm, strict=True):
        source = generator.standard_normal(length + 200)
        spectrum, frequency_hz = np.fft.rfft(source), np.fft.rfftfreq(len(source), 1 / RATE_HZ)
        paths_mm = np.linalg.norm(np.array(MICROPHONES_MM) - [*place_mm, 0.0], axis=1)
        phases = np.exp(-2j * np.pi * frequency_hz[:, None] * paths_mm / 343_200)
        audio_TC = np.fft.irfft(spectrum[:, None] * phases, n=len(source), axis=0)[200:]
        events.append(audio_TC + 0.1 * generator.standard_normal(audio_TC.shape))
    return np.concatenate(events)


@pytest.fixture(scope="package")
def easy_splits(tmp_path_factory: pytest.TempPathFactory) -> Splits:
    """Training and validation events of the easy problem."""
    import h5py

    generator = np.random.default_rng(1)
    path = tmp_path_factory.mktemp("easy") / "events.h5"
    number = NUM_TRAINING + NUM_VALIDATION
    lengths = generator.integers(400, 900, number)
    locations_mm = generator.uniform(-0.5, 0.5, (number, 2)) * ARENA_MM
    with h5py.File(path, "w") as file:
        file["audio"] = make_bursts(lengths, locations_mm).astype(np.float32)
        file["length_idx"] = np.concatenate([[0], np.cumsum(lengths)])
        file["locations"] = locations_mm
    events = open_events(path)
    return Splits(
        events.subset(np.arange(NUM_TRAINING)), events.subset(np.arange(NUM_TRAINING, number)), None
    )


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Change a tree leaf by leaf; a section of another kind replaces the old one."""
    result = dict(base)
    for key, value in changes.items():
        old = base.get(key)
        same_kind = isinstance(old, dict) and value.get("kind", old.get("kind")) == old.get("kind")
        result[key] = merged(old, value) if isinstance(old, dict) and same_kind else value
    return result


@pytest.fixture
def make_job(easy_splits: Splits, tmp_path: Path) -> Callable[..., TrainingJob]:
    """Factory of jobs on the easy problem: ``make_job("run", training={"epochs": 5})``."""

    def make(name: str = "run", splits: Splits = easy_splits, **sections: Any) -> TrainingJob:
        config = ExperimentConfig.model_validate(merged(BASE, sections))
        return TrainingJob(config, SETUP, splits, tmp_path / name)

    return make


@pytest.fixture(scope="package")
def run_job() -> Callable[..., list[dict[str, float]]]:
    """Train a job in this process and return what it reported, without the timings."""

    def run(job: TrainingJob, on_report: Callable[[dict[str, float]], object] = lambda _: None):
        reports = []

        def report(metrics: dict[str, float]) -> None:
            timing = ("epoch_s", "train_events_per_s", "predict_ms_per_event")
            reports.append({k: v for k, v in metrics.items() if k not in timing})
            on_report(metrics)

        train_loop(job, InProcessSession(report, torch.device("cpu")))
        return reports

    return run
