"""The filters of `data clean`: each says of every event whether it goes, and what was measured.

Legend: N events, C microphones, K keypoints, D axes, P pairs of keypoints.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from gerbil_tune.config.cleaning import (
    ClippingFilter,
    DeadMicrophoneFilter,
    DurationFilter,
    KeypointDistanceFilter,
    NotFiniteFilter,
    OutsideArenaFilter,
    SilenceFilter,
    SkeletonFilter,
    SnrFilter,
)
from gerbil_tune.data.checks.audio_scan import AudioScan
from gerbil_tune.data.checks.clipping import find_clipped_share
from gerbil_tune.data.checks.duplicates import find_duplicates
from gerbil_tune.data.checks.findings import BoolArray, FloatArray
from gerbil_tune.data.checks.levels import (
    compare_with_event_db,
    compare_with_median_db,
    find_dead,
    find_event_levels_db,
)
from gerbil_tune.data.cleaning.skeletons import fewest_events, judge_skeletons, pair_lengths_mm
from gerbil_tune.data.events import EventSet
from gerbil_tune.errors import ConfigError
from gerbil_tune.geometry import RecordingSetup, longest_path_mm
from gerbil_tune.units import distance_to_delay_s

NO_LOCATIONS = "the data have no locations"
IMPULSE_RESPONSES = "impulse responses are no recordings"


@dataclass(frozen=True)
class EventFacts:
    """All that filters look at.

    Attributes:
        setup: The recording site.
        locations_NKD: float32 in mm, of the keypoints that count, or None.
        scan: What a pass over the audio of all events has seen.
    """

    setup: RecordingSetup
    locations_NKD: npt.NDArray[np.float32] | None
    scan: AudioScan

    @property
    def events(self) -> EventSet:
        """The set."""
        return self.scan.events


@dataclass(frozen=True)
class FilterOutcome:
    """What one filter found.

    Attributes:
        name: Of the filter, as in the config.
        is_hit_N: Whether the event is to go.
        measure_N: What the limit was compared with; NaN where it could not be measured. None where there is
            nothing to compare.
        unit: Of the measure.
        limit: The smallest or largest measure that stays.
        is_lowest: Whether ``limit`` is the smallest.
        details: Why, for events that are hit, such as ``12 % of the samples of microphone 2 are cut off``.
        skipped: Why the filter cannot be applied to these data, or None.
        note: What the user should know besides.
    """

    name: str
    is_hit_N: BoolArray
    measure_N: FloatArray | None = None
    unit: str = ""
    limit: float | None = None
    is_lowest: bool = False
    details: dict[int, str] = field(default_factory=dict)
    skipped: str | None = None
    note: str | None = None


def not_finite(facts: EventFacts, config: NotFiniteFilter) -> FilterOutcome:
    """Events with NaN or infinite samples or locations."""
    is_bad_audio_N = facts.scan.spread(~facts.scan.finite_N & config.audio, False)
    is_bad_place_N = np.zeros_like(is_bad_audio_N)
    if facts.locations_NKD is not None and config.locations:
        is_bad_place_N = np.asarray(~np.isfinite(facts.locations_NKD).all(axis=(1, 2)))
    details = {}
    for i in np.flatnonzero(is_bad_audio_N | is_bad_place_N).tolist():
        what = [
            text
            for text, is_bad in (
                ("samples", is_bad_audio_N[i]),
                ("locations", is_bad_place_N[i]),
            )
            if is_bad
        ]
        details[i] = f"{' and '.join(what)} that are NaN or infinite"
    return FilterOutcome("not_finite", is_bad_audio_N | is_bad_place_N, details=details)


def duration(facts: EventFacts, config: DurationFilter) -> FilterOutcome:
    """Events too short or too long; empty ones in any case."""
    length_N_ms = facts.events.lengths / facts.setup.sample_rate_hz * 1000
    shortest_ms = config.min_ms
    if shortest_ms is None:
        shortest_ms = distance_to_delay_s(longest_path_mm(facts.setup)) * 1000
    is_long_N = np.zeros(len(length_N_ms), dtype=np.bool_)
    note = None
    if config.max_ms is not None:
        is_long_N = length_N_ms > config.max_ms
        note = f"also removes what is longer than {config.max_ms:g} ms"
    is_hit_N = (length_N_ms < shortest_ms) | is_long_N | (facts.events.lengths == 0)
    details = {
        i: f"{length_N_ms[i]:.3g} ms, too {'long' if is_long_N[i] else 'short'}"
        for i in np.flatnonzero(is_hit_N).tolist()
    }
    return FilterOutcome(
        "duration", is_hit_N, length_N_ms, "ms", shortest_ms, True, details, note=note
    )


def silence(facts: EventFacts, config: SilenceFilter) -> FilterOutcome:
    """Events whose median microphone is too quiet."""
    if config.relative_to == "median":
        level_N_db = facts.scan.spread(compare_with_median_db(facts.scan), np.nan)
        unit = "dB re the median event"
    else:
        level_N_db = facts.scan.spread(find_event_levels_db(facts.scan), np.nan)
        level_N_db -= _full_scale_db(facts.events)
        unit = "dB re full scale"
    is_hit_N = level_N_db < config.min_level_db
    details = {}
    for i in np.flatnonzero(is_hit_N).tolist():
        is_mute = np.isneginf(level_N_db[i])
        details[i] = "no sound at all" if is_mute else f"{level_N_db[i]:.0f} {unit}"
    return FilterOutcome("silence", is_hit_N, level_N_db, unit, config.min_level_db, True, details)


def _full_scale_db(events: EventSet) -> FloatArray:
    """Largest number that the file of each event can hold (N,), 1.0 for floats."""
    dtypes = [file.dtype for file in events.files]
    largest = [float(np.iinfo(dtype).max) if dtype.kind == "i" else 1.0 for dtype in dtypes]
    return np.asarray(20 * np.log10(largest)[events.file_numbers])


def dead_microphone(facts: EventFacts, config: DeadMicrophoneFilter) -> FilterOutcome:
    """Events in which single microphones are silent that work in other events."""
    is_dead_NC, always_C = find_dead(facts.scan, config.max_below_db)
    is_dead_NC = facts.scan.spread(is_dead_NC & ~always_C, False)
    relative_NC_db = facts.scan.spread(compare_with_event_db(facts.scan), np.nan)
    relative_NC_db[:, always_C] = np.nan
    note = None
    if always_C.any():
        note = (
            f"microphones {np.flatnonzero(always_C).tolist()} (counted from 0) are silent in most events; "
            "this is not counted against single events: repair them, or leave the channels out"
        )
    details = {
        i: f"microphones {np.flatnonzero(is_dead_NC[i]).tolist()} (counted from 0) are silent"
        for i in np.flatnonzero(is_dead_NC.any(axis=1)).tolist()
    }
    lowest_N = np.where(np.isnan(relative_NC_db), np.inf, relative_NC_db).min(axis=1)
    lowest_N[np.isposinf(lowest_N)] = np.nan
    return FilterOutcome(
        "dead_microphone",
        np.asarray(is_dead_NC.any(axis=1)),
        lowest_N,
        "dB re the median microphone",
        -config.max_below_db,
        True,
        details,
        note=note,
    )


def clipping(facts: EventFacts, config: ClippingFilter) -> FilterOutcome:
    """Events with flat tops."""
    if facts.events.is_impulse_response:
        return _skip("clipping", facts, IMPULSE_RESPONSES)
    share_NC = facts.scan.spread(find_clipped_share(facts.scan), 0.0)
    share_N = share_NC.max(axis=1)
    is_hit_N = share_N > config.max_share
    details = {
        i: f"{share_N[i]:.2%} of the samples of microphone {share_NC[i].argmax()} are cut off"
        for i in np.flatnonzero(is_hit_N).tolist()
    }
    return FilterOutcome(
        "clipping", is_hit_N, 100 * share_N, "% of samples", 100 * config.max_share, details=details
    )


def snr(facts: EventFacts, config: SnrFilter) -> FilterOutcome:
    """Events in which nothing stands out of the noise."""
    if facts.events.is_impulse_response:
        return _skip("snr", facts, IMPULSE_RESPONSES)
    snr_N_db = facts.scan.spread(facts.scan.snr_N_db, np.nan)
    is_hit_N = snr_N_db < config.min_db
    details = {
        i: f"the loudest part is {snr_N_db[i]:.1f} dB above the quiet part"
        for i in np.flatnonzero(is_hit_N).tolist()
    }
    note = None
    unmeasured = int((facts.scan.finite_N & np.isnan(facts.scan.snr_N_db)).sum())
    if unmeasured:
        note = f"not measured: {unmeasured:,} that are silent or have under 4 frames"
    return FilterOutcome("snr", is_hit_N, snr_N_db, "dB", config.min_db, True, details, note=note)


def outside_arena(facts: EventFacts, config: OutsideArenaFilter) -> FilterOutcome:
    """Events with a keypoint beyond a wall, the floor or the ceiling."""
    if facts.locations_NKD is None:
        return _skip("outside_arena", facts, NO_LOCATIONS)
    num_axes = facts.locations_NKD.shape[2]
    reach_mm = np.array(facts.setup.arena_mm[:num_axes]) / 2
    middle_mm = np.zeros(num_axes)
    middle_mm[2:] = reach_mm[2:]  # z is counted from the floor
    beyond_NK = (np.abs(facts.locations_NKD - middle_mm) - reach_mm).max(axis=2)
    beyond_N = np.where(np.isfinite(beyond_NK).all(axis=1), beyond_NK.max(axis=1), np.nan)
    is_hit_N = beyond_N > config.tolerance_mm
    details = {
        i: f"{facts.setup.keypoints[beyond_NK[i].argmax()]} is {beyond_N[i]:.0f} mm outside"
        for i in np.flatnonzero(is_hit_N).tolist()
    }
    return FilterOutcome(
        "outside_arena",
        is_hit_N,
        beyond_N,
        "mm beyond a wall",
        config.tolerance_mm,
        details=details,
    )


def keypoint_distance(facts: EventFacts, config: KeypointDistanceFilter) -> FilterOutcome:
    """Events with keypoints too far apart.

    Raises:
        ConfigError: If ``between`` names an unknown keypoint.
    """
    names = facts.setup.keypoints
    chosen = config.between or names
    if facts.locations_NKD is None:
        return _skip("keypoint_distance", facts, NO_LOCATIONS)
    unknown = [name for name in chosen if name not in names]
    if unknown or len(set(chosen)) < len(chosen):
        raise ConfigError(
            f"keypoint_distance/between must name keypoints of the data once each, but is "
            f"{list(chosen)}; valid: {', '.join(names)}"
        )
    if len(chosen) < 2:
        return _skip("keypoint_distance", facts, f"there is one keypoint, {chosen[0]}")
    pairs = tuple(itertools.combinations([names.index(name) for name in chosen], 2))
    limit_mm = config.max_mm or min(facts.setup.arena_mm[:2]) / 2
    lengths_NP = pair_lengths_mm(facts.locations_NKD, pairs)
    farthest_N = lengths_NP.max(axis=1)
    is_hit_N = farthest_N > limit_mm
    details = {}
    for i in np.flatnonzero(is_hit_N).tolist():
        first, second = pairs[int(lengths_NP[i].argmax())]
        details[i] = f"{names[first]} and {names[second]} are {farthest_N[i]:.0f} mm apart"
    return FilterOutcome("keypoint_distance", is_hit_N, farthest_N, "mm", limit_mm, details=details)


def skeleton(facts: EventFacts, config: SkeletonFilter) -> FilterOutcome:
    """Events with unusual distances between keypoints."""
    if facts.locations_NKD is None:
        return _skip("skeleton", facts, NO_LOCATIONS)
    names = facts.setup.keypoints
    if len(names) < 2:
        return _skip("skeleton", facts, f"there is one keypoint, {names[0]}")
    usable = int(np.isfinite(facts.locations_NKD).all(axis=(1, 2)).sum())
    fewest = fewest_events(len(names))
    if usable < fewest:
        reason = f"{usable} events with locations are too few to learn the usual skeleton of {len(names)} "
        return _skip("skeleton", facts, f"{reason}keypoints from; {fewest} would do")
    found = judge_skeletons(facts.locations_NKD, config)
    is_hit_N = found.distance_N > found.limit
    details = {}
    for i in np.flatnonzero(is_hit_N).tolist():
        worst = int(found.worst_pair_N[i])
        first, second = found.pairs[worst]
        low_mm, high_mm = found.usual_P2_mm[worst]
        details[i] = (
            f"{names[first]} and {names[second]} are {found.lengths_NP_mm[i, worst]:.0f} mm apart "
            f"(usually {low_mm:.0f} to {high_mm:.0f})"
        )
    return FilterOutcome(
        "skeleton", is_hit_N, found.distance_N, "robust SD", found.limit, details=details
    )


def duplicates(facts: EventFacts, is_hit_N: BoolArray) -> FilterOutcome:
    """Events with the same audio as another; the first that ``is_hit_N`` does not name is kept.

    Empty and silent events, and those that are not finite, are no copies of each other.
    """
    details = {}
    for places in find_duplicates(facts.scan):
        first, *copies = places[np.argsort(is_hit_N[places], kind="stable")].tolist()
        for i in copies:
            details[i] = f"same audio as {facts.events.describe(first)}"
    is_copy_N = np.zeros(len(is_hit_N), dtype=np.bool_)
    is_copy_N[list(details)] = True
    return FilterOutcome("duplicates", is_copy_N, details=dict(sorted(details.items())))


def _skip(name: str, facts: EventFacts, reason: str) -> FilterOutcome:
    return FilterOutcome(name, np.zeros(len(facts.events), dtype=np.bool_), skipped=reason)


FILTERS: dict[str, Callable[[EventFacts, Any], FilterOutcome]] = {
    "not_finite": not_finite,
    "duration": duration,
    "silence": silence,
    "dead_microphone": dead_microphone,
    "clipping": clipping,
    "snr": snr,
    "outside_arena": outside_arena,
    "keypoint_distance": keypoint_distance,
    "skeleton": skeleton,
}
"""All but ``duplicates``, which depends on what the others found."""
