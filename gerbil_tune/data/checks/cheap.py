"""Checks of a data set that take seconds: what would spoil a training run without an error."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from gerbil_tune.data.checks.audio import check_finite_and_silent
from gerbil_tune.data.checks.audio_scan import scan_audio
from gerbil_tune.data.checks.findings import Finding, Level, errors_first
from gerbil_tune.data.checks.index import check_index
from gerbil_tune.data.checks.labels import check_labels
from gerbil_tune.data.checks.site import check_site, fewest_samples
from gerbil_tune.data.events import EventSet
from gerbil_tune.errors import DatasetError
from gerbil_tune.geometry import RecordingSetup

__all__ = [
    "AUDIO_EVENTS",
    "AUDIO_SAMPLES",
    "Finding",
    "Level",
    "cheap_checks",
    "check_some_audio",
    "prediction_checks",
    "raise_on_errors",
]

AUDIO_EVENTS = 64
"""Events whose audio is read."""
AUDIO_SAMPLES = 65536
"""Samples that are read of such an event at most."""


def cheap_checks(events: EventSet, setup: RecordingSetup | None) -> list[Finding]:
    """Look for wrong labels, events that are too short and broken audio.

    Locations and lengths of all events are looked at, the audio of 64 of them.

    Args:
        events: The set.
        setup: The recording site; without it nothing that depends on the arena is checked.

    Returns:
        Findings, errors first; empty if nothing was found.
    """
    findings = [*check_index(events, fewest_samples(setup)), *check_some_audio(events)]
    if setup is not None:
        findings += check_site(events, setup)
    findings += check_labels(events, None if setup is None else setup.arena_mm)
    return errors_first(findings)


def prediction_checks(events: EventSet, setup: RecordingSetup) -> list[Finding]:
    """Those of the cheap checks that concern prediction, which needs no locations.

    Args:
        events: The set.
        setup: The recording site of the model.
    """
    return [*check_index(events, fewest_samples(setup)), *check_some_audio(events)]


def check_some_audio(events: EventSet) -> list[Finding]:
    """Read up to 64 events, spread evenly, and look for values that are not finite and for silence."""
    number = min(AUDIO_EVENTS, len(events))
    chosen = np.unique(np.linspace(0, len(events) - 1, number).astype(np.int64))
    return check_finite_and_silent(scan_audio(events, chosen, max_samples=AUDIO_SAMPLES))


def raise_on_errors(findings: Iterable[Finding], path: Path) -> None:
    """Raise the first error among findings.

    Raises:
        DatasetError: With its sentence, the path, and how many more errors there are.
    """
    errors = [finding.message for finding in findings if finding.level == "error"]
    if errors:
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        raise DatasetError(f"{path}: {errors[0]}{more}")
