"""Checks of the locations: what is not finite, not in the arena, not in mm, or not a location at all.

Legend: N events, K keypoints, D axes.
"""

import itertools
import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from gerbil_tune.data.checks.findings import (
    MOSTLY,
    NUM_EXAMPLES,
    BoolArray,
    Finding,
    FloatArray,
    Level,
    about_events,
)
from gerbil_tune.data.events import EventSet

OUTSIDE_TOLERANCE = 0.25
"""Share of half the arena by which a location may lie beyond the wall."""
FEWEST_FOR_PATTERN = 10
"""Events from which on a pattern in all of them says something."""
_UNIT_SPREADS = (("m", 0.00005, 0.0015), ("cm", 0.03, 0.125))
"""A unit, and where the farthest location lies, in half arenas, if it is read as millimetres."""
_FARTHEST_KEYPOINTS = 0.5
"""Share of the arena's diagonal beyond which two keypoints are not of one animal."""
_FEW = 0.05


def check_labels(events: EventSet, arena_mm: tuple[float, ...] | None) -> list[Finding]:
    """Look at the locations of all chosen keypoints of all events.

    Args:
        events: The set; without locations nothing is found.
        arena_mm: Full widths; None: what depends on the arena is not checked.
    """
    stored = events.locations_mm
    if stored is None or not stored.size:
        return []
    locations_NKD = stored.astype(np.float64)
    finite_NK: BoolArray = np.asarray(np.isfinite(locations_NKD).all(axis=2))
    findings = _check_finite(events, finite_NK)
    used_K = finite_NK.any(axis=0)
    finite_N: BoolArray = np.asarray(finite_NK[:, used_K].all(axis=1)) & used_K.any()
    if not finite_N.any():
        return findings
    used_NKD = locations_NKD[finite_N][:, used_K]
    all_equal = _check_all_equal(events, used_NKD)
    if all_equal is not None:
        return [*findings, all_equal]
    findings += _check_repeats(events, locations_NKD)
    findings += _check_equal_keypoints(events, used_NKD, np.flatnonzero(used_K).tolist())
    if arena_mm is None:
        return findings
    found = check_frame(events, used_NKD, arena_mm) or _check_inside(
        events, locations_NKD[:, used_K], finite_N, arena_mm
    )
    far = _check_far_keypoints(events, locations_NKD, arena_mm)
    # In the wrong unit all distances are wrong.
    return [*findings, *found, *(far if not _any_error(found) else [])]


def check_frame(
    events: EventSet,
    places_NKD: FloatArray,
    arena_mm: tuple[float, ...],
    what: str = "locations",
) -> list[Finding]:
    """Look whether places are in mm, from the arena's centre, with x and y as in the arena.

    Args:
        events: The set that they are of.
        places_NKD: (N, K, D) mm, all finite; N may be another number than that of the events.
        arena_mm: Full widths.
        what: Name of the dataset.
    """
    if len(places_NKD) < FEWEST_FOR_PATTERN:
        return []
    checks: tuple[Callable[..., list[Finding]], ...] = (_check_unit, _check_origin, _check_swapped)
    # Faults of the whole set explain each other: only the first that fits is told.
    return next(
        (told for check in checks if (told := check(events, places_NKD, arena_mm, what))), []
    )


def _any_error(findings: list[Finding]) -> bool:
    return any(finding.level == "error" for finding in findings)


def _check_finite(events: EventSet, finite_NK: BoolArray) -> list[Finding]:
    """Find keypoints that are never located, and events in which others are not."""
    findings = []
    never = np.flatnonzero(~finite_NK.any(axis=0)).tolist()
    names = [events.keypoints[k] for k in never]
    if never and len(never) < finite_NK.shape[1]:
        kept = [name for name in events.keypoints if name not in names]
        wanted = ", ".join(kept)
        text = (
            f"keypoints {names} have no finite location in any event; choose others, for example "
            f"--set data/keypoints='[{wanted}]'"
        )
        examples = tuple(names[:NUM_EXAMPLES])
        findings.append(Finding("error", text, "keypoint-never-located", len(names), examples))
    else:
        never = []
    others_NK = np.delete(finite_NK, never, axis=1)
    broken_N: BoolArray = np.asarray(~others_NK.all(axis=1))
    if broken_N.any():
        text = "locations of {events} are not finite numbers; remove these events: gerbil-tune data clean"
        findings.append(about_events("error", "nan-locations", text, events, broken_N))
    return findings


