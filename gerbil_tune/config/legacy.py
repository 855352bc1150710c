"""Gerbilizer's and vocalocator's JSON configs, read as experiment configs.

Keys may be in upper or lower case. Every key is either used, known to be without effect, or refused: a
setting is never dropped in silence. What a config leaves out is what its own program would have taken.
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
_GERBILIZER: dict[str, Any] = {
    "CONV_NUM_CHANNELS": [16, 16, 16, 32, 32, 32, 64],
    "CONV_FILTER_SIZES": [19, 7, 39, 41, 23, 29, 33],
    "SHOULD_DOWNSAMPLE": [False, True, True, True, True, True, False],
    "CONV_DILATIONS": [1] * 7,
    "NUM_EPOCHS": 30,
    "INITIAL_LEARNING_RATE": 5e-4,
    "MOMENTUM": 0.9,
    "MIN_SNR": 0,
    "MAX_SNR": 10,
}
_VOCALOCATOR: dict[str, Any] = {
    "CONV_NUM_CHANNELS": [16, 16, 32, 32, 64, 64, 128, 128, 256, 256],
    "CONV_FILTER_SIZES": [33] * 10,
    "SHOULD_DOWNSAMPLE": [False, True] * 5,
    "CONV_DILATIONS": [1] * 10,
    "NUM_EPOCHS": 50,
    "INITIAL_LEARNING_RATE": 0.037,
    "MOMENTUM": 0.7,
    "MIN_SNR": 3,
    "MAX_SNR": 15,
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
    "AUGMENTATIONS": {"AUGMENT_DATA", "INVERSION", "NOISE", "LOW_FREQ_NOISE", "MASK"},
}
_KNOWN_AUGMENTATIONS = {
    "INVERSION": {"PROB"},
    "NOISE": {"PROB", "MIN_SNR", "MAX_SNR"},
    "LOW_FREQ_NOISE": {"PROB"},
    "MASK": {"PROB", "MIN_LENGTH", "MAX_LENGTH"},
}
_ONLY_THEIRS = {"GENERAL", "ARCHITECTURE", "MODEL_PARAMS", "OPTIMIZATION", "AUGMENTATIONS"}
_Section = Mapping[str, Any]


def load_legacy(path: Path) -> ExperimentConfig:
    """Read a predecessor's config.

    Args:
        path: JSON or JSON5, as ``--config`` took it.

    Raises:
        ConfigError: If the file is wrong or asks for something that does not exist here.
    """
    source = str(path)
    tree = _upper(read_tree(path), source)
    _refuse_unknown(tree, source)
    name = tree.get("GENERAL", {}).get("CONFIG_NAME")
    if not name:
        raise ConfigError(f"{source}: GENERAL/CONFIG_NAME is missing; it names the results folder")
    if tree.get("WEIGHTS_PATH"):
        raise ConfigError(
            f"{source}: WEIGHTS_PATH asks for training from existing weights, which is not supported; "
            "remove it to train from the start"
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
    source = str(path)
    data = _upper(read_tree(path), source).get("DATA")
    stated = data.get("DATAFILE_PATH") if isinstance(data, Mapping) else None
    return Path(str(stated)) if stated else None


def _upper(tree: Mapping[str, Any], source: str) -> dict[str, Any]:
    upper: dict[str, Any] = {}
    for key, value in tree.items():
        name = str(key).upper()
        if name in upper:
            raise ConfigError(f"{source}: the key {name} stands twice, in upper and lower case")
        upper[name] = _upper(value, source) if isinstance(value, Mapping) else value
    return upper


def _refuse_unknown(tree: _Section, source: str) -> None:
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


def _defaults(tree: _Section) -> dict[str, Any]:
    asked = str(tree.get("ARCHITECTURE", "gerbilizer")).lower()
    return _GERBILIZER if asked.startswith("gerbilizer") else _VOCALOCATOR


def _data(data: _Section, source: str) -> dict[str, Any]:
    if data.get("NORMALIZE_DATA", True) is False:
        raise ConfigError(f"{source}: DATA/NORMALIZE_DATA false is not supported; leave it out")
    converted: dict[str, Any] = {"crop_length": data.get("CROP_LENGTH", 8192)}
    if "SAMPLE_RATE" in data:
        converted["sample_rate_hz"] = data["SAMPLE_RATE"]
    if "ARENA_DIMS" in data:
        where = f"{source}: DATA/ARENA_DIMS"
        widths = [_number(width, where) for width in _list(data["ARENA_DIMS"], where)]
        try:
            unit = str(data.get("ARENA_DIMS_UNITS", "MM"))
            converted["arena_mm"] = [to_mm(width, unit) for width in widths]
        except ConfigError as error:
            raise ConfigError(f"{where}_UNITS: {error}") from None
    if data.get("NODES_TO_LOAD"):
        converted["keypoints"] = data["NODES_TO_LOAD"]
    return converted


def _model(tree: _Section, defaults: _Section, source: str) -> dict[str, Any]:
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
        stated = [f"MODEL_PARAMS/{key}" for key in _CONV_KEYS if key in parameters]
        stated += ["DATA/COMPUTE_XCORRS"] if has_correlations else []
        if stated:
            raise ConfigError(
                f"{source}: {stated[0]} is not supported with {asked}; leave it out, and see "
                "model/growth and model/kernel_size of a config of gerbil_tune"
            )
        return {"kind": kind, "normalization": normalization}
    if has_correlations:
        kind = "corrnet"  # correlations belong on a lag axis of their own, not among the audio channels
    lists = {
        key: _list(parameters.get(key, defaults[key]), f"{source}: MODEL_PARAMS/{key}")
        for key in _CONV_KEYS
    }
    num_layers = min(len(values) for values in lists.values())  # as the predecessors did
    conv: dict[str, Any] = {_CONV_KEYS[key]: values[:num_layers] for key, values in lists.items()}
    return {"kind": kind, "conv": {**conv, "normalization": normalization}}


def _optimizer(section: _Section, defaults: _Section, source: str) -> dict[str, Any]:
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


def _lr_schedule(section: _Section, defaults: _Section, source: str) -> dict[str, Any]:
    where = f"{source}: OPTIMIZATION/SCHEDULERS"
    lr_schedules = _list(section.get("SCHEDULERS", [{"SCHEDULER_TYPE": "COSINE_ANNEALING"}]), where)
    first = lr_schedules[0] if len(lr_schedules) == 1 else None
    only = _upper(first, source) if isinstance(first, Mapping) else {}
    if str(only.get("SCHEDULER_TYPE")).upper() != "COSINE_ANNEALING":
        raise ConfigError(f"{where} must be one COSINE_ANNEALING; others are not supported")
    _check_keys(only, {"SCHEDULER_TYPE", "MIN_LEARNING_RATE"}, f"{where}/0")
    lowest = _number(only.get("MIN_LEARNING_RATE", 0.0), f"{where}/0/MIN_LEARNING_RATE")
    highest = _number(
        section.get("INITIAL_LEARNING_RATE", defaults["INITIAL_LEARNING_RATE"]),
        f"{source}: OPTIMIZATION/INITIAL_LEARNING_RATE",
    )
    if not 0 <= lowest <= highest or highest == 0:
        raise ConfigError(
            f"{where}/0/MIN_LEARNING_RATE must be from 0 to INITIAL_LEARNING_RATE, which must be above 0, "
            f"but they are {lowest:g} and {highest:g}"
        )
    return {"warmup_fraction": 0.0, "final_fraction": lowest / highest}


def _augmentation(tree: _Section, defaults: _Section, source: str) -> dict[str, Any]:
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


def _low_frequency_noise(tree: _Section, source: str) -> dict[str, Any]:
    """Noise of magnitude exp(-2 f / the highest frequency), as strong as the event; off unless asked for."""
    section = tree.get("AUGMENTATIONS", {})
    if "LOW_FREQ_NOISE" not in section:
        return {}
    options = _part(section, "LOW_FREQ_NOISE", source)
    if options is None:
        return {}
    rate_hz = _number(
        tree.get("DATA", {}).get("SAMPLE_RATE", 125_000), f"{source}: DATA/SAMPLE_RATE"
    )
    return {
        "low_frequency_prob": options.get("PROB", 0.5),
        "low_frequency_snr_db": [0.0, 0.0],
        "low_frequency_cutoff_hz": rate_hz / 4,  # half of the highest frequency
    }


def _part(section: _Section, key: str, source: str) -> _Section | None:
    """One augmentation's options; null or false switches it off."""
    value = section.get(key, {})
    if value is None or value is False:
        return None
    _check_keys(value, _KNOWN_AUGMENTATIONS[key], f"{source}: AUGMENTATIONS/{key}")
    options: _Section = value
    return options


def _number(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{where} must be a number, but is {value!r}")
    return float(value)


def _list(value: object, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise ConfigError(f"{where} must be a list, but is {value!r}")
    return value
