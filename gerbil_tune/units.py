"""Lengths in millimetres, the frame of all positions, and the speed of sound.

Frame: x and y have their origin at the centre of the arena, z at its floor, all in millimetres.
"""

from gerbil_tune.errors import ConfigError

ORIGIN = "arena centre, floor"
UNITS = "mm"
SPEED_OF_SOUND_M_S = 343.2
"""In dry air at 20 °C."""

_MM_PER_UNIT = {"mm": 1.0, "cm": 10.0, "m": 1000.0}


def to_mm(value: float, unit: str) -> float:
    """Convert a length to millimetres.

    Args:
        value: The length.
        unit: ``mm``, ``cm`` or ``m``, in any case.

    Raises:
        ConfigError: If the unit is none of these.
    """
    try:
        return value * _MM_PER_UNIT[unit.lower()]
    except KeyError:
        valid = ", ".join(_MM_PER_UNIT)
        raise ConfigError(f"length unit {unit!r} is unknown; valid: {valid}") from None


def counted(number: int, noun: str) -> str:
    """A number with its noun: ``1 event``, ``2,000 events``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def distance_to_delay_s(distance_mm: float) -> float:
    """Time that sound takes for a distance in millimetres, in seconds."""
    return distance_mm / 1000.0 / SPEED_OF_SOUND_M_S
