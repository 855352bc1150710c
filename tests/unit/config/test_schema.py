import math
from typing import get_args

import pytest
from pydantic import ValidationError

from gerbil_tune.config.architectures import ConvStackConfig, ModelConfig
from gerbil_tune.config.heads import HeadConfig, PointConfig
from gerbil_tune.config.load import fill_kinds, validate
from gerbil_tune.config.schema import (
    AudioScaling,
    ExperimentConfig,
    LocationScaling,
    OptimizerConfig,
)
from gerbil_tune.errors import ConfigError

UNIONS = {
    "head": HeadConfig,
    "model": ModelConfig,
    "optimizer": OptimizerConfig,
    "scaling/audio": AudioScaling,
    "scaling/location": LocationScaling,
}
IMPORTED = "legacy-"
"""Kinds that begin so have no defaults: what they are comes with their weights."""
KINDS = [
    (path, kind)
    for path, union in UNIONS.items()
    for kind in get_args(get_args(union)[0])
    if not kind.model_fields["kind"].default.startswith(IMPORTED)
]


def nested(path, value):
    for key in reversed(path.split("/")):
        value = {key: value}
    return value


def experiment(tree):
    fill_kinds(tree)
    return validate(ExperimentConfig, tree, "c.yaml")


def refusal(tree):
    with pytest.raises(ConfigError) as error:
        experiment(tree)
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith("c.yaml: ")
    return message.removeprefix("c.yaml: ")


def test_the_defaults_are_valid_and_small_enough_for_a_cpu():
    config = ExperimentConfig()
    assert config == experiment({})
    assert (config.model.kind, config.optimizer.kind) == ("gcc-net", "adamw")
    assert config.training.seed == 0


@pytest.mark.parametrize(("path", "kind"), KINDS)
def test_the_defaults_of_every_kind_are_valid(path, kind):
    loss = {"loss": {"kind": "squared"}} if kind is PointConfig else {}
    chosen = experiment({**nested(path, {"kind": kind().kind}), **loss})
    for key in path.split("/"):
        chosen = getattr(chosen, key)
    assert chosen == kind()


def test_a_config_survives_json():
    config = experiment({"model": {"kind": "corrnet"}, "data": {"arena_mm": [572, 366]}})
    assert ExperimentConfig.model_validate(config.model_dump(mode="json")) == config
    assert ExperimentConfig.model_validate_json(config.model_dump_json()) == config


def test_nothing_changes_after_loading():
    config = ExperimentConfig()
    with pytest.raises(ValidationError, match="frozen"):
        config.training.epochs = 3


