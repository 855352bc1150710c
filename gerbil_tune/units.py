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


def format_duration(seconds: float) -> str:
    """A duration in its two largest units: 4.2 s, 12 min 5 s, 3 h 20 min, 2 d 4 h."""
    total = round(seconds)
    if total < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{total} s"
    minutes, rest = divmod(total, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"
