"""What all readers of Gerbilizer's and vocalocator's JSON share: keys, values, and their defaults."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from gerbil_tune.config.load import read_tree
from gerbil_tune.errors import ConfigError
from gerbil_tune.units import to_mm

Section = Mapping[str, Any]
Era = Literal["gerbilizer", "vocalocator-1.0", "vocalocator-1.1"]
"""Programs whose networks have the same names and shapes of weights, and mean different things by them.

gerbilizer: activation tanh(x) + 0.05 x; a unit is half the arena on each axis.
vocalocator-1.0: activation 0.95 tanh(x) + 0.05 x; units as before. The code of January to June 2024, in
which the networks were called Gerbilizer still at first.
vocalocator-1.1: activation likewise; a unit is half the longest side of the arena on all axes.
"""
CONV_KEYS = {
    "CONV_NUM_CHANNELS": "channels",
    "CONV_FILTER_SIZES": "kernel_sizes",
    "SHOULD_DOWNSAMPLE": "downsample",
    "CONV_DILATIONS": "dilations",
}
"""Their lists of convolutions, one entry a layer, and ours."""
GERBILIZER: dict[str, Any] = {
    "CONV_NUM_CHANNELS": [16, 16, 16, 32, 32, 32, 64],
    "CONV_FILTER_SIZES": [19, 7, 39, 41, 23, 29, 33],
    "SHOULD_DOWNSAMPLE": [False, True, True, True, True, True, False],
    "CONV_DILATIONS": [1] * 7,
    "NUM_EPOCHS": 30,
    "INITIAL_LEARNING_RATE": 5e-4,
    "MOMENTUM": 0.9,
    "MIN_SNR": 0,
    "MAX_SNR": 10,
    "ARCHITECTURE": "GerbilizerSimpleNetwork",
    "ARENA_DIMS": [558.9, 355.6],
}
VOCALOCATOR: dict[str, Any] = {
    "CONV_NUM_CHANNELS": [16, 16, 32, 32, 64, 64, 128, 128, 256, 256],
    "CONV_FILTER_SIZES": [33] * 10,
    "SHOULD_DOWNSAMPLE": [False, True] * 5,
    "CONV_DILATIONS": [1] * 10,
    "NUM_EPOCHS": 50,
    "INITIAL_LEARNING_RATE": 0.037,
    "MOMENTUM": 0.7,
    "MIN_SNR": 3,
    "MAX_SNR": 15,
    "ARCHITECTURE": "VocalocatorSimpleNetwork",
    "ARENA_DIMS": [572.0, 356.0],
}


def read_upper(path: Path) -> dict[str, Any]:
    """Read a JSON or JSON5 file, with its keys in upper case.

    Raises:
        ConfigError: If it cannot be read, or a key stands twice.
    """
    return upper(read_tree(path), str(path))


def upper(tree: Section, source: str) -> dict[str, Any]:
    """Put the keys of an object and of those in it into upper case; lists stay as they are.

    Defaults are filled in afterwards. The predecessors filled them in before, and so took them instead of
    what stood under a key in lower case.

    Raises:
        ConfigError: If a key stands twice.
    """
    result: dict[str, Any] = {}
    for key, value in tree.items():
        name = str(key).upper()
        if name in result:
            raise ConfigError(f"{source}: the key {name} stands twice, in upper and lower case")
        result[name] = upper(value, source) if isinstance(value, Mapping) else value
    return result


def section_of(tree: Section, name: str, source: str) -> Section:
    """A section of a config, empty if it is missing.

    Raises:
        ConfigError: If it is something else.
    """
    section = tree.get(name, {})
    if not isinstance(section, Mapping):
        raise ConfigError(f"{source}: {name} must be an object, but is {section!r}")
    return section


def conv_lists(parameters: Section, defaults: Section, source: str) -> dict[str, list[Any]]:
    """The lists of convolutions by our names, cut to the shortest, as the predecessors did in silence.

    Raises:
        ConfigError: If one is no list.
    """
    lists = {
        ours: as_list(parameters.get(theirs, defaults[theirs]), f"{source}: MODEL_PARAMS/{theirs}")
        for theirs, ours in CONV_KEYS.items()
    }
    num_layers = min(len(values) for values in lists.values())
    return {name: values[:num_layers] for name, values in lists.items()}


def arena_mm(widths: object, unit: object, source: str) -> list[float]:
    """Read DATA/ARENA_DIMS, in DATA/ARENA_DIMS_UNITS.

    Raises:
        ConfigError: If the widths are no list of numbers, or the unit is unknown.
    """
    where = f"{source}: DATA/ARENA_DIMS"
    numbers = [as_number(width, where) for width in as_list(widths, where)]
    try:
        return [to_mm(number, str(unit)) for number in numbers]
    except ConfigError as error:
        raise ConfigError(f"{where}_UNITS: {error}") from None


def as_number(value: object, where: str) -> float:
    """A number of JSON; true is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{where} must be a number, but is {value!r}")
    return float(value)


def as_list(value: object, where: str) -> list[Any]:
    """A list of JSON."""
    if not isinstance(value, list):
        raise ConfigError(f"{where} must be a list, but is {value!r}")
    return value
