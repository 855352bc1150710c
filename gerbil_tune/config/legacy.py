"""Gerbilizer's and vocalocator's JSON configs, read as experiment configs.

Keys may be in upper or lower case. Every key is either used, known to be without effect, or refused: a
setting is never dropped in silence.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gerbil_tune.config.load import read_tree, validate
from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.errors import ConfigError
from gerbil_tune.units import to_mm

_ARCHITECTURES = {
    "gerbilizersimplenetwork": "simplenet",
    "vocalocatorsimplenetwork": "simplenet",
    "corrsimplenetwork": "corrnet",
    "gerbilizerdensenet": "densenet",
}
_CONV_KEYS = {
    "CONV_NUM_CHANNELS": "channels",
    "CONV_FILTER_SIZES": "kernel_sizes",
    "SHOULD_DOWNSAMPLE": "downsample",
    "CONV_DILATIONS": "dilations",
}
_CONV_DEFAULTS: dict[str, list[Any]] = {
    "CONV_NUM_CHANNELS": [16, 16, 16, 32, 32, 32, 64],
    "CONV_FILTER_SIZES": [19, 7, 39, 41, 23, 29, 33],
    "SHOULD_DOWNSAMPLE": [False, True, True, True, True, True, False],
    "CONV_DILATIONS": [1, 1, 1, 1, 1, 1, 1],
}
_KNOWN: dict[str, set[str]] = {
    "GENERAL": {"CONFIG_NAME", "TORCH_SEED", "NUMPY_SEED", "DEVICE", "LOG_INTERVAL", "JOB_ID"},
    "DATA": {
        "NUM_MICROPHONES",
        "SAMPLE_RATE",
        "COMPUTE_XCORRS",
        "BATCH_SIZE",
        "CROP_LENGTH",
        "AUGMENT_DATA",
        "ARENA_DIMS",
        "ARENA_DIMS_UNITS",
        "DATAFILE_PATH",
        "NORMALIZE_DATA",
        "NODES_TO_LOAD",
    },
    "MODEL_PARAMS": {*_CONV_KEYS, "USE_BATCH_NORM", "OUTPUT_TYPE", "OUTPUT_COV", "REGULARIZE_COV"},
    "OPTIMIZATION": {
        "NUM_EPOCHS",
        "OPTIMIZER",
        "MOMENTUM",
        "WEIGHT_DECAY",
        "ADAM_BETAS",
        "INITIAL_LEARNING_RATE",
        "CLIP_GRADIENTS",
        "SCHEDULERS",
    },
    "AUGMENTATIONS": {"AUGMENT_DATA", "INVERSION", "NOISE", "MASK"},
}
_Section = Mapping[str, Any]


def load_legacy(path: Path) -> ExperimentConfig:
    """Read a predecessor's config.

    Args:
        path: JSON or JSON5, as ``--config`` took it.

    Raises:
        ConfigError: If the file is wrong or asks for something that does not exist here.
    """
    tree = _upper(read_tree(path))
    source = str(path)
    _refuse_unknown(tree, source)
    name = tree.get("GENERAL", {}).get("CONFIG_NAME")
    if not name:
        raise ConfigError(f"{source}: GENERAL/CONFIG_NAME is missing; it names the results folder")
    if tree.get("WEIGHTS_PATH"):
        raise ConfigError(
            f"{source}: WEIGHTS_PATH asks for training from existing weights, which is not supported; "
            "remove it to train from the start"
        )
    data = tree.get("DATA", {})
    converted = {
        "name": name,
        "data": _data(data, source),
        "scaling": {"audio": {"kind": "event_zscore"}, "location": {"kind": "per_axis"}},
        "model": _model(tree, source),
        "optimizer": _optimizer(tree.get("OPTIMIZATION", {}), source),
        "lr_schedule": _lr_schedule(tree.get("OPTIMIZATION", {}), source),
        "augmentation": _augmentation(tree),
        "training": {
            "epochs": tree.get("OPTIMIZATION", {}).get("NUM_EPOCHS", 30),
            "global_batch_size": data.get("BATCH_SIZE", 32),
            "clip_norm": 1.0 if tree.get("OPTIMIZATION", {}).get("CLIP_GRADIENTS", False) else None,
            "seed": tree.get("GENERAL", {}).get("TORCH_SEED", 888),
        },
    }
    return validate(ExperimentConfig, converted, source)


def is_legacy(path: Path) -> bool:
    """Whether a config file is in a predecessor's format."""
    return bool({"GENERAL", "DATA", "ARCHITECTURE", "OPTIMIZATION"} & set(_upper(read_tree(path))))