def _check_all_equal(events: EventSet, locations_NKD: FloatArray) -> Finding | None:
    """Find labels that were never filled in, or a source that never moved."""
    if len(locations_NKD) < 2 or not np.all(locations_NKD == locations_NKD[0]):
        return None
    place = locations_NKD[0].round(1).tolist()
    if not locations_NKD.any():
        text = f"the locations of all {len(locations_NKD)} events are 0; were they ever filled in?"
        return Finding("error", text, "zero-locations", len(locations_NKD), (events.describe(0),))
    text = (
        f"the locations of all {len(locations_NKD)} events are the same, {place}; there is nothing to "
        "learn from them"
    )
    return Finding("warning", text, "equal-locations", len(locations_NKD), (events.describe(0),))


def _check_repeats(events: EventSet, locations_NKD: FloatArray) -> list[Finding]:
    """Find sets in which most events are exactly where the event before was."""
    if len(locations_NKD) < FEWEST_FOR_PATTERN:
        return []
    same_N = np.zeros(len(locations_NKD), dtype=np.bool_)
    same_N[1:] = (locations_NKD[1:] == locations_NKD[:-1]).all(axis=(1, 2))
    if same_N.sum() <= MOSTLY * len(same_N):
        return []
    text = (
        "{events} have exactly the location of the event before; is the source still, or did the tracking "
        "stop? Split by group, so that training and test do not share them"
    )
    return [about_events("warning", "repeated-locations", text, events, same_N)]


def _check_equal_keypoints(
    events: EventSet, locations_NKD: FloatArray, columns: list[int]
) -> list[Finding]:
    """Find two keypoints that are at the same place in every event."""
    if len(locations_NKD) < 2:
        return []
    equal = [
        f"{events.keypoints[columns[a]]} and {events.keypoints[columns[b]]}"
        for a, b in itertools.combinations(range(len(columns)), 2)
        if np.array_equal(locations_NKD[:64, a], locations_NKD[:64, b])
        and np.array_equal(locations_NKD[:, a], locations_NKD[:, b])
    ]
    if not equal:
        return []
    text = (
        f"keypoints {equal[0]} are at the same place in every event; choose one of them with "
        "--set data/keypoints"
    )
    examples = tuple(equal[:NUM_EXAMPLES])
    return [Finding("warning", text, "equal-keypoints", len(equal), examples)]


def _check_unit(
    events: EventSet, locations_NKD: FloatArray, arena_mm: tuple[float, ...], what: str
) -> list[Finding]:
    """Find locations that would fill the arena if they were in metres or centimetres.

    Where the files state the unit, only what no animal does is doubted: to stay within a millimetre.
    """
    stated = all(file.states_units for file in events.files)
    half_mm = max(arena_mm[:2]) / 2
    farthest_mm = float(np.quantile(np.abs(locations_NKD[..., :2]).max(axis=(1, 2)), 0.99))
    for unit, low, high in _UNIT_SPREADS:
        if low * half_mm < farthest_mm < high * half_mm and not (stated and unit != "m"):
            otherwise = "it says another" if stated else "or to 'mm' if they are right"
            text = (
                f"{what} reach {farthest_mm:.3g} mm from the centre of an arena of "
                f"{2 * half_mm:g} mm and seem to be in {unit}; set the attribute 'units' of the file to "
                f"{unit!r} ({otherwise})"
            )
            examples = _name_files(events)
            level: Level = "warning" if stated else "error"
            return [Finding(level, text, f"{what}-unit", len(locations_NKD), examples)]
    return []


def _check_origin(
    events: EventSet, locations_NKD: FloatArray, arena_mm: tuple[float, ...], what: str
) -> list[Finding]:
    """Find locations that fill [0, width] rather than [-width/2, width/2] in x and y."""
    shares = locations_NKD[..., :2].reshape(-1, 2) / np.array(arena_mm[:2])
    low, high = np.quantile(shares, (0.01, 0.99), axis=0)
    beyond_wall = (high > 0.5 * (1 + OUTSIDE_TOLERANCE)) & (high < 1 + OUTSIDE_TOLERANCE)
    if not (np.all(low > -0.05) and beyond_wall.any()):
        return []
    text = (
        f"{what} seem to be counted from a corner of the arena (none is left of or below it, and "
        f"they reach {high[0]:.0%} and {high[1]:.0%} of its widths); subtract half the arena "
        f"{list(arena_mm[:2])} from them"
    )
    return [Finding("error", text, f"{what}-origin", len(locations_NKD), _name_files(events))]


