"""Epochs that searches need to find one of the best 1 % of configurations, on synthetic learning curves.

Sampler, trial scheduler and storage calls are those of a search, in simulated time on four workers; only the
training is a formula. It has what makes early stopping hard: a small learning rate and a large network
learn slowly and end well, a large learning rate looks best early, and each epoch is noisy.

    python tests/benchmarks/search_curves.py [--seeds 20]
"""

import argparse
import hashlib
import math
import statistics

import numpy as np
import optuna
from simulated_search import SimulatedSearch

from gerbil_tune.config.load import compose
from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.config.space import SpaceFile
from gerbil_tune.search.book import StudyBook
from gerbil_tune.search.quasi_random import quasi_random_point

EPOCHS = 27
WORKERS = 4
TABLE_SIZE = 2048
MOST_EPOCHS = 27_000

METHODS: dict[str, dict[str, object]] = {
    "TPE + ASHA (default)": {"sampler": "tpe", "scheduler": "asha"},
    "TPE + promotion ASHA": {"sampler": "tpe", "scheduler": "promotion-asha"},
    "random + ASHA": {"sampler": "random", "scheduler": "asha"},
    "random": {"sampler": "random", "scheduler": "none"},
}
PARAMETERS = {
    "optimizer/learning_rate": {"type": "float", "low": 1e-5, "high": 1e-1, "log": True},
    "optimizer/weight_decay": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
    "model/lags/hidden": {"type": "int", "low": 16, "high": 512, "log": True},
    "model/lags/dropout": {"type": "float", "low": 0.0, "high": 0.6},
    "features/gcc/exponent": {"type": "float", "low": 0.0, "high": 1.0},
    "features/gcc/coherence_exponent": {"type": "float", "low": 0.0, "high": 2.0},
    "features/gcc/envelope": {"type": "categorical", "choices": [False, True]},
    "augmentation/mirror_prob": {"type": "categorical", "choices": [0.0, 0.5]},
}


def make_space(sampler: str, scheduler: str, seed: int) -> SpaceFile:
    """The space, with a method of searching it."""
    scheduler_config: dict[str, object] = {"kind": scheduler}
    if scheduler != "none":
        scheduler_config |= {"grace_epochs": 3, "reduction_factor": 3}
    return SpaceFile.model_validate(
        {
            "name": "curves",
            "study": {
                "sampler": {"kind": sampler, "seed": seed},
                "trial_scheduler": scheduler_config,
            },
            "base": {"training": {"epochs": EPOCHS}},
            "parameters": PARAMETERS,
        }
    )


def final_mm(config: ExperimentConfig) -> float:
    """What training comes to in the end: a valley in eight dimensions, some of which interact."""
    assert config.model.kind == "gcc-net"
    width = math.log2(config.model.lags.hidden / 128)
    rate = math.log10(config.optimizer.learning_rate / 1e-3) + 0.15 * width
    decay = math.log10(config.optimizer.weight_decay / 1e-2)
    dropout = config.model.lags.dropout - 0.15 - 0.05 * width
    exponent = config.features.gcc.exponent - 0.75
    coherence = config.features.gcc.coherence_exponent - 1.0
    bowl = 9 * rate**2 + 1.2 * decay**2 + 1.5 * width**2 + 60 * dropout**2
    features = 70 * exponent**2 + 8 * coherence**2 - 3 * config.features.gcc.envelope
    augmentation = -4 * (config.augmentation.mirror_prob > 0)
    return 30 + 60 * (1 - math.exp(-(bowl + features + augmentation + 7) / 60))


def true_mm(config: ExperimentConfig, epoch: int) -> float:
    """The error after an epoch: a power law towards the final one."""
    assert config.model.kind == "gcc-net"
    slow = (config.optimizer.learning_rate / 1e-3) ** -0.5 * (config.model.lags.hidden / 128) ** 0.3
    left = (1 + epoch / (1.5 * slow)) ** -1.3
    end = final_mm(config)
    return end + (165 - end) * left


def curve_mm(config: ExperimentConfig, epoch: int) -> float:
    """What validation shows of it: with noise, which configuration and epoch decide."""
    noise = np.random.default_rng(_seed(config, epoch)).normal(0.0, 1.0 + 3.0 / epoch)
    return true_mm(config, epoch) + float(noise)


def _seed(config: ExperimentConfig, epoch: int) -> int:
    text = f"{config.model_dump_json()} {epoch}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def best_percent_mm() -> float:
    """The error that one configuration in a hundred comes to."""
    space = make_space("random", "none", 0)
    lowest = []
    for index in range(TABLE_SIZE):
        config = compose(space.base, quasi_random_point(space, index, 0), "table")
        lowest.append(true_mm(config, EPOCHS))
    return float(np.quantile(lowest, 0.01))


def epochs_needed(method: dict[str, object], seed: int, target_mm: float) -> int:
    """Epochs trained by all workers until the network of one had an error of the target or less."""
    space = make_space(str(method["sampler"]), str(method["scheduler"]), 1000 * seed)
    book = StudyBook(optuna.storages.InMemoryStorage(), "curves", space)
    search = SimulatedSearch(book, curve_mm, WORKERS, true_mm)
    search.run(trials=10**9, epochs=MOST_EPOCHS, target=target_mm)
    return search.spent


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    seeds = parser.parse_args().seeds
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    target_mm = best_percent_mm()
    print(f"{TABLE_SIZE} configurations of {EPOCHS} epochs: the best 1 % reach {target_mm:.1f} mm")
    medians = {}
    for name, method in METHODS.items():
        needed = [epochs_needed(method, seed, target_mm) for seed in range(seeds)]
        medians[name] = statistics.median(needed)
        low, high = np.quantile(needed, [0.25, 0.75])
        print(f"{name:24} median {medians[name]:6.0f} epochs (quartiles {low:.0f} to {high:.0f})")
    random = medians["random"]
    for name, median in medians.items():
        print(f"{name:24} x{random / median:.1f} fewer epochs than random")


if __name__ == "__main__":
    main()
