"""What a check says: one fault in one sentence, with its count and first examples."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gerbil_tune.data.events import EventSet

Level = Literal["error", "warning"]
BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

NUM_EXAMPLES = 5
MOSTLY = 0.5
"""Share of all events from which on a fault is one of the data set, not of single events."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault of a data set.

    Attributes:
        level: An error makes training or prediction wrong or impossible; a warning may be meant so.
        message: One sentence: what is wrong, where, and what to do.
        code: Short name of the kind of fault, for machines; it does not change between versions.
        count: How many events, files, microphones or entries the fault concerns.
        examples: The first of them, at most 5, such as ``event 7 of calls.h5``.
    """

    level: Level
    message: str
    code: str = "other"
    count: int = 1
    examples: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return a dictionary that ``json`` can write."""
        return {
            "level": self.level,
            "code": self.code,
            "message": self.message,
            "count": self.count,
            "examples": list(self.examples),
        }


def about_events(
    level: Level, code: str, template: str, events: EventSet, bad_N: BoolArray
) -> Finding:
    """Make a finding about some events.

    Args:
        level: Its level.
        code: Its code.
        template: Its message, with ``{events}`` where "3 of 90 events (first: event 7 of calls.h5)" goes.
        events: The set.
        bad_N: (N,) which events have the fault, at least one.
    """
    places = np.flatnonzero(bad_N)
    examples = tuple(events.describe(i) for i in places[:NUM_EXAMPLES].tolist())
    noun = "event" if len(events) == 1 else "events"
    counted = f"{len(places)} of {len(events)} {noun} (first: {examples[0]})"
    return Finding(level, template.replace("{events}", counted), code, len(places), examples)


def errors_first(findings: Iterable[Finding]) -> list[Finding]:
    """The findings without repetitions, errors before warnings, else in their order."""
    return sorted(dict.fromkeys(findings), key=lambda finding: finding.level != "error")
