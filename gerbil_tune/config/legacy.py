"""Gerbilizer's and vocalocator's JSON configs, read as experiment configs.

Keys may be in upper or lower case. Every key is either used, known to be without effect, or refused: a
setting is never dropped in silence. What a config leaves out is what its own program would have taken.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gerbil_tune.config.legacy_format import (
    CONV_KEYS,
    GERBILIZER,
    VOCALOCATOR,
    Section,
    arena_mm,
    as_list,
    as_number,
    conv_lists,
    read_upper,
    upper,
)
from gerbil_tune.config.load import read_tree, validate
from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.errors import ConfigError

_ARCHITECTURES = {
    "gerbilizersimplenetwork": "simplenet",
    "vocalocatorsimplenetwork": "simplenet",
    "corrsimplenetwork": "corrnet",
    "gerbilizerdensenet": "densenet",
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
    "MODEL_PARAMS": {*CONV_KEYS, "USE_BATCH_NORM", "OUTPUT_TYPE", "OUTPUT_COV", "REGULARIZE_COV"},
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
    "AUGMENTATIONS": {"AUGMENT_DATA", "INVERSION", "NOISE", "LOW_FREQ_NOISE", "MASK"},
}
_KNOWN_AUGMENTATIONS = {
    "INVERSION": {"PROB"},
    "NOISE": {"PROB", "MIN_SNR", "MAX_SNR"},
    "LOW_FREQ_NOISE": {"PROB"},
    "MASK": {"PROB", "MIN_LENGTH", "MAX_LENGTH"},
}
_ONLY_THEIRS = {"GENERAL", "ARCHITECTURE", "MODEL_PARAMS", "OPTIMIZATION", "AUGMENTATIONS"}


def load_legacy(path: Path, *, may_have_weights: bool = False) -> ExperimentConfig:
    """Read a predecessor's config.

    Args:
        path: JSON or JSON5, as ``--config`` took it.
        may_have_weights: Pass over WEIGHTS_PATH, which is refused otherwise.

    Raises:
        ConfigError: If the file is wrong or asks for something that does not exist here.
    """
    source = str(path)
    tree = read_upper(path)
    _refuse_unknown(tree, source)
    name = tree.get("GENERAL", {}).get("CONFIG_NAME")
    if not name:
        raise ConfigError(f"{source}: GENERAL/CONFIG_NAME is missing; it names the results folder")
    if tree.get("WEIGHTS_PATH") and not may_have_weights:
        raise ConfigError(
            f"{source}: WEIGHTS_PATH names weights of a predecessor, with which training cannot begin; "
            "gerbil-tune import makes a model of them that it may name, or remove it to train from the start"
        )
    data, optimization = tree.get("DATA", {}), tree.get("OPTIMIZATION", {})
    defaults = _defaults(tree)
    converted = {
        "name": name,
        "data": _data(data, source),
        "scaling": {"audio": {"kind": "event_zscore"}, "location": {"kind": "per_axis"}},
        "model": _model(tree, defaults, source),
        "optimizer": _optimizer(optimization, defaults, source),
        "lr_schedule": _lr_schedule(optimization, defaults, source),
        "augmentation": _augmentation(tree, defaults, source),
        "training": {
            "epochs": optimization.get("NUM_EPOCHS", defaults["NUM_EPOCHS"]),
            "global_batch_size": data.get("BATCH_SIZE", 32),
            "clip_norm": 1.0 if optimization.get("CLIP_GRADIENTS", False) else None,
            "seed": tree.get("GENERAL", {}).get("TORCH_SEED", 888),
        },
    }
    return validate(ExperimentConfig, converted, source)


def is_legacy(path: Path) -> bool:
    """Whether a config file is in a predecessor's format.

    Of their sections DATA alone has a name that is also one of ours, in lower case.
    """
    tree = read_tree(path)
    return "DATA" in tree or bool(_ONLY_THEIRS & {str(key).upper() for key in tree})


def legacy_data_path(path: Path) -> Path | None:
    """Return DATA/DATAFILE_PATH, where a predecessor looked without ``--data``."""
    data = read_upper(path).get("DATA")
    stated = data.get("DATAFILE_PATH") if isinstance(data, Mapping) else None
    return Path(str(stated)) if stated else None


def _refuse_unknown(tree: Section, source: str) -> None:
    for section, keys in tree.items():
        if section in ("ARCHITECTURE", "WEIGHTS_PATH"):
            continue
        if section not in _KNOWN:
            raise ConfigError(
                f"{source}: {section} is not a section; valid: {', '.join(_KNOWN)}, ARCHITECTURE"
            )
        _check_keys(keys, _KNOWN[section], f"{source}: {section}")


def _check_keys(section: object, known: set[str], where: str) -> None:
    if not isinstance(section, Mapping):
        raise ConfigError(f"{where} must be an object, but is {section!r}")
    for key in section:
        if key not in known:
            raise ConfigError(
                f"{where}/{key} is not supported; supported: {', '.join(sorted(known))}"
            )


def _defaults(tree: Section) -> dict[str, Any]:
    asked = str(tree.get("ARCHITECTURE", "gerbilizer")).lower()
    return GERBILIZER if asked.startswith("gerbilizer") else VOCALOCATOR


def _data(data: Section, source: str) -> dict[str, Any]:
    if data.get("NORMALIZE_DATA", True) is False:
        raise ConfigError(f"{source}: DATA/NORMALIZE_DATA false is not supported; leave it out")
    converted: dict[str, Any] = {"crop_length": data.get("CROP_LENGTH", 8192)}
    if "SAMPLE_RATE" in data:
        converted["sample_rate_hz"] = data["SAMPLE_RATE"]
    if "ARENA_DIMS" in data:
        unit = data.get("ARENA_DIMS_UNITS", "MM")
        converted["arena_mm"] = arena_mm(data["ARENA_DIMS"], unit, source)
    if data.get("NODES_TO_LOAD"):
        converted["keypoints"] = data["NODES_TO_LOAD"]
    return converted


def _model(tree: Section, defaults: Section, source: str) -> dict[str, Any]:
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
    normalization = "batch" if parameters.get("USE_BATCH_NORM", True) else "none"
    has_correlations = bool(tree.get("DATA", {}).get("COMPUTE_XCORRS", False))
    if kind == "densenet":
        stated = [f"MODEL_PARAMS/{key}" for key in CONV_KEYS if key in parameters]
        stated += ["DATA/COMPUTE_XCORRS"] if has_correlations else []
        if stated:
            raise ConfigError(
                f"{source}: {stated[0]} is not supported with {asked}; leave it out, and see "
                "model/growth and model/kernel_size of a config of gerbil_tune"
            )
        return {"kind": kind, "normalization": normalization}
    if has_correlations:
        kind = "corrnet"  # correlations belong on a lag axis of their own, not among the audio channels
    conv = conv_lists(parameters, defaults, source)
    return {"kind": kind, "conv": {**conv, "normalization": normalization}}


def _optimizer(section: Section, defaults: Section, source: str) -> dict[str, Any]:
    asked = str(section.get("OPTIMIZER", "SGD")).upper()
    learning_rate = section.get("INITIAL_LEARNING_RATE", defaults["INITIAL_LEARNING_RATE"])
    if asked == "SGD":
        return {
            "kind": "sgd",
            "learning_rate": learning_rate,
            "momentum": section.get("MOMENTUM", defaults["MOMENTUM"]),
            "weight_decay": section.get("WEIGHT_DECAY", 0.0),
        }
    if asked == "ADAM":
        return {
            "kind": "adamw",
            "learning_rate": learning_rate,
            "betas": section.get("ADAM_BETAS", [0.9, 0.999]),
            "weight_decay": 0.0,  # their Adam was not given WEIGHT_DECAY
        }
    raise ConfigError(f"{source}: OPTIMIZATION/OPTIMIZER {asked} is unknown; valid: SGD, ADAM")


def _lr_schedule(section: Section, defaults: Section, source: str) -> dict[str, Any]:
    where = f"{source}: OPTIMIZATION/SCHEDULERS"
    lr_schedules = as_list(
        section.get("SCHEDULERS", [{"SCHEDULER_TYPE": "COSINE_ANNEALING"}]), where
    )
    first = lr_schedules[0] if len(lr_schedules) == 1 else None
    only = upper(first, source) if isinstance(first, Mapping) else {}
    if str(only.get("SCHEDULER_TYPE")).upper() != "COSINE_ANNEALING":
        raise ConfigError(f"{where} must be one COSINE_ANNEALING; others are not supported")
    _check_keys(only, {"SCHEDULER_TYPE", "MIN_LEARNING_RATE"}, f"{where}/0")
    lowest = as_number(only.get("MIN_LEARNING_RATE", 0.0), f"{where}/0/MIN_LEARNING_RATE")
    highest = as_number(
        section.get("INITIAL_LEARNING_RATE", defaults["INITIAL_LEARNING_RATE"]),
        f"{source}: OPTIMIZATION/INITIAL_LEARNING_RATE",
    )
    if not 0 <= lowest <= highest or highest == 0:
        raise ConfigError(
            f"{where}/0/MIN_LEARNING_RATE must be from 0 to INITIAL_LEARNING_RATE, which must be above 0, "
            f"but they are {lowest:g} and {highest:g}"
        )
    return {"warmup_fraction": 0.0, "final_fraction": lowest / highest}


def _augmentation(tree: Section, defaults: Section, source: str) -> dict[str, Any]:
    section = tree.get("AUGMENTATIONS", {})
    switch = section.get("AUGMENT_DATA", tree.get("DATA", {}).get("AUGMENT_DATA", True))
    inversion, noise, mask = (_part(section, key, source) for key in ("INVERSION", "NOISE", "MASK"))
    low_frequency = _low_frequency_noise(tree, source)
    if not switch:
        return {}
    converted: dict[str, Any] = low_frequency
    if inversion is not None:
        converted["polarity_prob"] = inversion.get("PROB", 0.5)
    if noise is not None:
        converted["noise_prob"] = noise.get("PROB", 0.5)
        converted["noise_snr_db"] = [
            noise.get(key, defaults[key]) for key in ("MIN_SNR", "MAX_SNR")
        ]
    if mask is not None:
        longest = mask.get("MAX_LENGTH", 125)
        if not isinstance(longest, int):
            raise ConfigError(
                f"{source}: AUGMENTATIONS/MASK/MAX_LENGTH must be a whole number, but is {longest!r}"
            )
        converted["mask_prob"] = mask.get("PROB", 0.5)
        converted["mask_length"] = [mask.get("MIN_LENGTH", 75), longest - 1]  # theirs was exclusive
    return converted


def _low_frequency_noise(tree: Section, source: str) -> dict[str, Any]:
    """Noise of magnitude exp(-2 f / the highest frequency), as strong as the event; off unless asked for."""
    section = tree.get("AUGMENTATIONS", {})
    if "LOW_FREQ_NOISE" not in section:
        return {}
    options = _part(section, "LOW_FREQ_NOISE", source)
    if options is None:
        return {}
    rate_hz = as_number(
        tree.get("DATA", {}).get("SAMPLE_RATE", 125_000), f"{source}: DATA/SAMPLE_RATE"
    )
    return {
        "low_frequency_prob": options.get("PROB", 0.5),
        "low_frequency_snr_db": [0.0, 0.0],
        "low_frequency_cutoff_hz": rate_hz / 4,  # half of the highest frequency
    }


def _part(section: Section, key: str, source: str) -> Section | None:
    """One augmentation's options; null or false switches it off."""
    value = section.get(key, {})
    if value is None or value is False:
        return None
    _check_keys(value, _KNOWN_AUGMENTATIONS[key], f"{source}: AUGMENTATIONS/{key}")
    options: Section = value
    return options
