"""Checks of a data set that take seconds: what would spoil a training run without an error.

Legend: N events, C microphones, T samples, K keypoints, D axes.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from gerbil_tune.data.events import EventSet
from gerbil_tune.errors import DatasetError
from gerbil_tune.geometry import RecordingSetup, longest_path_mm
from gerbil_tune.units import distance_to_delay_s

Level = Literal["error", "warning"]
BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]

OUTSIDE_TOLERANCE = 0.25
"""Share of half the arena by which a location may lie beyond the wall."""
MOSTLY = 0.5
"""Share of all events from which on a fault is one of the data set, not of single events."""
AUDIO_EVENTS = 64
"""Events whose audio is read."""
AUDIO_SAMPLES = 65536
"""Samples that are read of such an event at most."""
_FEWEST_FOR_PATTERN = 10
_UNIT_SPREADS = (("m", 0.00005, 0.0015), ("cm", 0.03, 0.125))
"""A unit, and where the farthest location lies, in half arenas, if it is read as millimetres."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault of a data set, told in one sentence."""

    level: Level
    message: str


def cheap_checks(events: EventSet, setup: RecordingSetup | None) -> list[Finding]:
    """Look for wrong labels, events that are too short and broken audio.

    Locations and lengths of all events are looked at, the audio of 64 of them.

    Args:
        events: The set.
        setup: The recording site; without it nothing that depends on the arena is checked.

    Returns:
        Findings, errors first; empty if nothing was found.
    """
    findings = [*_check_lengths(events, setup), *_check_index(events), *_check_audio(events)]
    if setup is not None:
        findings += _check_config(events, setup)
    locations = events.locations_mm
    if locations is not None and len(locations):
        findings += _check_locations(events, locations.astype(np.float64), setup)
    return sorted(findings, key=lambda finding: finding.level != "error")


def raise_on_errors(findings: Iterable[Finding], path: Path) -> None:
    """Raise the first error among findings.

    Raises:
        DatasetError: With its sentence, the path, and how many more errors there are.
    """
    errors = [finding.message for finding in findings if finding.level == "error"]
    if errors:
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        raise DatasetError(f"{path}: {errors[0]}{more}")


def _count(events: EventSet, bad: BoolArray) -> str:
    """Say how many events and which one first: ``3 of 90 events (first: event 7 of calls.h5)``."""
    first = events.describe(int(np.flatnonzero(bad)[0]))
    return f"{int(bad.sum())} of {len(events)} events (first: {first})"


def _check_lengths(events: EventSet, setup: RecordingSetup | None) -> list[Finding]:
    findings = []
    empty = events.lengths == 0
    if empty.any():
        findings.append(
            Finding("error", f"{_count(events, empty)} have no samples; remove them from the index")
        )
    if setup is not None:
        delay_s = distance_to_delay_s(longest_path_mm(setup))
        fewest = math.ceil(delay_s * setup.sample_rate_hz)
        short = (events.lengths < fewest) & ~empty
        if short.any():
            findings.append(
                Finding(
                    "warning",
                    f"{_count(events, short)} are shorter than {fewest} samples, the time that sound "
                    "takes between the farthest microphones",
                )
            )
    return findings


def _check_index(events: EventSet) -> list[Finding]:
    findings = []
    for file in events.files:
        outside = file.total_samples - int(file.starts[-1] - file.starts[0])
        if outside:
            findings.append(
                Finding(
                    "warning",
                    f"{outside} of {file.total_samples} samples of {file.path.name} belong to no event; "
                    "is the index the one of this audio?",
                )
            )
    return findings


def _check_config(events: EventSet, setup: RecordingSetup) -> list[Finding]:
    """Warn where the setup, through the config, says otherwise than the files."""
    findings = []
    for name in ("sample_rate_hz", "arena_mm"):
        used = getattr(setup, name)
        for file in events.files:
            stated = getattr(file, name)
            if stated is not None and not np.array_equal(stated, used):
                findings.append(
                    Finding(
                        "warning",
                        f"{name} is {used} by the config, but {file.path.name} states {stated}; the "
                        "config is followed",
                    )
                )
                break
    return findings


def _check_locations(
    events: EventSet, locations_NKD: FloatArray, setup: RecordingSetup | None
) -> list[Finding]:
    findings = []
    finite: BoolArray = np.asarray(np.isfinite(locations_NKD).all(axis=(1, 2)))
    if not finite.all():
        findings.append(
            Finding(
                "error",
                f"locations of {_count(events, ~finite)} are not finite numbers; remove these events",
            )
        )
    if setup is None or not finite.any():
        return findings
    # Faults of the whole set explain each other: only the first that fits is told.
    checks: tuple[Callable[[], Finding | None], ...] = (
        lambda: _check_unit(events, locations_NKD[finite], setup),
        lambda: _check_origin(locations_NKD[finite], setup),
        lambda: _check_inside(events, locations_NKD, finite, setup),
    )
    found = next((finding for check in checks if (finding := check()) is not None), None)
    return findings if found is None else [*findings, found]