@pytest.mark.parametrize(
    ("path", "value", "what"),
    [
        ("training/epochs", True, "input should be a valid integer (received true)"),
        ("training/epochs", "3", 'input should be a valid integer (received "3")'),
        ("training/epochs", 3.5, "input should be a valid integer (received 3.5)"),
        ("training/epochs", None, "input should be a valid integer (received null)"),
        ("training/epochs", {"a": 1}, 'input should be a valid integer (received {"a": 1})'),
        ("training/epochs", 0, "input should be greater than 0 (received 0)"),
        ("training/seed", -1, "input should be greater than or equal to 0 (received -1)"),
        (
            "training/precision",
            "float16",
            "input should be 'auto', 'float32' or 'bfloat16' (received \"float16\")",
        ),
        ("training/clip_norm", 0, "input should be greater than 0 (received 0)"),
        ("features/gcc/exponent", True, "input should be a valid number (received true)"),
        ("features/gcc/exponent", "0.5", 'input should be a valid number (received "0.5")'),
        ("features/gcc/exponent", math.nan, "input should be a finite number (received NaN)"),
        ("features/gcc/exponent", 1.5, "input should be less than or equal to 1 (received 1.5)"),
        ("features/gcc/envelope", 1, "input should be a valid boolean (received 1)"),
        ("features/gcc/envelope", "yes", 'input should be a valid boolean (received "yes")'),
        (
            "features/gcc/window_length",
            63,
            "input should be greater than or equal to 64 (received 63)",
        ),
        (
            "optimizer/learning_rate",
            math.inf,
            "input should be a finite number (received Infinity)",
        ),
        ("optimizer/learning_rate", 0.0, "input should be greater than 0 (received 0.0)"),
        ("optimizer/betas/1", [0.9, 1.0], "input should be less than 1 (received 1.0)"),
        ("model/lags/dropout", 1.0, "input should be less than 1 (received 1.0)"),
        ("model/lags/num_blocks", 7, "input should be less than or equal to 6 (received 7)"),
        ("data/validation_fraction", 0.5, "input should be less than 0.5 (received 0.5)"),
        ("data/keypoints", "nose", 'input should be a valid list (received "nose")'),
        ("data/keypoints", [], "list should have at least 1 item, not 0 (received [])"),
        ("data/arena_mm", [572], "list should have at least 2 items, not 1 (received [572])"),
        (
            "data/arena_mm",
            [1, 2, 3, 4],
            "list should have at most 3 items, not 4 (received [1, 2, 3, 4])",
        ),
        (
            "augmentation/noise_snr_db",
            [1, 2, 3],
            "list should have at most 2 items, not 3 (received [1, 2, 3])",
        ),
        (
            "lr_schedule/final_fraction",
            -0.1,
            "input should be greater than or equal to 0 (received -0.1)",
        ),
        ("head/min_sd_mm", 0, "input should be greater than 0 (received 0)"),
    ],
)
def test_a_wrong_leaf_is_named_with_what_is_valid(path, value, what):
    assert refusal(nested(path.removesuffix("/1"), value)) == f"{path}: {what}"


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (
            {"training": {"epoch": 3}},
            "training/epoch is not a known key; "
            "valid: epochs, global_batch_size, accumulate_steps, clip_norm, ema_decay, batch_norm, "
            "precision, compile, deterministic, seed, checkpoint_interval_s",
        ),
        (
            {"training": {"epoch": 3, "lr": 1}},
            "training/epoch, training/lr are not known keys; "
            "valid: epochs, global_batch_size, accumulate_steps, clip_norm, ema_decay, batch_norm, "
            "precision, compile, deterministic, seed, checkpoint_interval_s",
        ),
        (
            {"scaling": {"audio": {"kind": "gain", "offset": 1}}},
            "scaling/audio/offset is not a known key; valid: kind, gain",
        ),
        (
            {"modle": {}},
            "modle is not a known key; valid: " + ", ".join(ExperimentConfig.model_fields),
        ),
        (
            {"optimizer": {"kind": "adam"}},
            "optimizer/kind is 'adam'; valid: adamw, sgd",
        ),
        (
            {"scaling": {"audio": {"kind": "gain", "gain": "loud"}}},
            'scaling/audio/gain: input should be a valid number (received "loud")',
        ),
        ({"optimizer": {"betas": [0.9]}}, "optimizer/betas/1 is missing"),
        ({"training": None}, "training must be a section (a mapping), but is null"),
        ({"model": "densenet"}, 'model must be a section (a mapping), but is "densenet"'),
        (
            {"model": {"kind": "densenet", "kernel_size": 4}},
            "model: kernel_size must be odd, but is 4",
        ),
        (
            {"features": {"gcc": {"band_low_hz": 9000, "band_high_hz": 9000}}},
            "features/gcc: band_low_hz must be below band_high_hz, but they are 9000 and 9000",
        ),
        (
            {"augmentation": {"mask_length": [9, 8]}},
            "augmentation: mask_length must be [low, high], but is [9, 8]",
        ),
        (
            {"augmentation": {"noise_snr_db": [5, 2]}},
            "augmentation: noise_snr_db must be [low, high], but is [5.0, 2.0]",
        ),
        (
            {"augmentation": {"gain_db": [1.0, -1.0]}},
            "augmentation: gain_db must be [low, high], but is [1.0, -1.0]",
        ),
        (
            {"augmentation": {"noise_exponent": [0.0, 4.0]}},
            "augmentation/noise_exponent/1: input should be less than or equal to 3 (received 4.0)",
        ),
        (
            {"model": {"kind": "simplenet", "conv": {"channels": [8, 8]}}},
            "model/conv: the lists must have one entry a layer, but channels has 2, "
            "kernel_sizes has 6, downsample has 6, dilations has 6",
        ),
        (
            {
                "model": {
                    "kind": "simplenet",
                    "conv": {
                        "channels": [],
                        "kernel_sizes": [],
                        "downsample": [],
                        "dilations": [],
                    },
                }
            },
            "model/conv: the lists must have one entry a layer, but channels has 0, "
            "kernel_sizes has 0, downsample has 0, dilations has 0",
        ),
        (
            {"name": "../evil"},
            "name: string should match pattern '^[A-Za-z0-9][A-Za-z0-9._-]*$' (received \"../evil\")",
        ),
    ],
)
def test_a_wrong_section_is_named_with_what_is_valid(tree, message):
    assert refusal(tree) == message


def test_three_mistakes_are_told_and_the_rest_counted():
    wrong = {"epochs": 0, "global_batch_size": 0, "clip_norm": 0, "seed": -1, "precision": "x"}
    message = refusal({"training": wrong})
    assert message.count("; ") == 3
    assert message.endswith("; and 2 more")


def test_a_long_value_is_cut():
    assert refusal({"training": {"epochs": "x" * 500}}).endswith("xxx...)")


def test_whole_numbers_pass_for_real_ones():
    config = experiment({"data": {"sample_rate_hz": 125_000}, "optimizer": {"kind": "sgd"}})
    assert isinstance(config.data.sample_rate_hz, float)


def test_a_stack_of_convolutions_has_one_entry_a_layer():
    stack = ConvStackConfig(
        channels=(8, 8), kernel_sizes=(3, 3), downsample=(False, True), dilations=(1, 2)
    )
    assert len(stack.channels) == 2
