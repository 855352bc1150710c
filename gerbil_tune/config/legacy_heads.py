"""The predecessors' OUTPUT_TYPE, as a head of ours and the place of each of its raw numbers in theirs.

Their raw numbers are in network units, and so are ours; only the order may differ. Where theirs had fewer
(one standard deviation for both axes), a number of ours is a copy of theirs or a constant.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gerbil_tune.config.legacy_format import Era, Section, as_list, as_number
from gerbil_tune.errors import ConfigError
from gerbil_tune.units import to_mm

MIN_SD_MM = 1e-6
"""Theirs had no smallest standard deviation."""
Rows = tuple[int | float, ...]
_NEVER_TRAINED = {"GAUSSIAN_2D_ORIENTED", "GAUSSIAN_3D_ORIENTED"}


@dataclass(frozen=True, slots=True)
class LegacyHead:
    """What an OUTPUT_TYPE means here.

    Attributes:
        head: The section ``head`` of a config.
        num_outputs: Raw numbers of their network.
        rows: For each raw number of ours the place of theirs (int), or the number that it always is (float).
        num_axes: 2 or 3.
        num_keypoints: 1, or 2 for one Gaussian over both.
        notes: What differs from the program that trained it, one sentence each.
    """

    head: Mapping[str, Any]
    num_outputs: int
    rows: Rows
    num_axes: int = 2
    num_keypoints: int = 1
    notes: tuple[str, ...] = ()


def legacy_head(
    parameters: Section, era: Era, arena_mm: Sequence[float], source: str
) -> LegacyHead:
    """Read OUTPUT_TYPE and what belongs to it.

    Args:
        parameters: The section MODEL_PARAMS.
        era: Which program trained the network.
        arena_mm: Full widths.
        source: The file, for errors.

    Raises:
        ConfigError: If it is missing or unknown, or was never trained in that program.
    """
    where = f"{source}: MODEL_PARAMS/OUTPUT_TYPE"
    asked = parameters.get("OUTPUT_TYPE")
    kind = str(asked).upper()
    if kind in _NEVER_TRAINED:
        raise ConfigError(
            f"{where} {kind} cannot be imported: vocalocator stopped with an error before it trained one"
        )
    if kind == "MDN":
        return _mixture(parameters, source)
    if kind == "GAUSSIAN_FIXED_VARIANCE":
        return _fixed(parameters, era, arena_mm, source)
    known = _known_heads(era)
    if asked is None or kind not in known:
        said = "is missing" if asked is None else f"{asked!r} is unknown to {era}"
        valid = ", ".join([*known, "GAUSSIAN_FIXED_VARIANCE", "MDN"])
        raise ConfigError(f"{where} {said}; valid: {valid}")
    return known[kind]


def _known_heads(era: Era) -> dict[str, LegacyHead]:
    """The types that need no options, by their names in a program."""
    heads = {
        "POINT": LegacyHead({"kind": "point"}, 2, (0, 1)),
        "GAUSSIAN_SPHERICAL_COV": LegacyHead(_gaussian("spherical"), 3, _places(3)),
        "GAUSSIAN_DIAGONAL_COV": LegacyHead(_gaussian("diagonal"), 4, _places(4)),
        "GAUSSIAN_FULL_COV": LegacyHead(_gaussian("full"), 5, _places(5)),
    }
    if era == "gerbilizer":
        return heads
    independent = (0, 1, 5, 2, 3, 4, 0.0, 0.0, 6)
    return heads | {
        "GAUSSIAN_3D_INDEPENDENT_HEIGHT": LegacyHead(_gaussian("full"), 7, independent, 3),
        "GAUSSIAN_3D_FULL_COV": LegacyHead(_gaussian("full"), 9, _places(9), 3),
        "GAUSSIAN_4D_ORIENTED": LegacyHead(_gaussian("joint"), 14, _places(14), 2, 2),
        "GAUSSIAN_6D_ORIENTED": LegacyHead(_gaussian("joint"), 27, _places(27), 3, 2),
    }


def _gaussian(kind: str) -> dict[str, Any]:
    return {"kind": f"gaussian-{kind}", "min_sd_mm": MIN_SD_MM}


def _places(number: int) -> Rows:
    return tuple(range(number))


def _fixed(parameters: Section, era: Era, arena_mm: Sequence[float], source: str) -> LegacyHead:
    """A Gaussian of the variance that the config states.

    The predecessors divided a variance in mm² by the arena's width instead of the square of half of it, so
    that 400 mm² acted as 57,200. What is meant is what is taken: the variance has no say in where the means
    are.
    """
    where = f"{source}: MODEL_PARAMS/VARIANCE"
    variance = as_number(parameters.get("VARIANCE"), where)
    if not 0 < variance < math.inf:
        raise ConfigError(f"{where} must be a number above 0, but is {variance:g}")
    unit = str(parameters.get("VARIANCE_UNITS", "")).upper()
    sd = math.sqrt(variance)
    if unit in ("MM", "CM"):
        note = (
            f"{where} is taken as {variance:g} {unit.lower()}², as it says; the program that trained this "
            "network converted it wrongly"
        )
        fixed = {"kind": "gaussian-fixed", "sd_mm": to_mm(sd, unit)}
        return LegacyHead(fixed, 2, (0, 1), notes=(note,))
    if unit != "ARBITRARY":
        raise ConfigError(f"{where}_UNITS is {unit!r}; valid: MM, CM, ARBITRARY")
    if era == "vocalocator-1.1":
        fixed = {"kind": "gaussian-fixed", "sd_mm": sd * max(arena_mm) / 2}
        return LegacyHead(fixed, 2, (0, 1))
    # Circular in their units, which differ among the axes: an ellipse in mm.
    constant = sd + math.log(-math.expm1(-sd))  # softplus of it is the standard deviation
    return LegacyHead(_gaussian("diagonal"), 2, (0, 1, constant, constant))


_COMPONENTS: dict[str, tuple[int, Rows]] = {
    "GAUSSIAN_SPHERICAL_COV": (3, (0, 1, 2, 0.0, 2)),
    "GAUSSIAN_DIAGONAL_COV": (4, (0, 1, 2, 0.0, 3)),
    "GAUSSIAN_FULL_COV": (5, (0, 1, 2, 3, 4)),
}
"""Raw numbers of a mixture's constituent, and what mean and triangle of ours are made of."""
_UNIFORM = "UNIFORM"


