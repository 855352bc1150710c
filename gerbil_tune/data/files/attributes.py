"""What a file of events says about its recording site in its root attributes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from gerbil_tune.errors import ConfigError, DatasetError
from gerbil_tune.units import ORIGIN, to_mm

_CENTRE_ORIGINS = ("arena centre", "arena center", "centre", "center")


@dataclass(frozen=True, slots=True)
class SiteAttributes:
    """Facts of the recording site; None where the file does not state one.

    Attributes:
        sample_rate_hz: Samples a second.
        arena_mm: Full widths, (x, y) or (x, y, z).
        microphones_mm: One (x, y, z) a channel.
        mm_per_unit: Millimetres in one unit of the file's locations.
        states_units: Whether the unit of the locations is stated; if not, it is taken for millimetres.
    """

    sample_rate_hz: float | None
    arena_mm: tuple[float, ...] | None
    microphones_mm: tuple[tuple[float, float, float], ...] | None
    mm_per_unit: float
    states_units: bool


def read_site(path: Path, source: h5py.File, *, num_microphones: int) -> SiteAttributes:
    """Read the attributes sample_rate_hz, arena_mm, microphones_mm, units and origin.

    Raises:
        DatasetError: If one of them has a wrong shape or value, or the origin is not the arena centre.
    """
    _check_origin(path, source)
    unit = _read_text(path, source, "units")
    try:
        mm_per_unit = 1.0 if unit is None else to_mm(1.0, unit)
    except ConfigError as error:
        raise DatasetError(f"{path}: attribute 'units': {error}") from None
    rate = _read_numbers(path, source, "sample_rate_hz", "one positive number")
    if rate is not None and (rate.size != 1 or rate.flat[0] <= 0):
        raise _wrong(path, "sample_rate_hz", rate.tolist(), "one positive number")
    arena = _read_numbers(path, source, "arena_mm", "2 or 3 positive widths")
    if arena is not None and (arena.shape not in ((2,), (3,)) or np.any(arena <= 0)):
        raise _wrong(path, "arena_mm", arena.tolist(), "2 or 3 positive widths")
    expected = f"{num_microphones} rows of x, y and z, one a microphone"
    microphones = _read_numbers(path, source, "microphones_mm", expected)
    if microphones is not None and microphones.shape != (num_microphones, 3):
        raise _wrong(path, "microphones_mm", f"of shape {microphones.shape}", expected)
    return SiteAttributes(
        sample_rate_hz=None if rate is None else float(rate.flat[0]),
        arena_mm=None if arena is None else tuple(float(width) for width in arena),
        microphones_mm=None
        if microphones is None
        else tuple((float(x), float(y), float(z)) for x, y, z in microphones),
        mm_per_unit=mm_per_unit,
        states_units=unit is not None,
    )


def _check_origin(path: Path, source: h5py.File) -> None:
    origin = _read_text(path, source, "origin")
    if origin is not None and origin.split(",")[0].strip().lower() not in _CENTRE_ORIGINS:
        raise DatasetError(
            f"{path}: attribute 'origin' is {origin!r}, but locations must be counted from the arena "
            f"centre; subtract half the arena from them and set it to {ORIGIN!r}"
        )


def _wrong(path: Path, name: str, received: object, expected: str) -> DatasetError:
    return DatasetError(f"{path}: attribute {name!r} must be {expected}, but is {received}")


def _read_text(path: Path, source: h5py.File, name: str) -> str | None:
    if name not in source.attrs:
        return None
    value = source.attrs[name]
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if not isinstance(value, str):
        raise _wrong(path, name, repr(value), "text")
    return value


def _read_numbers(
    path: Path, source: h5py.File, name: str, expected: str
) -> np.ndarray[Any, np.dtype[np.float64]] | None:
    if name not in source.attrs:
        return None
    value = np.asarray(source.attrs[name])
    if value.dtype.kind not in "iuf" or not np.all(np.isfinite(value)):
        received = " ".join(repr(source.attrs[name]).split())  # NumPy breaks lines
        raise _wrong(path, name, received, expected)
    return value.astype(np.float64)
