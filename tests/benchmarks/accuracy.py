"""How far features and architectures come in the same time, on simulated calls that nothing has seen.

3,000 training, 400 validation and 1,000 held-out calls in the reverberant arena e1, 5 to 25 dB; each network
is trained in this process alone for as long (its schedule is planned from the time that two epochs take), and
its best weights locate the held-out calls. Beamforming needs no training. Measure alone: two hours.

    python tests/benchmarks/accuracy.py [--minutes 10] [--data FOLDER] [--only gcc maps ...]
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.data.events import EventSet, open_events, recording_setup
from gerbil_tune.data.simulate import PRESETS, make_spec, simulate
from gerbil_tune.data.splits.splits import Splits
from gerbil_tune.evaluation.accuracy import errors_mm
from gerbil_tune.evaluation.baselines import srp_phat
from gerbil_tune.models.bundle import weights_name
from gerbil_tune.models.localizer import Localizer, autocast_dtype
from gerbil_tune.training.job import TrainingJob
from gerbil_tune.training.loop import train_loop
from gerbil_tune.training.session import InProcessSession, local_device
from gerbil_tune.training.steps import ValidationSet
from gerbil_tune.training.validation import predict_validation

SIZES = {"train_set": (3000, 1), "val_set": (400, 2), "held_out": (1000, 3)}
"""Events and seed of each file."""
SOURCE_HEIGHT_MM = 40.0
MIRROR = {"augmentation": {"mirror_prob": 0.5}}
CONV = {"data": {"crop_length": 8192}}


def waveform(**kinds: bool) -> dict[str, Any]:
    """simplenet on these channels over time."""
    return {"model": {"kind": "simplenet"}, "features": {"waveform": kinds}, **CONV}


NETWORKS: dict[str, dict[str, Any]] = {
    "waveform": waveform(raw=True),
    "analytic": waveform(raw=True, quadrature=True),
    "envelope": waveform(raw=False, envelope=True),
    "phase": waveform(raw=False, phase=True),
    "log-power": waveform(raw=False, log_power=True),
    "gcc": {"model": {"kind": "gcc-net"}},
    "maps": {"model": {"kind": "srp-net"}, "head": {"kind": "grid"}},
    "corrnet": {"model": {"kind": "corrnet"}, **CONV},
    "gcc, mirrored": {
        "model": {"kind": "gcc-net"},
        "features": {"gcc": {"coherence_exponent": 1.0, "envelope": True}},
        **MIRROR,
    },
    "maps, mirrored": {
        "model": {"kind": "srp-net"},
        "head": {"kind": "grid"},
        "features": {"maps": {"coherence_exponent": 1.0}},
        **MIRROR,
    },
    "microphone set": {
        "model": {"kind": "micset-net"},
        "features": {"gcc": {"coherence_exponent": 1.0, "envelope": True}},
        **MIRROR,
    },
}
"""One feature alone, by the network that is made for it; corrnet, whose convolutions are those of simplenet;
and candidates for the best."""


def open_data(folder: Path) -> dict[str, EventSet]:
    """Simulate what is not there."""
    for name, (num_events, seed) in SIZES.items():
        path = folder / f"{name}.h5"
        if not path.exists():
            simulate(make_spec(PRESETS["e1"]), path, num_events=num_events, seed=seed)
    return {name: open_events(folder / f"{name}.h5") for name in SIZES}


def make_job(
    sections: dict[str, Any], events: dict[str, EventSet], run_dir: Path, epochs: int
) -> TrainingJob:
    """Train a configuration for so many epochs."""
    config = ExperimentConfig.model_validate({**sections, "training": {"epochs": epochs}})
    splits = Splits(events["train_set"], events["val_set"], None)
    return TrainingJob(config, recording_setup(events["train_set"], config.data), splits, run_dir)


def train_for(
    seconds: float, sections: dict[str, Any], events: dict[str, EventSet], folder: Path
) -> tuple[TrainingJob, float]:
    """Train with as many epochs as fit, the first of another run being the measure; the job and its time."""
    began = time.perf_counter()
    ends: list[float] = []
    trial = make_job(sections, events, folder / "trial", 2)
    train_loop(trial, InProcessSession(lambda _: ends.append(time.perf_counter()), local_device()))
    # Features that stay the same are computed with the first epoch alone.
    first_s, epoch_s = ends[0] - began, ends[1] - ends[0]
    epochs = max(2, 1 + int((seconds - first_s) / epoch_s))
    job = make_job(sections, events, folder / "run", epochs)
    began = time.perf_counter()
    train_loop(job, InProcessSession(lambda _: None, local_device()))
    return job, time.perf_counter() - began


def held_out_errors_mm(job: TrainingJob, held_out: EventSet) -> np.ndarray:
    """Errors of the best weights."""
    session = InProcessSession(lambda _: None, local_device())
    model = Localizer(job.config, job.setup).to(session.device)
    model.load_state_dict(load_file(job.run_dir / weights_name("best")))
    model.autocast_dtype = autocast_dtype(job.config, session.device)
    tested = replace(job, splits=Splits(job.splits.train, held_out, None))
    raw, truth = predict_validation(model, ValidationSet(model, tested, session), session)
    return errors_mm(
        model.density(raw.to(session.device)).mean_mm_BKD.detach().cpu(), truth.numpy()
    )


def show(name: str, errors_mm_N: np.ndarray, more: str = "") -> None:
    """Print a line."""
    median, p90 = np.quantile(errors_mm_N, [0.5, 0.9])
    print(
        f"{name:<28} median {median:6.1f}  mean {errors_mm_N.mean():6.1f}  p90 {p90:6.1f} mm{more}",
        flush=True,
    )


def beamform(held_out: EventSet) -> None:
    """Print the errors of beamforming."""
    setup = recording_setup(held_out, ExperimentConfig().data)
    for name, weighted in (("SRP-PHAT", False), ("SRP-PHAT, coherence", True)):
        found = srp_phat(held_out, setup, SOURCE_HEIGHT_MM, coherence_weighted=weighted)
        show(name, errors_mm(found, held_out.locations_mm[:, :1, :2]))


def main() -> None:
    """Print a line a method."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="of training, each network")
    parser.add_argument("--data", type=Path, help="folder that keeps the simulated calls")
    parser.add_argument("--only", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = options.data or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        events = open_data(folder)
        print(f"{torch.get_num_threads()} threads, {options.minutes:g} min each")
        beamform(events["held_out"])
        for network in options.only:
            runs = Path(name, network)
            job, seconds = train_for(60 * options.minutes, NETWORKS[network], events, runs)
            epochs = job.config.training.epochs
            errors_N = held_out_errors_mm(job, events["held_out"])
            show(network, errors_N, f"  {epochs} epochs in {seconds / 60:.1f} min")


if __name__ == "__main__":
    main()