def _mixture(parameters: Section, source: str) -> LegacyHead:
    """A mixture of Gaussians, perhaps with a uniform density over the arena.

    Theirs has the numbers of each constituent one after the other, then a logit of each.
    """
    where = f"{source}: MODEL_PARAMS/CONSTITUENT_DISTRIBUTIONS"
    stated = as_list(parameters.get("CONSTITUENT_DISTRIBUTIONS"), where)
    kinds = [str(kind).upper() for kind in stated]
    for kind in kinds:
        if kind != _UNIFORM and kind not in _COMPONENTS:
            raise ConfigError(
                f"{where}: {kind} cannot be imported; those that can: {', '.join(_COMPONENTS)} and, once, "
                f"{_UNIFORM}"
            )
    num_uniform = kinds.count(_UNIFORM)
    if num_uniform > 1 or num_uniform == len(kinds):
        raise ConfigError(
            f"{where} must have at least one Gaussian and at most one {_UNIFORM}, but is {kinds}"
        )
    rows: list[int | float] = []
    offset = 0
    for kind in kinds:
        num_outputs, places = _COMPONENTS.get(kind, (0, ()))
        rows += [offset + row if isinstance(row, int) else row for row in places]
        offset += num_outputs
    logits = sorted(range(len(kinds)), key=lambda place: kinds[place] == _UNIFORM)
    head = {
        "kind": "mixture",
        "num_components": len(kinds) - num_uniform,
        "min_sd_mm": MIN_SD_MM,
        "background": num_uniform == 1,
    }
    return LegacyHead(head, offset + len(kinds), (*rows, *(offset + place for place in logits)))
