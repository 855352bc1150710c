"""What validation events told about the honesty of a model: the content of a bundle's calibration.json.

    {"temperature": 1.3,
     "conformal": {"levels": [0.5, 0.9, 0.95],
                   "overall": [[1.2, 4.9, 6.4]],               a row a keypoint, a number a level
                   "zones": [[[1.1, 4.7, 6.0]], [null], ...],  by zone and keypoint; null: as overall
                   "num_events": 640},
     "callers": {...}}                                         see ``caller_rule``

A threshold that is null is infinite: too few events to promise that level, so the region is everything.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from gerbil_tune.errors import DatasetError
from gerbil_tune.models.caller_rule import CallerRule

LEVELS = (0.5, 0.9, 0.95)
"""Coverage that conformal regions promise."""
ZONES_PER_AXIS = 3
NUM_ZONES = ZONES_PER_AXIS**2

Thresholds = tuple[float, ...]
"""One a level; infinite where the region is everything."""


@dataclass(frozen=True, slots=True)
class ConformalThresholds:
    """Up to which conformal score a location belongs to the region of each level.

    The score is ``LocationDensity.score_BK`` of the density after the temperature: the squared Mahalanobis
    distance of a Gaussian.

    Attributes:
        levels: Coverage that is promised, rising, each between 0 and 1.
        overall: Thresholds of each keypoint over the whole arena.
        zones: By zone and keypoint; None where a zone had too few events and takes those of the whole arena.
            Zones divide the arena evenly in rows from low y and columns from low x; a zone's number is
            row times ``ZONES_PER_AXIS`` plus column, of the predicted location.
        num_events: Events that they come from.
    """

    levels: tuple[float, ...]
    overall: tuple[Thresholds, ...]
    zones: tuple[tuple[Thresholds | None, ...], ...]
    num_events: int

    def to_json(self) -> dict[str, Any]:
        """Return a dictionary that ``json`` can write and ``from_json`` reads."""
        return {
            "levels": list(self.levels),
            "overall": [_finite_or_null(row) for row in self.overall],
            "zones": [
                [None if row is None else _finite_or_null(row) for row in zone]
                for zone in self.zones
            ],
            "num_events": self.num_events,
        }

    @classmethod
    def from_json(cls, values: Any, source: Path | str) -> "ConformalThresholds":
        """Rebuild what ``to_json`` gave.

        Args:
            values: The content.
            source: The file, for errors.

        Raises:
            DatasetError: If a rule is broken.
        """
        reader = _Reader(source)
        fields = reader.mapping(values, "conformal")
        levels = reader.levels(fields.get("levels"))
        overall = tuple(
            reader.thresholds(row, f"conformal/overall/{keypoint}", len(levels))
            for keypoint, row in enumerate(reader.rows(fields.get("overall"), "conformal/overall"))
        )
        zones = tuple(
            tuple(
                None
                if row is None
                else reader.thresholds(row, f"conformal/zones/{number}/{keypoint}", len(levels))
                for keypoint, row in enumerate(
                    reader.rows(zone, f"conformal/zones/{number}", len(overall))
                )
            )
            for number, zone in enumerate(
                reader.rows(fields.get("zones"), "conformal/zones", NUM_ZONES)
            )
        )
        return cls(levels, overall, zones, reader.count(fields.get("num_events")))


@dataclass(frozen=True, slots=True)
class Calibration:
    """What turns a network's density into one that can be believed.

    Attributes:
        temperature: Of ``LocationDensity.tempered``; for a Gaussian the factor on its covariance.
        conformal: Thresholds of regions that cover what they promise, or None where none were fitted.
        callers: When it is clear which of several animals called, or None where it was not fitted.
    """

    temperature: float = 1.0
    conformal: ConformalThresholds | None = None
    callers: CallerRule | None = None

    def to_json(self) -> dict[str, Any]:
        """Return a dictionary that ``json`` can write and ``from_json`` reads."""
        return {
            "temperature": self.temperature,
            "conformal": None if self.conformal is None else self.conformal.to_json(),
            "callers": None if self.callers is None else self.callers.to_json(),
        }

    @property
    def fingerprint(self) -> str:
        """Hash of all of it, 16 hex digits."""
        text = json.dumps(self.to_json(), sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    @classmethod
    def from_json(cls, values: Any, source: Path | str) -> "Calibration":
        """Rebuild what ``to_json`` gave.

        ``covariance_scale`` is read as the temperature where that is missing: bundles of Gaussians have
        stated it under that name.

        Args:
            values: The content.
            source: The file, for errors.

        Raises:
            DatasetError: If a rule is broken.
        """
        reader = _Reader(source)
        fields = reader.mapping(values, "the content")
        temperature = reader.temperature(fields.get("temperature", fields.get("covariance_scale")))
        conformal, callers = fields.get("conformal"), fields.get("callers")
        return cls(
            temperature,
            None if conformal is None else ConformalThresholds.from_json(conformal, source),
            None if callers is None else CallerRule.from_json(callers, source),
        )


def _finite_or_null(thresholds: Thresholds) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in thresholds]


@dataclass(frozen=True, slots=True)
class _Reader:
    """Takes the parts of a calibration from JSON; ``source`` is the file that its errors name."""

    source: Path | str

    def mapping(self, value: Any, name: str) -> Mapping[str, Any]:
        if not isinstance(value, Mapping):
            raise self._error(name, "a JSON object", value)
        return value

    def rows(self, value: Any, name: str, length: int | None = None) -> list[Any]:
        if not isinstance(value, list) or not value or length not in (None, len(value)):
            raise self._error(name, f"a list of {length or 'one or more'} rows", value)
        return value

    def temperature(self, value: Any) -> float:
        if not _is_number(value) or not 0.0 < value < math.inf:
            raise self._error("temperature", "a number above 0", value)
        return float(value)

    def levels(self, value: Any) -> tuple[float, ...]:
        numbers = value if isinstance(value, list) and all(map(_is_number, value)) else []
        # Comparisons that hold where all is well: NaN fails them.
        if not numbers or not all(low < high for low, high in pairwise((0.0, *numbers, 1.0))):
            raise self._error("conformal/levels", "a rising list of numbers between 0 and 1", value)
        return tuple(float(number) for number in numbers)

    def thresholds(self, value: Any, name: str, num_levels: int) -> Thresholds:
        rule = f"a list of {num_levels} numbers that do not fall, 0 or more, null for no limit"
        if not isinstance(value, list) or len(value) != num_levels:
            raise self._error(name, rule, value)
        if not all(number is None or _is_number(number) for number in value):
            raise self._error(name, rule, value)
        numbers = tuple(math.inf if number is None else float(number) for number in value)
        if not all(low <= high for low, high in pairwise((0.0, *numbers))):
            raise self._error(name, rule, value)
        return numbers

    def count(self, value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self._error("conformal/num_events", "a whole number, 1 or more", value)
        return value

    def _error(self, name: str, rule: str, value: Any) -> DatasetError:
        return DatasetError(
            f"{self.source}: {name} must be {rule}, but is {value!r}; export the model again"
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
