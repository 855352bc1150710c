"""Checks of the index: where events begin, and how long they are.

Legend: N events.
"""

from collections.abc import Iterator

import numpy as np

from gerbil_tune.data.checks.findings import MOSTLY, Finding, about_events
from gerbil_tune.data.events import EventSet
from gerbil_tune.data.files.formats import EventFile

_FEWEST_SAMPLES = 16
"""An event of fewer samples is no sound at any sample rate in use."""


def check_index(events: EventSet, fewest_samples: int | None) -> list[Finding]:
    """Look for empty and short events, and for audio that belongs to no event.

    Args:
        events: The set.
        fewest_samples: Samples that sound takes between the farthest microphones; None where unknown.
    """
    findings = _check_lengths(events, fewest_samples)
    for file in events.files:
        name = (file.path.name,)
        findings += [
            Finding("warning", text, code, count, name) for code, count, text in _check_file(file)
        ]
    return findings


def _check_file(file: EventFile) -> Iterator[tuple[str, int, str]]:
    """Find audio of no event and events without onset: code, count and sentence."""
    before, end = int(file.starts[0]), int(file.starts[-1])
    name, total = file.path.name, file.total_samples
    if before:
        yield (
            "samples-before-first-event",
            before,
            f"the index of {name} begins at sample {before}, not at 0: the {before} of {total} samples "
            "before it belong to no event; is the index the one of this audio?",
        )
    if end < total:
        yield (
            "samples-after-last-event",
            total - end,
            f"{total - end} of {total} samples of {name} belong to no event, for its index ends at {end}; "
            "is the index the one of this audio, and does it count samples?",
        )
    if file.onsets_s is not None and not np.isfinite(file.onsets_s).all():
        unknown = np.flatnonzero(~np.isfinite(file.onsets_s))
        yield (
            "nan-onsets",
            len(unknown),
            f"onsets_s of {len(unknown)} of {file.num_events} events of {name} are not finite (first: event "
            f"{unknown[0]}); events without onset cannot be split by gaps in time",
        )


def _check_lengths(events: EventSet, fewest_samples: int | None) -> list[Finding]:
    """Look for events without samples, of a few samples, or shorter than the longest delay."""
    findings = []
    empty_N = events.lengths == 0
    if empty_N.any():
        text = "{events} have no samples; remove them: gerbil-tune data clean, or from the index"
        findings.append(about_events("error", "empty-events", text, events, empty_N))
    tiny_N = (events.lengths < _FEWEST_SAMPLES) & ~empty_N
    if tiny_N.sum() > MOSTLY * len(events):
        typical = int(np.median(events.lengths[tiny_N]))
        text = (
            f"{{events}} have fewer than {_FEWEST_SAMPLES} samples, most of them {typical}; the index must "
            "count samples of the audio, and its entries must be the first sample of each event"
        )
        return [*findings, about_events("error", "index-not-in-samples", text, events, tiny_N)]
    short_N = tiny_N if fewest_samples is None else (events.lengths < fewest_samples) & ~empty_N
    if short_N.any():
        text = (
            f"{{events}} are shorter than {fewest_samples or _FEWEST_SAMPLES} samples"
            + (
                ""
                if fewest_samples is None
                else ", the time that sound takes between the farthest "
            )
            + ("" if fewest_samples is None else "microphones")
        )
        findings.append(about_events("warning", "short-events", text, events, short_N))
    return findings
