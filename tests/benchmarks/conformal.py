"""Whether conformal regions cover what they promise in arenas that differ: simulated, trained, calibrated.

Each arena has its own size, absorption, microphones and calls. A small network is trained in each, thresholds
come from events that it has not seen, and coverage from events that neither has seen. The band holds the
fraction covered 95 times of 100 where all events are alike: beta-binomial, for both sets are finite.

    python tests/benchmarks/conformal.py [--arenas 5] [--events 1500] [--epochs 12]
"""

import argparse
import math
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from scipy.stats import betabinom

from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.data.batches import EvaluationBatches
from gerbil_tune.data.events import EventSet, open_events, recording_setup
from gerbil_tune.data.simulate import Room, make_spec, simulate
from gerbil_tune.data.splits.splits import Splits
from gerbil_tune.evaluation.accuracy import errors_mm
from gerbil_tune.evaluation.calibration import coverage, hdr_levels
from gerbil_tune.evaluation.conformal import conformal_scores, conformal_thresholds, fit_conformal
from gerbil_tune.evaluation.temperature import fit_temperature
from gerbil_tune.models.bundle import weights_name
from gerbil_tune.models.calibrated import Calibration
from gerbil_tune.models.density import LocationDensity
from gerbil_tune.models.localizer import Localizer, read_outputs
from gerbil_tune.training.job import TrainingJob
from gerbil_tune.training.loop import train_loop
from gerbil_tune.training.session import InProcessSession, local_device

LEVEL = 0.9
NUM_VALIDATION, NUM_CALIBRATION, NUM_TEST = 200, 3000, 4000


def draw_room(number: int) -> Room:
    """Make a box of its own with four to six microphones on its walls."""
    generator = np.random.default_rng(number)
    low, high = (400.0, 300.0, 300.0), (900.0, 700.0, 500.0)
    width, depth, height = (round(float(length)) for length in generator.uniform(low, high))
    microphones = []
    for channel in range(generator.integers(4, 7)):
        along, z = generator.uniform(-0.45, 0.45), generator.uniform(0.6, 0.95) * height
        side = 0.49 * (-1) ** (channel // 2)
        x, y = (side, along) if channel % 2 else (along, side)
        microphones.append((float(x * width), float(y * depth), float(z)))
    walls, floor, ceiling = generator.uniform(0.1, 0.9, 3).tolist()
    return Room(
        name=f"arena {number}",
        size_mm=(width, depth, height),
        sample_rate_hz=125_000.0,
        microphones_mm=tuple(microphones),
        absorption={"walls": walls, "floor": floor, "ceiling": ceiling},
        image_order=8,
    )


def make_events(room: Room, num_training: int, path: Path) -> list[EventSet]:
    """Simulate events to train, validate, calibrate and test with."""
    sizes = [num_training, NUM_VALIDATION, NUM_CALIBRATION, NUM_TEST]
    spec = make_spec(room, duration_ms=(20.0, 60.0))
    simulate(spec, path, num_events=sum(sizes), seed=0, show_progress=False)
    events = open_events(path)
    return [events.subset(part) for part in np.split(np.arange(sum(sizes)), np.cumsum(sizes[:-1]))]


def train(parts: list[EventSet], epochs: int, run_dir: Path) -> tuple[Localizer, ExperimentConfig]:
    """Train on the first part; the second chooses the weights."""
    config = ExperimentConfig.model_validate(
        {
            "training": {"epochs": epochs, "precision": "float32"},
            "augmentation": {"mirror_prob": 0.0, "noise_prob": 0.0},
        }
    )
    setup = recording_setup(parts[0], config.data)
    job = TrainingJob(config, setup, Splits(parts[0], parts[1], None), run_dir)
    train_loop(job, InProcessSession(lambda metrics: None, local_device()))
    model = Localizer(config, setup)
    model.load_state_dict(load_file(run_dir / weights_name("best")))
    return model.eval(), config


@torch.inference_mode()
def predict(
    model: Localizer, config: ExperimentConfig, events: EventSet
) -> tuple[LocationDensity, np.ndarray]:
    """What the network states of events, and where they truly were."""
    raw, places = [], []
    batches = EvaluationBatches(
        events,
        crop_length=config.data.evaluation_crop_length,
        per_worker_batch_size=64,
        with_statistics=model.uses_statistics,
    )
    for batch in batches:
        raw.append(model(batch.audio_BTC, batch.lengths_B, batch.mean_BC, batch.sd_BC))
        places.append(batch.indices_B)
    setup = recording_setup(events, config.data)
    density = read_outputs(config, setup, torch.cat(raw))
    return density, events.locations_mm[torch.cat(places).numpy()]


def report(room: Room, densities: list[LocationDensity], truths: list[np.ndarray]) -> None:
    """Calibrate on validation and calibration events, test on the others, and print a line."""
    temperature = fit_temperature(densities[0], truths[0])
    fitted, tested = (density.tempered(temperature) for density in densities[1:])
    conformal = fit_conformal(fitted, truths[1], room.size_mm)
    calibration = Calibration(temperature, conformal)
    level = conformal.levels.index(LEVEL)
    scores_N = conformal_scores(tested, truths[2])[:, 0]
    thresholds_N = conformal_thresholds(calibration, tested, room.size_mm)[:, 0, level].numpy()
    overall = float(np.mean(scores_N <= conformal.overall[0][level]))
    by_zone = float(np.mean(scores_N <= thresholds_N))
    stated = coverage(hdr_levels(tested, truths[2]), LEVEL)
    error_mm = np.median(errors_mm(tested.mean_mm_BKD.numpy(), truths[2]))
    rank = math.ceil((NUM_CALIBRATION + 1) * LEVEL)
    covered = betabinom(NUM_TEST, rank, NUM_CALIBRATION + 1 - rank)
    low, high = covered.ppf([0.025, 0.975]) / NUM_TEST
    print(
        f"{room.name} ({' x '.join(f'{length:g}' for length in room.size_mm)} mm, "
        f"{len(room.microphones_mm)} microphones): median error {error_mm:5.1f} mm, temperature "
        f"{temperature:.2f}; covered at {LEVEL:.0%}: as stated {stated:.3f}, conformal {overall:.3f}, "
        f"by zone {by_zone:.3f}; band {low:.3f} to {high:.3f}",
        flush=True,
    )


def main() -> None:
    """Print a line an arena."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arenas", type=int, default=5)
    parser.add_argument("--events", type=int, default=1500, help="to train with, in each arena")
    parser.add_argument("--epochs", type=int, default=12)
    options = parser.parse_args()
    for number in range(options.arenas):
        room = draw_room(number)
        with tempfile.TemporaryDirectory() as name:
            parts = make_events(room, options.events, Path(name, "events.h5"))
            model, config = train(parts, options.epochs, Path(name, "run"))
            predictions = [predict(model, config, part) for part in parts[1:]]
        report(room, [density for density, _ in predictions], [truth for _, truth in predictions])


if __name__ == "__main__":
    main()
