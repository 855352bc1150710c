"""Events whose audio is the same as another's, sample by sample.

Legend: N events looked at.
"""

import hashlib

import numpy as np

from gerbil_tune.data.checks.audio_scan import AudioScan
from gerbil_tune.data.checks.findings import NUM_EXAMPLES, BoolArray, Finding, IntArray
from gerbil_tune.data.events import EventSet

_BLOCK_SAMPLES = 1 << 16


def find_duplicates(scan: AudioScan) -> list[IntArray]:
    """Places of events that have the same audio, each group ascending; silent events are left out.

    The pass gives equal keys to equal events; those few are read once more to be sure.
    """
    candidates = np.flatnonzero(scan.finite_N & ~scan.constant_NC.all(axis=1))
    keys = scan.keys_N[candidates]
    order = np.argsort(keys, kind="stable")
    changes = np.flatnonzero(np.diff(keys[order])) + 1
    groups = []
    for rows in np.split(order, changes):
        if len(rows) < 2:
            continue
        by_content: dict[bytes, list[int]] = {}
        for place in scan.places_N[candidates[rows]].tolist():
            by_content.setdefault(_hash(scan.events, place), []).append(place)
        groups += [np.array(places) for places in by_content.values() if len(places) > 1]
    return sorted(groups, key=lambda places: int(places[0]))


def _hash(events: EventSet, place: int) -> bytes:
    """Hash of an event's samples, the same for int16 and int32, float32 and float64."""
    digest = hashlib.blake2b(digest_size=16)
    audio_TC = events.read(place)
    wide = np.int64 if audio_TC.dtype.kind == "i" else np.float64
    for start in range(0, len(audio_TC), _BLOCK_SAMPLES):
        digest.update(audio_TC[start : start + _BLOCK_SAMPLES].astype(wide).tobytes())
    return digest.digest()


def check_duplicates(scan: AudioScan, parts: dict[str, BoolArray] | None = None) -> list[Finding]:
    """Find events that are in the set twice, and those on two sides of a split.

    Args:
        scan: Of the whole set.
        parts: For each part of a split, which events of the set are in it.
    """
    groups = find_duplicates(scan)
    if not groups:
        return []
    findings = _find_leaks(scan.events, groups, parts or {})
    repeated = sum(len(places) - 1 for places in groups)
    text = (
        f"{repeated} of {len(scan.events)} events have the same audio as another (first: "
        f"{_pair(scan.events, groups[0])}); remove them: gerbil-tune data clean"
    )
    examples = tuple(_pair(scan.events, places) for places in groups[:NUM_EXAMPLES])
    return [*findings, Finding("warning", text, "duplicate-events", repeated, examples)]


def _find_leaks(
    events: EventSet, groups: list[IntArray], parts: dict[str, BoolArray]
) -> list[Finding]:
    leaks: dict[tuple[str, ...], list[IntArray]] = {}
    for places in groups:
        names = tuple(name for name, in_part in parts.items() if in_part[places].any())
        if len(names) > 1:
            first = [int(places[parts[name][places]][0]) for name in names]
            leaks.setdefault(names, []).append(np.array(first))
    findings = []
    for names, found in leaks.items():
        examples = tuple(_pair(events, places) for places in found[:NUM_EXAMPLES])
        text = (
            f"{len(found)} recordings are in {' and in '.join(names)} at once (first: {examples[0]}); what "
            "is learned by heart is then taken for skill: gerbil-tune data clean, then split anew"
        )
        findings.append(Finding("error", text, "leaked-events", len(found), examples))
    return findings


def _pair(events: EventSet, places: IntArray) -> str:
    return f"{events.describe(int(places[0]))} and {events.describe(int(places[1]))}"