def _upper(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {
        str(key).upper(): _upper(value) if isinstance(value, Mapping) else value
        for key, value in tree.items()
    }


def _refuse_unknown(tree: _Section, source: str) -> None:
    for section, keys in tree.items():
        if section in ("ARCHITECTURE", "WEIGHTS_PATH"):
            continue
        if section not in _KNOWN or not isinstance(keys, Mapping):
            raise ConfigError(
                f"{source}: {section} is not a section; valid: {', '.join(_KNOWN)}, ARCHITECTURE"
            )
        for key in keys:
            if key not in _KNOWN[section]:
                raise ConfigError(
                    f"{source}: {section}/{key} is not supported; "
                    f"supported: {', '.join(sorted(_KNOWN[section]))}"
                )


def _data(data: _Section, source: str) -> dict[str, Any]:
    if data.get("NORMALIZE_DATA", True) is False:
        raise ConfigError(f"{source}: DATA/NORMALIZE_DATA false is not supported; leave it out")
    converted: dict[str, Any] = {"crop_length": data.get("CROP_LENGTH", 8192)}
    if "SAMPLE_RATE" in data:
        converted["sample_rate_hz"] = data["SAMPLE_RATE"]
    if "ARENA_DIMS" in data:
        unit = data.get("ARENA_DIMS_UNITS", "MM")
        converted["arena_mm"] = [to_mm(float(width), unit) for width in data["ARENA_DIMS"]]
    if data.get("NODES_TO_LOAD"):
        converted["keypoints"] = data["NODES_TO_LOAD"]
    return converted


def _model(tree: _Section, source: str) -> dict[str, Any]:
    asked = str(tree.get("ARCHITECTURE", "GerbilizerSimpleNetwork"))
    kind = _ARCHITECTURES.get(asked.lower())
    if kind is None:
        raise ConfigError(
            f"{source}: ARCHITECTURE {asked!r} is not supported; supported: {', '.join(_ARCHITECTURES)}"
        )
    parameters = tree.get("MODEL_PARAMS", {})
    output = str(parameters.get("OUTPUT_TYPE", "GAUSSIAN_FULL_COV")).upper()
    if output != "GAUSSIAN_FULL_COV":
        raise ConfigError(
            f"{source}: MODEL_PARAMS/OUTPUT_TYPE {output} is not supported; valid: GAUSSIAN_FULL_COV"
        )
    if kind == "densenet":
        return {"kind": kind}
    if tree.get("DATA", {}).get("COMPUTE_XCORRS", False):
        kind = "corrnet"  # correlations belong on a lag axis of their own, not among the audio channels
    lists = {key: list(parameters.get(key, default)) for key, default in _CONV_DEFAULTS.items()}
    num_layers = min(len(values) for values in lists.values())  # as the predecessors did
    conv: dict[str, Any] = {_CONV_KEYS[key]: values[:num_layers] for key, values in lists.items()}
    conv["normalization"] = "batch" if parameters.get("USE_BATCH_NORM", True) else "none"
    return {"kind": kind, "conv": conv}


def _optimizer(section: _Section, source: str) -> dict[str, Any]:
    asked = str(section.get("OPTIMIZER", "SGD")).upper()
    learning_rate = section.get("INITIAL_LEARNING_RATE", 5e-4)
    if asked == "SGD":
        return {
            "kind": "sgd",
            "learning_rate": learning_rate,
            "momentum": section.get("MOMENTUM", 0.9),
            "weight_decay": section.get("WEIGHT_DECAY", 0.0),
        }
    if asked == "ADAM":
        return {
            "kind": "adamw",
            "learning_rate": learning_rate,
            "betas": section.get("ADAM_BETAS", [0.9, 0.999]),
            "weight_decay": 0.0,
        }
    raise ConfigError(f"{source}: OPTIMIZATION/OPTIMIZER {asked} is unknown; valid: SGD, ADAM")


def _lr_schedule(section: _Section, source: str) -> dict[str, Any]:
    lr_schedules = section.get("SCHEDULERS", [{"SCHEDULER_TYPE": "COSINE_ANNEALING"}])
    only = _upper(lr_schedules[0]) if len(lr_schedules) == 1 else {}
    if str(only.get("SCHEDULER_TYPE")).upper() != "COSINE_ANNEALING":
        raise ConfigError(
            f"{source}: OPTIMIZATION/SCHEDULERS must be one COSINE_ANNEALING; "
            "others are not supported"
        )
    lowest = float(only.get("MIN_LEARNING_RATE", 0.0))
    return {
        "warmup_fraction": 0.0,
        "final_fraction": lowest / float(section.get("INITIAL_LEARNING_RATE", 5e-4)),
    }


def _augmentation(tree: _Section) -> dict[str, Any]:
    section = tree.get("AUGMENTATIONS", {})
    switch = section.get("AUGMENT_DATA", tree.get("DATA", {}).get("AUGMENT_DATA", True))
    if not switch:
        return {}
    inversion = _part(section, "INVERSION")
    noise, mask = _part(section, "NOISE"), _part(section, "MASK")
    converted: dict[str, Any] = {}
    if inversion is not None:
        converted["polarity_prob"] = inversion.get("PROB", 0.5)
    if noise is not None:
        converted["noise_prob"] = noise.get("PROB", 0.5)
        converted["noise_snr_db"] = [noise.get("MIN_SNR", 0), noise.get("MAX_SNR", 10)]
    if mask is not None:
        converted["mask_prob"] = mask.get("PROB", 0.5)
        # Their upper end was exclusive.
        converted["mask_length"] = [mask.get("MIN_LENGTH", 75), mask.get("MAX_LENGTH", 125) - 1]
    return converted


def _part(section: _Section, key: str) -> _Section | None:
    """One augmentation's options; null or false switches it off."""
    value = section.get(key, {})
    return value if isinstance(value, Mapping) else None
