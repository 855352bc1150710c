"""Checks of what is said about the recording site: plausible numbers, files that agree with the config."""

import itertools
import math
from collections.abc import Iterator

import numpy as np

from gerbil_tune.config.schema import DataConfig
from gerbil_tune.data.checks.findings import NUM_EXAMPLES, Finding
from gerbil_tune.data.events import EventSet, check_same_site, recording_setup
from gerbil_tune.errors import DatasetError
from gerbil_tune.geometry import RecordingSetup, longest_path_mm
from gerbil_tune.units import distance_to_delay_s

_LOWEST_RATE_HZ = 8000.0
"""Below it no rodent's call can be heard; audible squeaks begin at about 1 kHz."""
_HIGHEST_RATE_HZ = 5e6
_SMALLEST_ARENA_MM, _LARGEST_ARENA_MM = 100.0, 100_000.0
_METRES_MM = 30.0
_FILLERS = {"sample_rate_hz": 1.0, "arena_mm": (1.0, 1.0, 1.0)}
"""Stand in for what is missing, so that what else is wrong is found too."""


def find_setup(
    events: EventSet, data_config: DataConfig
) -> tuple[RecordingSetup | None, tuple[float, ...] | None, list[Finding]]:
    """Put together what is known of the site, and say what is not.

    Args:
        events: The set.
        data_config: Has the last word.

    Returns:
        The setup, or None where it is not whole; the widths of the arena, or None where they are unknown;
        and an error for each thing that is missing or contradicts another.
    """
    try:
        setup = recording_setup(events, data_config)
        return setup, setup.arena_mm, []
    except DatasetError:
        pass
    findings = {finding.message: finding for finding in _name_faults(events, data_config)}
    try:
        stated = check_same_site(events.files)["arena_mm"]
    except DatasetError:
        stated = None
    arena_mm = data_config.arena_mm or stated
    fits = arena_mm is not None and len(arena_mm) >= events.num_axes
    return None, arena_mm if fits else None, list(findings.values())


def _name_faults(events: EventSet, data_config: DataConfig) -> Iterator[Finding]:
    examples = tuple(file.path.name for file in events.files[:NUM_EXAMPLES])
    for name in _FILLERS:
        others = {
            other: filler
            for other, filler in _FILLERS.items()
            if other != name and getattr(data_config, other) is None
        }
        try:
            recording_setup(events, data_config.model_copy(update=others))
        except DatasetError as error:
            stated = getattr(data_config, name) is not None or any(
                getattr(file, name) is not None for file in events.files
            )
            code = "recording-site" if stated else f"no-{name.rpartition('_')[0].replace('_', '-')}"
            yield Finding("error", str(error), code, 1, examples)


def fewest_samples(setup: RecordingSetup | None) -> int | None:
    """Samples that sound takes between the farthest microphones; None without a setup."""
    if setup is None:
        return None
    return math.ceil(distance_to_delay_s(longest_path_mm(setup)) * setup.sample_rate_hz)


def check_site(events: EventSet, setup: RecordingSetup) -> list[Finding]:
    """Warn where config and files disagree, and of numbers that no recording site has.

    Args:
        events: The set.
        setup: The recording site as it will be used.
    """
    found = (
        _check_config(events, setup),
        _check_rate(setup),
        _check_arena(setup),
        _check_microphones(setup),
        _check_number(setup),
    )
    examples = tuple(file.path.name for file in events.files[:NUM_EXAMPLES])
    return [Finding("warning", text, code, 1, examples) for texts in found for code, text in texts]


def _check_config(events: EventSet, setup: RecordingSetup) -> Iterator[tuple[str, str]]:
    for name in ("sample_rate_hz", "arena_mm"):
        used = getattr(setup, name)
        for file in events.files:
            stated = getattr(file, name)
            if stated is not None and not np.array_equal(stated, used):
                yield (
                    "config-contradicts-file",
                    f"{name} is {used} by the config, but {file.path.name} states {stated}; the "
                    "config is followed",
                )
                break


def _check_rate(setup: RecordingSetup) -> Iterator[tuple[str, str]]:
    rate = setup.sample_rate_hz
    if not _LOWEST_RATE_HZ <= rate <= _HIGHEST_RATE_HZ:
        likely = f", {rate * 1000:g} if it is in kHz" if rate < _LOWEST_RATE_HZ else ""
        yield (
            "implausible-sample-rate",
            f"sample_rate_hz is {rate:g}, but calls of rodents need {_LOWEST_RATE_HZ:g} or more; state "
            f"samples a second{likely}, with --set data/sample_rate_hz=125000",
        )


def _check_number(setup: RecordingSetup) -> Iterator[tuple[str, str]]:
    if setup.num_microphones == 1:
        yield (
            "one-microphone",
            "the audio has one microphone, which cannot tell where a call came from; record with several, "
            "or give the file with all channels",
        )


def _check_arena(setup: RecordingSetup) -> Iterator[tuple[str, str]]:
    widest = max(setup.arena_mm[:2])
    if _SMALLEST_ARENA_MM <= widest <= _LARGEST_ARENA_MM:
        return
    unit = "m" if widest < _METRES_MM else "cm"
    likely = f" (it seems to be in {unit})" if widest < _SMALLEST_ARENA_MM else ""
    yield (
        "implausible-arena",
        f"arena_mm is {list(setup.arena_mm)}{likely}; state its full widths in mm, for example "
        "--set data/arena_mm='[572, 356]'",
    )


def _check_microphones(setup: RecordingSetup) -> Iterator[tuple[str, str]]:
    places = setup.microphones_mm
    if places is None or len(places) < 2:
        return
    distances = [math.dist(a, b) for a, b in itertools.combinations(places, 2)]
    widest = max(setup.arena_mm[:2])
    if max(distances) < 0.05 * widest or max(distances) > 20 * widest:
        yield (
            "implausible-microphones",
            f"microphones_mm are at most {max(distances):.3g} mm apart in an arena of {widest:g} mm; state "
            "x, y and z of each in mm from the arena's centre and floor",
        )
        return
    if min(distances) == 0:
        yield (
            "equal-microphone-places",
            "microphones_mm has two microphones at the same place; state x, y and z of each",
        )
    x_and_y = np.array(places)[:, :2]
    if x_and_y.min() >= 0 and np.any(x_and_y.max(axis=0) > 0.8 * np.array(setup.arena_mm[:2])):
        yield (
            "microphones-origin",
            "microphones_mm seem to be counted from a corner of the arena (none is left of or below it); "
            f"subtract half the arena {list(setup.arena_mm[:2])} from x and y",
        )
