"""The layers hold; and each contract is shown to notice what it forbids."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "gerbil_tune"
_SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
CONTRACTS = [contract["name"] for contract in _SETTINGS["contracts"]]
EXCEPTIONS = [
    exception
    for contract in _SETTINGS["contracts"]
    for exception in contract.get("ignore_imports", ())
]
LAYERS = "Layers"
LIGHT = "Config and launch start without the heavy stack"
SCIENCE = "The science runs without an orchestrator"
MLFLOW = "MLflow only in tracking (and in the file that MLflow itself loads)"
OPTUNA = "Optuna only in search"
PREDICTION = "Prediction does not need the trainer"
INSIDE_A_FUNCTION = "def late() -> None:\n    import {}\n"
FOR_TYPES_ONLY = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import {}\n"

PLANTED = {
    "upward": ("data/files/formats", "import gerbil_tune.training.loop", {LAYERS}),
    "upward by name": ("models/heads/head", "from gerbil_tune import cli", {LAYERS}),
    "upward in a function": (
        "evaluation/accuracy",
        INSIDE_A_FUNCTION.format("gerbil_tune.inference.predict"),
        {LAYERS},
    ),
    "upward for types": ("config/load", FOR_TYPES_ONLY.format("gerbil_tune.data.events"), {LAYERS}),
    "the command line from below": ("search/driver", "import gerbil_tune.cli.options", {LAYERS}),
    "sibling": ("data/batches", "from gerbil_tune.models import conv", {LAYERS}),
    "sibling above": ("search/select", "import gerbil_tune.inference.predict", {LAYERS}),
    "units and geometry": ("units", "from gerbil_tune import geometry", {LAYERS}),
    "launch and search": ("launch/ray_jobs", "import gerbil_tune.search.space", {LAYERS}),
    "an unlisted module": ("helpers", "", {LAYERS}),
    "torch in config": ("config/schema", "import torch", {LIGHT}),
    "numpy reader in config": ("config/load", "from h5py import File", {LIGHT}),
    "ray in launch": ("launch/ray_jobs", INSIDE_A_FUNCTION.format("ray.job_submission"), {LIGHT}),
    "torch by way of data": ("launch/sbatch", "import gerbil_tune.data.batches", {LIGHT}),
    "ray in models": ("models/conv", "from ray import train", {SCIENCE}),
    "ray in the loop": ("training/loop", INSIDE_A_FUNCTION.format("ray.train"), {SCIENCE}),
    "mlflow in data": ("data/events", "import mlflow", {SCIENCE}),
    "optuna in evaluation": ("evaluation/accuracy", "import optuna.trial", {SCIENCE}),
    "mlflow in search": ("search/recorder", "import mlflow", {MLFLOW}),
    "mlflow in the command line": ("cli/registry", INSIDE_A_FUNCTION.format("mlflow"), {MLFLOW}),
    "mlflow in prediction": ("inference/job", "from mlflow import pyfunc", {MLFLOW}),
    "optuna in training": ("training/trainer", "import optuna", {OPTUNA}),
    "optuna in tracking": ("tracking/store", "from optuna import storages", {OPTUNA}),
    "optuna in the command line": ("cli/search", FOR_TYPES_ONLY.format("optuna"), {OPTUNA}),
    "the trainer in prediction": ("inference/job", "import gerbil_tune.training.loop", {PREDICTION}),
    "the trainer by a detour": ("inference/pool", "import gerbil_tune.search.trial", {LAYERS, PREDICTION}),
}  # fmt: skip
# What a detour leads through, for the skeleton's modules import nothing.
DETOURS = {
    "torch by way of data": ("data/batches", "import torch"),
    "the trainer by a detour": ("search/trial", "import gerbil_tune.training.loop"),
}
ALLOWED = {
    "mlflow in tracking": ("tracking/store", "import mlflow"),
    "mlflow in its own file": ("pyfunc", "from mlflow.models import set_model"),
    "optuna in search": ("search/space", "import optuna"),
    "ray in training": ("training/trainer", "import ray.train"),
    "torch in data": ("data/batches", "import torch"),
    "downward": ("cli/search", "import gerbil_tune.config.space"),
    "standard library": ("config/load", "import json"),
}


def lint(folder):
    """Check the package in a folder against the contracts of the pyproject.toml beside it."""
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "300"},
        capture_output=True,
        text=True,
        check=False,
    )
    verdicts = dict(re.findall(r"^(.+) (KEPT|BROKEN)$", done.stdout, flags=re.MULTILINE))
    assert set(verdicts) == set(CONTRACTS), done.stdout + done.stderr
    broken = {name for name, verdict in verdicts.items() if verdict == "BROKEN"}
    assert done.returncode == (1 if broken else 0)
    return broken, done.stdout.partition("Broken contracts")[2]


@pytest.fixture(scope="module")
def skeleton(tmp_path_factory):
    """All modules of the package, empty but for the stated exceptions, with the real contracts."""
    folder = tmp_path_factory.mktemp("skeleton")
    shutil.copy(ROOT / "pyproject.toml", folder)
    for source in PACKAGE.rglob("*.py"):
        path = folder / source.relative_to(ROOT)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for exception in EXCEPTIONS:  # an exception that nothing needs is refused
        importer, imported = exception.split(" -> ")
        path = folder.joinpath(*importer.split(".")).with_suffix(".py")
        path.write_text(f"import {imported.removesuffix('.*')}\n")
    return folder


@pytest.fixture
def plant(skeleton):
    """Puts code into one module; it is taken out again after the test."""
    planted = []

    def plant(module, code):
        path = skeleton / "gerbil_tune" / f"{module}.py"
        planted.append((path, path.read_text() if path.exists() else None))
        path.write_text(f"{planted[-1][1] or ''}{code}\n")
        return skeleton

    yield plant
    for path, before in planted:
        if before is None:
            path.unlink()
        else:
            path.write_text(before)


@pytest.mark.parametrize("name", CONTRACTS)
def test_a_contract_is_kept(name, real_package):
    broken, explanation = real_package
    assert name not in broken, explanation


@pytest.fixture(scope="module")
def real_package():
    return lint(ROOT)


def test_every_contract_is_broken_by_something_below():
    assert set().union(*(broken for _, _, broken in PLANTED.values())) == set(CONTRACTS)


def test_the_skeleton_alone_breaks_nothing(skeleton):
    assert lint(skeleton) == (set(), "")


@pytest.mark.parametrize("what", PLANTED)
def test_a_planted_import_is_noticed(plant, what):
    module, code, expected = PLANTED[what]
    is_new = expected == {LAYERS} and not code
    assert (PACKAGE / f"{module}.py").is_file() != is_new, (
        "the module has moved: move the plant too"
    )
    if what in DETOURS:
        plant(*DETOURS[what])
    broken, _ = lint(plant(module, code))
    assert broken == expected


@pytest.mark.parametrize("what", ALLOWED)
def test_an_allowed_import_is_let_through(plant, what):
    module, code = ALLOWED[what]
    assert (PACKAGE / f"{module}.py").is_file()
    broken, explanation = lint(plant(module, code))
    assert broken == set(), explanation