def _check_unit(
    events: EventSet, locations_NKD: FloatArray, setup: RecordingSetup
) -> Finding | None:
    """Find locations that would fill the arena if they were in metres or centimetres."""
    stated = all(file.states_units for file in events.files)
    if stated or len(locations_NKD) < _FEWEST_FOR_PATTERN:
        return None
    half_mm = max(setup.arena_mm[:2]) / 2
    farthest_mm = float(np.quantile(np.abs(locations_NKD[..., :2]).max(axis=(1, 2)), 0.99))
    for unit, low, high in _UNIT_SPREADS:
        if low * half_mm < farthest_mm < high * half_mm:
            return Finding(
                "error",
                f"locations reach {farthest_mm:.3g} mm from the centre of an arena of "
                f"{2 * half_mm:g} mm and seem to be in {unit}; set the attribute 'units' of the file to "
                f"{unit!r} (or to 'mm' if they are right)",
            )
    return None


def _check_origin(locations_NKD: FloatArray, setup: RecordingSetup) -> Finding | None:
    """Find locations that fill [0, width] rather than [-width/2, width/2] in x and y."""
    if len(locations_NKD) < _FEWEST_FOR_PATTERN:
        return None
    widths_mm = np.array(setup.arena_mm[:2])
    shares = locations_NKD[..., :2].reshape(-1, 2) / widths_mm
    low, high = np.quantile(shares, (0.01, 0.99), axis=0)
    beyond_wall = (high > 0.5 * (1 + OUTSIDE_TOLERANCE)) & (high < 1 + OUTSIDE_TOLERANCE)
    if np.all(low > -0.05) and beyond_wall.any():
        return Finding(
            "error",
            "locations seem to be counted from a corner of the arena (none is left of or below it, and "
            f"they reach {high[0]:.0%} and {high[1]:.0%} of its widths); subtract half the arena "
            f"{list(setup.arena_mm[:2])} from them",
        )
    return None


def _check_inside(
    events: EventSet, locations_NKD: FloatArray, finite: BoolArray, setup: RecordingSetup
) -> Finding | None:
    """Find locations beyond the walls by more than a quarter of half the arena."""
    num_axes = min(locations_NKD.shape[2], len(setup.arena_mm))
    middle_mm, reach_mm = np.zeros(num_axes), np.array(setup.arena_mm[:num_axes]) / 2
    middle_mm[2:] = reach_mm[2:]  # z is counted from the floor
    offsets = np.abs(locations_NKD[..., :num_axes] - middle_mm)
    outside = (offsets > (1 + OUTSIDE_TOLERANCE) * reach_mm).any(axis=(1, 2)) & finite
    if not outside.any():
        return None
    first = locations_NKD[np.flatnonzero(outside)[0]].round(1).tolist()
    text = (
        f"locations of {_count(events, outside)} are outside the arena {list(setup.arena_mm)} mm by more "
        f"than {OUTSIDE_TOLERANCE:.0%} of its half, the first at {first}"
    )
    if outside.sum() > MOSTLY * finite.sum():
        return Finding(
            "error", f"{text}; check data/arena_mm, and unit and origin of the locations"
        )
    return Finding("warning", text)


def _check_audio(events: EventSet) -> list[Finding]:
    """Read up to 64 events, spread evenly, and look for values that are not finite and for silence."""
    chosen = np.unique(np.linspace(0, len(events) - 1, min(AUDIO_EVENTS, len(events))).astype(int))
    chosen = chosen[events.lengths[chosen] > 0]
    broken = np.zeros(len(events), dtype=np.bool_)
    constant_NC = np.zeros((len(chosen), events.num_microphones), dtype=np.bool_)
    for place, i in enumerate(chosen.tolist()):
        audio_TC = events.read(i, 0, AUDIO_SAMPLES)
        broken[i] = not np.isfinite(audio_TC).all()
        constant_NC[place] = audio_TC.min(axis=0) == audio_TC.max(axis=0)
    findings = []
    if broken.any():
        findings.append(
            Finding(
                "error",
                f"audio of {_count(events, broken)} holds NaN or infinite values, of {len(chosen)} events "
                "looked at; remove these events",
            )
        )
    findings += _describe_silence(events, chosen, constant_NC)
    return findings


def _describe_silence(
    events: EventSet, chosen: npt.NDArray[np.int64], constant_NC: BoolArray
) -> list[Finding]:
    if not len(chosen):
        return []
    silent = np.zeros(len(events), dtype=np.bool_)
    silent[chosen] = constant_NC.all(axis=1)
    if silent.any():
        level: Level = "error" if silent.sum() > MOSTLY * len(chosen) else "warning"
        text = f"audio of {_count(events, silent)} is silent, of {len(chosen)} events looked at"
        return [Finding(level, text)]
    dead = np.flatnonzero(constant_NC.all(axis=0)).tolist()
    if dead:
        text = (
            f"microphones {dead} (counted from 0) are silent in all {len(chosen)} events looked at"
        )
        return [Finding("warning", text)]
    return []