def _check_swapped(
    events: EventSet, locations_NKD: FloatArray, arena_mm: tuple[float, ...], what: str
) -> list[Finding]:
    """Find locations that are outside as they are, and inside with x and y exchanged."""
    reach_mm = (1 + OUTSIDE_TOLERANCE) * np.array(arena_mm[:2]) / 2
    places_mm = np.abs(locations_NKD[..., :2]).reshape(-1, 2)
    outside = float((places_mm > reach_mm).any(axis=1).mean())
    outside_swapped = float((places_mm > reach_mm[::-1]).any(axis=1).mean())
    if outside < _FEW or outside_swapped > 0.1 * outside:
        return []
    text = (
        f"{outside:.0%} of the {what} are outside the arena {list(arena_mm)} mm as they are, but "
        f"{outside_swapped:.0%} with x and y exchanged; exchange them, or the widths in data/arena_mm"
    )
    code = "axes-swapped" if what == "locations" else f"{what}-axes-swapped"
    return [Finding("error", text, code, len(locations_NKD), _name_files(events))]


def _check_inside(
    events: EventSet,
    locations_NKD: FloatArray,
    finite_N: BoolArray,
    arena_mm: tuple[float, ...],
) -> list[Finding]:
    """Find locations beyond walls, floor or ceiling by more than a quarter of half the arena."""
    num_axes = min(locations_NKD.shape[2], len(arena_mm))
    middle_mm, reach_mm = np.zeros(num_axes), np.array(arena_mm[:num_axes]) / 2
    middle_mm[2:] = reach_mm[2:]  # z is counted from the floor
    beyond_NKD = np.abs(locations_NKD[..., :num_axes] - middle_mm) > (
        (1 + OUTSIDE_TOLERANCE) * reach_mm
    )
    across_N: BoolArray = np.asarray(beyond_NKD[..., :2].any(axis=(1, 2))) & finite_N
    height_N: BoolArray = np.asarray(beyond_NKD[..., 2:].any(axis=(1, 2))) & finite_N
    findings = []
    by = f"by more than {OUTSIDE_TOLERANCE:.0%} of its half"
    for bad_N, code, where, advice in (
        (
            across_N,
            "outside-arena",
            f"outside the arena {list(arena_mm)} mm {by}",
            "check data/arena_mm, and unit and origin of the locations",
        ),
        (
            height_N,
            "wrong-height",
            f"below the floor or above the arena's height of {arena_mm[-1]:g} mm {by}",
            "z must be counted upwards from the floor, in mm",
        ),
    ):
        if bad_N.any():
            first = locations_NKD[np.flatnonzero(bad_N)[0]].round(1).tolist()
            whole_set = bad_N.sum() > MOSTLY * finite_N.sum()
            text = f"locations of {{events}} are {where}, the first at {first}; "
            text += advice if whole_set else "gerbil-tune data clean removes them"
            level: Level = "error" if whole_set else "warning"
            findings.append(about_events(level, code, text, events, bad_N))
    return findings


def _check_far_keypoints(
    events: EventSet, locations_NKD: FloatArray, arena_mm: tuple[float, ...]
) -> list[Finding]:
    """Find events whose keypoints are farther apart than any animal is long."""
    if locations_NKD.shape[1] < 2:
        return []
    limit_mm = _FARTHEST_KEYPOINTS * math.hypot(*arena_mm[:2])
    with np.errstate(invalid="ignore"):
        spans_ND = locations_NKD.max(axis=1) - locations_NKD.min(axis=1)
        # Two points are at most as far apart as the corners of the box around them.
        suspects = np.flatnonzero(np.hypot.reduce(spans_ND, axis=1) > limit_mm)
    farthest = np.array([_longest_distance(locations_NKD[i]) for i in suspects])
    far_N = np.zeros(len(locations_NKD), dtype=np.bool_)
    far_N[suspects] = farthest > limit_mm
    if not far_N.any():
        return []
    text = (
        f"keypoints of {{events}} are more than {limit_mm:.0f} mm apart, half the arena's diagonal, up to "
        f"{farthest.max():.0f} mm; remove them: gerbil-tune data clean"
    )
    return [about_events("warning", "keypoints-far-apart", text, events, far_N)]


def _longest_distance(places_KD: FloatArray) -> float:
    differences_KKD: npt.NDArray[np.float64] = places_KD[:, None] - places_KD[None]
    return float(np.sqrt((differences_KKD**2).sum(axis=2)).max())


def _name_files(events: EventSet) -> tuple[str, ...]:
    return tuple(file.path.name for file in events.files[:NUM_EXAMPLES])
