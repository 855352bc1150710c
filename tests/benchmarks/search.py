"""What a search costs beside the training: time for each trial, and the driver's memory over many.

a  50 trials that do nothing for 0.3 s, one at a time in reused actors: everything else is overhead: Ray Tune,
   the sampler, the study's storage, the record in MLflow.
b  1,000 trials of three instant epochs, two at a time: the driver's memory, and whether the last 100 trials
   take longer than the first 100.
c  is search_curves.py.

    python tests/benchmarks/search.py [--trials 1000]
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from gerbil_tune.config.space import SpaceFile
from gerbil_tune.search.book import StudyBook
from gerbil_tune.search.driver import run_trials
from gerbil_tune.search.placement import machine_resources, plan_placement
from gerbil_tune.search.recorder import StudyRecorder
from gerbil_tune.search.stop_request import StopRequest
from gerbil_tune.search.storage import storage_url
from gerbil_tune.tracking.mlflow_tracker import MlflowTracker
from gerbil_tune.training.ray_runtime import start_ray

EPOCHS = 3
SLEEP_S = 0.1
PARAMETERS = {
    "optimizer/learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True},
    "optimizer/weight_decay": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
    "features/gcc/exponent": {"type": "float", "low": 0.0, "high": 1.0},
    "model/lags/hidden": {"type": "int", "low": 16, "high": 512, "log": True},
    "features/gcc/envelope": {"type": "categorical", "choices": [False, True]},
}


def make_space(trials: int) -> SpaceFile:
    """A space of five parameters with the default methods."""
    return SpaceFile.model_validate(
        {
            "name": "overhead",
            "study": {"trials": trials, "trial_scheduler": {"kind": "asha", "grace_epochs": 1}},
            "base": {"training": {"epochs": EPOCHS}},
            "parameters": PARAMETERS,
        }
    )


class EndTimes:
    """Notes when each trial was over, and the memory of this process then."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.resident_mb: list[float] = []

    def on_start(self, task: Any, trial: Any) -> None:
        """Nothing."""

    def on_epoch(self, number: int, metrics: dict[str, float]) -> None:
        """Nothing."""

    def on_pause(self, trial: Any, reason: str) -> None:
        """Nothing."""

    def on_end(self, trial: Any, reason: str) -> None:
        """Note."""
        self.seconds.append(time.perf_counter())
        self.resident_mb.append(resident_mb())


def resident_mb() -> float:
    """Memory of this process, MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def synthetic_trial(tune_config: dict[str, Any], site: float) -> None:
    """Report a learning curve; ``site`` is how long an epoch takes, s."""
    from ray import tune

    end = 30 + 40 * ((tune_config["number"] * 0.618) % 1.0)
    for epoch in range(1, EPOCHS + 1):
        time.sleep(site)
        value = end + 60 / epoch
        metrics = {"epoch": epoch, "val_error_median_mm": value, "best_value": value}
        metrics |= {f"val_{name}": value for name in ("error_mean_mm", "error_p90_mm", "nll")}
        metrics["training_done"] = float(epoch == EPOCHS)
        tune.report({**metrics, "best_val_error_median_mm": value})


def run(folder: Path, trials: int, concurrent: int, epoch_s: float) -> EndTimes:
    """Run a study with everything that a search has but training."""
    folder.mkdir()
    ends = EndTimes()
    space = make_space(trials)
    stop = StopRequest(folder)
    recorder = StudyRecorder(MlflowTracker(f"sqlite:///{folder}/mlflow.db"), folder)
    book = StudyBook(storage_url(folder), "overhead", space, (recorder, ends))
    recorder.begin(book.study, {}, {})
    placement = plan_placement(
        machine_resources(), space.study.placement, max_concurrent=concurrent
    )
    run_trials(book, epoch_s, placement, stop, tune_dir=folder / "tune", function=synthetic_trial)
    recorder.end(book.study, "complete")
    return ends


def overhead_s(ends: EndTimes, training_s: np.ndarray) -> float:
    """Mean time of a trial after the first without its training."""
    return float(
        (ends.seconds[-1] - ends.seconds[0] - training_s[1:].sum()) / (len(ends.seconds) - 1)
    )


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=1000)
    many = parser.parse_args().trials
    start_ray()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ends = run(folder / "a", 50, 1, SLEEP_S)
        epochs = _epochs(folder / "a")
        overhead = overhead_s(ends, epochs * SLEEP_S)
        print(
            f"a  overhead of a trial after the first, reused actor: {overhead:.3f} s (at most 0.15)"
        )
        ends = run(folder / "b", many, 2, 0.0)
    taken = np.diff(ends.seconds)
    first, last = taken[:100].mean(), taken[-100:].mean()
    grown = ends.resident_mb[-1] - ends.resident_mb[20]
    print(f"b  {many} trials: driver's memory grows by {grown:.0f} MB (less than 60)")
    print(
        f"   a trial takes {first:.3f} s in the first 100 and {last:.3f} s in the last: x{last / first:.2f}"
    )


def _epochs(folder: Path) -> np.ndarray:
    import optuna

    study = optuna.load_study(study_name="overhead", storage=storage_url(folder))
    return np.array([len(trial.intermediate_values) for trial in study.trials])


if __name__ == "__main__":
    main()
