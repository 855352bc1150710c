"""Checks of the tracks of several animals: a wrong frame would name the wrong caller.

Legend: N events, A animals, K keypoints, D axes.
"""

import numpy as np

from gerbil_tune.data.checks.findings import MOSTLY, Finding, Level
from gerbil_tune.data.checks.labels import OUTSIDE_TOLERANCE, check_frame
from gerbil_tune.data.events import EventSet


def check_tracks(events: EventSet, arena_mm: tuple[float, ...] | None) -> list[Finding]:
    """Look at the tracks of all animals.

    Args:
        events: The set; without tracks nothing is found.
        arena_mm: Full widths; None: what depends on the arena is not checked.
    """
    if events.animals is None or not events.animals.tracks_mm.size:
        return []
    tracks_NAKD = events.animals.tracks_mm.astype(np.float64)
    seen_NA = np.isfinite(tracks_NAKD).all(axis=(2, 3))
    names = np.array(events.animals.names)
    findings = []
    if not seen_NA.any(axis=0).all():
        never = names[~seen_NA.any(axis=0)].tolist()
        text = (
            f"animals {never} were not seen in any event (their tracks are NaN), so they may be anywhere; "
            "leave them out of the tracks if they were not there"
        )
        findings.append(Finding("warning", text, "animal-never-seen", len(never), tuple(never)))
    seen_MKD = tracks_NAKD[seen_NA]
    if arena_mm is None or not len(seen_MKD):
        return findings
    if frame := check_frame(events, seen_MKD, arena_mm, "tracks"):
        return [*findings, *frame]
    reach_mm = (1 + OUTSIDE_TOLERANCE) * np.asarray(arena_mm[:2]) / 2
    outside_M = (np.abs(seen_MKD[..., :2]) > reach_mm).any(axis=(1, 2))
    if outside_M.any():
        first = seen_MKD[np.flatnonzero(outside_M)[0]].round(1).tolist()
        text = (
            f"{outside_M.mean():.1%} of the tracks are outside the arena {list(arena_mm)} mm by more than "
            f"{OUTSIDE_TOLERANCE:.0%} of its half, the first at {first}; check unit and origin of the tracks"
        )
        level: Level = "error" if outside_M.mean() > MOSTLY else "warning"
        examples = tuple(file.path.name for file in events.files[:1])
        findings.append(Finding(level, text, "tracks-outside", int(outside_M.sum()), examples))
    return findings
