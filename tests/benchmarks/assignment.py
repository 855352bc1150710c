"""Whether callers are named as rarely wrongly as promised, and as often as possible: simulated dyads.

A network is trained on calls of single animals in arena e1. Other calls have a second, silent animal beside
the caller: anywhere in the arena, or at one distance from it. For each error rate that is asked for, this
prints the share of wrong names and the share of calls that are named, beside that of an oracle: the largest
share that any threshold on the same model's odds could name with no more errors on these very calls.

    python tests/benchmarks/assignment.py [--events 4000] [--dyads 2000] [--epochs 30] [--set NAME=VALUE ...]
"""

import argparse
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import h5py
import numpy as np

ERROR_RATES = (0.01, 0.02, 0.05, 0.1)
DISTANCES_MM = (None, 30.0, 60.0, 120.0)
ARENA_MM = np.array([572.0, 356.0])


def run(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "gerbil_tune", *arguments], check=True, stdout=sys.stderr)


def move_the_other_animal(path: Path, distance_mm: float) -> None:
    """Put the animal that is silent at a distance from the caller, in the arena."""
    generator = np.random.default_rng(0)
    with h5py.File(path, "r+") as file:
        rows, caller = np.arange(len(file["emitter"])), file["emitter"][:]
        tracks = file["tracks"][:]
        there = tracks[rows, caller, 0]
        angle = generator.uniform(0, 2 * math.pi, (64, len(rows)))
        tried = there + distance_mm * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
        inside = (np.abs(tried) <= ARENA_MM / 2).all(-1)
        tracks[rows, 1 - caller, 0] = tried[inside.argmax(0), rows]
        file["tracks"][:] = tracks


def oracle_share(odds: np.ndarray, is_right: np.ndarray, error_rate: float) -> float:
    """Largest share that a threshold on the odds names without more errors than allowed."""
    order = np.argsort(-odds, kind="stable")
    wrong = np.cumsum(~is_right[order])
    kept = np.flatnonzero(wrong <= error_rate * np.arange(1, len(order) + 1))
    return (kept[-1] + 1) / len(order) if len(kept) else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=4000)
    parser.add_argument("--dyads", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE")
    parser.add_argument("--folder", type=Path, help="keep everything here")
    arguments = parser.parse_args()
    with TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        os.chdir(folder)
        bundle = Path("trained_models/gerbil-locator/00001")
        if not bundle.is_dir():
            run("simulate", "calls.h5", "--events", str(arguments.events), "--seed", "1")
            settings = [
                f"training/epochs={arguments.epochs}",
                "data/validation_fraction=0.25",  # the rarer the errors, the more calls prove it
                *arguments.set,
            ]
            run("train", "--data", "calls.h5", *(f"--set={each}" for each in settings))
        if not Path("dyads.h5").exists():
            run("simulate", "dyads.h5", f"--events={arguments.dyads}", "--seed=2", "--animals=2")
        for distance_mm in DISTANCES_MM:
            report(bundle, distance_mm)


def report(bundle: Path, distance_mm: float | None) -> None:
    name = "anywhere" if distance_mm is None else f"at {distance_mm:g} mm"
    shutil.copy("dyads.h5", "now.h5")
    if distance_mm is not None:
        move_the_other_animal(Path("now.h5"), distance_mm)
    for error_rate in ERROR_RATES:
        run(
            *("predict", "--model", str(bundle), "--data", "now.h5", "-o", "out.h5"),
            *("--error-rate", str(error_rate), "--overwrite"),
        )
        with h5py.File("out.h5") as file:
            named, true = file["emitter"][:], file["true_emitter"][:]
            probability = file["caller_probability"][:].astype(np.float64)
        is_named = named >= 0
        wrong = (named != true)[is_named].mean() if is_named.any() else 0.0
        odds, is_right = probability.max(1), probability.argmax(1) == true
        oracle = oracle_share(odds, is_right, error_rate)
        print(
            f"the other animal {name}, error rate {error_rate:.0%} asked for: {wrong:.2%} wrong of "
            f"{is_named.mean():.1%} named; oracle {oracle:.1%}; {is_right.mean():.1%} right without a doubt",
            flush=True,
        )


if __name__ == "__main__":
    main()
