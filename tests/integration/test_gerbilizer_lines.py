"""Gerbilizer's two command lines, as its users typed them."""

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest

from tests.integration.command_line import run

pytestmark = [pytest.mark.ray, pytest.mark.slow]

CONFIG = {
    "GENERAL": {"CONFIG_NAME": "small", "TORCH_SEED": 1},
    "DATA": {
        "NUM_MICROPHONES": 4,
        "SAMPLE_RATE": 125000,
        "BATCH_SIZE": 8,
        "CROP_LENGTH": 1024,
        "ARENA_DIMS": [572, 356],
        "ARENA_DIMS_UNITS": "MM",
    },
    "ARCHITECTURE": "GerbilizerSimpleNetwork",
    "MODEL_PARAMS": {
        "OUTPUT_TYPE": "GAUSSIAN_FULL_COV",
        "CONV_NUM_CHANNELS": [8, 8],
        "CONV_FILTER_SIZES": [9, 9],
        "SHOULD_DOWNSAMPLE": [True, True],
        "CONV_DILATIONS": [1, 1],
    },
    "OPTIMIZATION": {"NUM_EPOCHS": 2, "INITIAL_LEARNING_RATE": 0.01, "CLIP_GRADIENTS": True},
}


def test_train_and_eval(make_event_file: Callable[..., Path], tmp_path: Path) -> None:
    make_event_file("data/train_set.h5", num_events=32, lengths=(500, 2000))
    make_event_file("data/val_set.h5", num_events=12, lengths=(500, 2000), seed=1)
    test_file = make_event_file("test.h5", num_events=9, lengths=(500, 2000), seed=2)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    module = "gerbil_tune.main"
    arguments = ("--data", "data", "--config", "config.json", "--save_path", "out")
    run(tmp_path, *arguments, module=module)
    bundle = tmp_path / "out/trained_models/small/00001"
    assert (bundle / "config.json").is_file()
    assert (bundle / "best_weights.safetensors").is_file()
    evaluation = ("--eval", "--data", test_file.name, "--config", str(bundle / "config.json"))
    run(tmp_path, *evaluation, "-o", "predictions.h5", module=module)
    with h5py.File(tmp_path / "predictions.h5") as file:
        assert file["predictions"].shape == (9, 2)
