"""When it is clear which of several animals called: a part of a bundle's calibration.json.

    {"power": 1.0, "background": 0.003, "edges_mm": [15, 30, ...], "error_rates": [0.01, 0.05, ...],
     "thresholds": [[null, 3.1, ..., 1.2], ...],     a row an error rate, a number a separation
     "num_events": 640}

A threshold that is null cannot be reached: at this separation nobody is named.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from gerbil_tune.errors import DatasetError


@dataclass(frozen=True, slots=True)
class CallerRule:
    """What turns densities at animals into the caller's name, at a promised rate of errors.

    Attributes:
        power: Of the density.
        background: Share of calls that are anywhere in the arena.
        edges_mm: Rising distances between two animals; they bound the separations that thresholds are for: up
            to the first, from each to the next, from the last on.
        error_rates: Rising shares of wrong ones among the callers that are named.
        thresholds: A row an error rate: from which log odds on, of one animal against another, it is named
            (nats); a number a separation, and last where one of the two was not seen. Infinite: never.
        num_events: Calls with known places that it was fitted to.
    """

    power: float
    background: float
    edges_mm: tuple[float, ...]
    error_rates: tuple[float, ...]
    thresholds: tuple[tuple[float, ...], ...]
    num_events: int

    @property
    def lowest_error_rate(self) -> float | None:
        """Lowest rate at which one of two animals can be named; None: nobody ever is."""
        rows = zip(self.error_rates, self.thresholds, strict=True)
        return next((rate for rate, row in rows if min(row) < math.inf), None)

    def to_json(self) -> dict[str, Any]:
        """Return a dictionary that ``json`` can write and ``from_json`` reads."""
        return {
            "power": self.power,
            "background": self.background,
            "edges_mm": list(self.edges_mm),
            "error_rates": list(self.error_rates),
            "thresholds": [
                [value if math.isfinite(value) else None for value in row]
                for row in self.thresholds
            ],
            "num_events": self.num_events,
        }

    @classmethod
    def from_json(cls, values: Any, source: Path | str) -> "CallerRule":
        """Rebuild what ``to_json`` gave.

        Args:
            values: The content.
            source: The file, for errors.

        Raises:
            DatasetError: If a rule is broken.
        """

        def take(name: str, rule: str, is_valid: Any) -> Any:
            value = values.get(name) if isinstance(values, Mapping) else None
            if not is_valid(value):
                raise DatasetError(
                    f"{source}: callers/{name} must be {rule}, but is {value!r}; export the model again"
                )
            return value

        power = take("power", "a number above 0", lambda value: _is_number(value) and value > 0)
        background = take(
            "background",
            "a number from 0 to below 1",
            lambda value: _is_number(value) and 0 <= value < 1,
        )
        edges = take("edges_mm", "a list of rising numbers above 0", _is_rising)
        rates = take(
            "error_rates",
            "a list of rising numbers between 0 and 1",
            lambda value: _is_rising(value) and value and value[-1] < 1,
        )
        thresholds = take(
            "thresholds",
            f"{len(rates)} rows of {len(edges) + 2} numbers, null for never",
            lambda value: _is_table(value, len(rates), len(edges) + 2),
        )
        num_events = take(
            "num_events",
            "a whole number, 1 or more",
            lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= 1,
        )
        return cls(
            float(power),
            float(background),
            tuple(map(float, edges)),
            tuple(map(float, rates)),
            tuple(
                tuple(math.inf if value is None else float(value) for value in row)
                for row in thresholds
            ),
            num_events,
        )


def _is_rising(value: Any) -> bool:
    if not isinstance(value, list) or not all(map(_is_number, value)):
        return False
    return all(low < high < math.inf for low, high in pairwise((0.0, *value)))


def _is_table(value: Any, num_rows: int, num_columns: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) == num_rows
        and all(
            isinstance(row, list)
            and len(row) == num_columns
            and all(number is None or _is_number(number) for number in row)
            for row in value
        )
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
