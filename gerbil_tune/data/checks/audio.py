"""What a pass over the audio says of a data set: broken, silent and quiet events, and microphones.

Legend: N events looked at, C microphones.
"""

import numpy as np

from gerbil_tune.config.cleaning import DeadMicrophoneFilter, SilenceFilter
from gerbil_tune.data.checks.audio_scan import AudioScan
from gerbil_tune.data.checks.clipping import check_clipping
from gerbil_tune.data.checks.duplicates import check_duplicates
from gerbil_tune.data.checks.findings import (
    MOSTLY,
    NUM_EXAMPLES,
    BoolArray,
    Finding,
    FloatArray,
    Level,
    about_events,
)
from gerbil_tune.data.checks.flat_tops import FEWEST_STEPS
from gerbil_tune.data.checks.levels import compare_with_median_db, find_dead

_FEWEST_FOR_LEVELS = 8
"""Events from which on levels are compared: one call is loud in the microphone beside it."""
_LEVEL_RANGE_DB = 20.0
"""Microphones of one array differ by less over many events."""
_LARGEST, _SMALLEST = 1e18, 1e-18
"""Squares of numbers beyond these do not fit in float32."""
_NUM_VERIFIED = 16
_STATISTICS_TOLERANCE = 0.01


def check_audio(scan: AudioScan, parts: dict[str, BoolArray] | None = None) -> list[Finding]:
    """Everything that a pass over all audio tells.

    Args:
        scan: Of all events.
        parts: For each part of a split, which events of the set are in it.
    """
    findings = [
        *check_finite_and_silent(scan),
        *_check_range(scan),
        *_check_copies(scan),
        *check_duplicates(scan, parts),
        *_check_statistics(scan),
    ]
    if not scan.events.is_impulse_response:
        # An impulse response begins with its peak and fades to nothing: that is no fault.
        findings += [*check_clipping(scan), *_check_quiet(scan)]
        findings += [*_check_offsets(scan), *_check_levels(scan)]
    return findings


def check_finite_and_silent(scan: AudioScan) -> list[Finding]:
    """Find NaN and infinite audio, silent events and dead microphones."""
    findings = []
    if not scan.finite_N.all():
        text = f"audio of {{events}} holds NaN or infinite values{_looked_at(scan)}; remove these events: "
        bad_N = scan.spread(~scan.finite_N, False)
        findings.append(
            about_events("error", "nan-audio", text + "gerbil-tune data clean", scan.events, bad_N)
        )
    silent_N = scan.constant_NC.all(axis=1) & scan.finite_N
    if silent_N.any():
        level: Level = "error" if silent_N.sum() > MOSTLY * len(silent_N) else "warning"
        text = f"audio of {{events}} is silent: all microphones are constant{_looked_at(scan)}"
        bad_N = scan.spread(silent_N, False)
        findings.append(about_events(level, "silent-events", text, scan.events, bad_N))
    return [*findings, *_check_dead(scan)]


def _looked_at(scan: AudioScan) -> str:
    if len(scan.places_N) == np.count_nonzero(scan.events.lengths):
        return ""
    return f", of {len(scan.places_N)} events looked at"


def _check_dead(scan: AudioScan) -> list[Finding]:
    """Find microphones that are silent while others are not, as `data clean` does by default."""
    dead_NC, dead_C = find_dead(scan, DeadMicrophoneFilter().max_below_db)
    num_sounding = scan.sounding_N.sum()
    findings = []
    dead = np.flatnonzero(dead_C).tolist()
    if dead:
        share = dead_NC[:, dead].sum(axis=0).min() / num_sounding
        where = "all" if share == 1 else f"{share:.0%} of the"
        text = (
            f"microphones {dead} (counted from 0) are silent in {where} {num_sounding} events looked at; "
            "is each plugged in?"
        )
        examples = tuple(f"microphone {c}" for c in dead[:NUM_EXAMPLES])
        findings.append(Finding("warning", text, "dead-microphones", len(dead), examples))
    partly = np.flatnonzero(dead_NC.any(axis=0) & ~dead_C).tolist()
    if partly:
        bad_N = scan.spread(np.asarray(dead_NC[:, partly].any(axis=1)), False)
        text = (
            f"microphones {partly} (counted from 0) are silent in some events, but not in others"
            f"{_looked_at(scan)}: {{events}}; is a cable loose?"
        )
        findings.append(
            about_events("warning", "partly-dead-microphones", text, scan.events, bad_N)
        )
    return findings


def _check_range(scan: AudioScan) -> list[Finding]:
    """Find numbers whose squares overflow or vanish in float32; a wrong byte order makes such numbers."""
    rows_N = scan.sounding_N
    peaks_N = np.maximum(np.abs(scan.low_NC), np.abs(scan.high_NC)).max(axis=1)
    findings = []
    huge_N = rows_N & (peaks_N > _LARGEST)
    if huge_N.any():
        text = (
            f"audio of {{events}} reaches {peaks_N[huge_N].max():.1e}, but must stay below {_LARGEST:g}; "
            "is it of another type or byte order than the file says?"
        )
        bad_N = scan.spread(huge_N, False)
        findings.append(about_events("error", "huge-audio", text, scan.events, bad_N))
    tiny_N = rows_N & (peaks_N < _SMALLEST)
    if tiny_N.sum() > MOSTLY * rows_N.sum():
        text = (
            f"audio of {{events}} stays below {_SMALLEST:g}; is it of another type or byte order than the "
            "file says?"
        )
        bad_N = scan.spread(tiny_N, False)
        findings.append(about_events("error", "tiny-audio", text, scan.events, bad_N))
    return findings


def _check_copies(scan: AudioScan) -> list[Finding]:
    """Find microphones with the same audio in all events, or the same with the other sign."""
    findings = []
    for pairs_CC, opposite, what, code in (
        (scan.same_CC, False, "the same audio", "duplicate-microphones"),
        (scan.opposite_CC, True, "the same audio with opposite sign", "opposite-microphones"),
    ):
        pairs = [
            (i, j) for i, j in np.argwhere(pairs_CC).tolist() if _are_copies(scan, i, j, opposite)
        ]
        if pairs:
            names = [f"{i} and {j}" for i, j in pairs]
            text = (
                f"microphones {', '.join(names[:NUM_EXAMPLES])} (counted from 0) have {what} in all "
                f"{scan.sounding_N.sum()} events looked at; each must be a recording of its own"
            )
            examples = tuple(f"microphones {name}" for name in names[:NUM_EXAMPLES])
            findings.append(Finding("warning", text, code, len(pairs), examples))
    return findings


def _check_statistics(scan: AudioScan) -> list[Finding]:
    """Find files whose stored statistics, with which events are scaled, are not those of their audio."""
    findings = []
    for number, file in enumerate(scan.events.files):
        rows = np.flatnonzero((scan.events.file_numbers[scan.places_N] == number) & scan.finite_N)
        if file.mean_NC is None or file.sd_NC is None or not len(rows):
            continue
        places = scan.events.file_rows[scan.places_N[rows]]
        allowed_NC = _STATISTICS_TOLERANCE * (scan.sd_NC[rows] + np.abs(scan.mean_NC[rows]))
        wrong_N = (
            (np.abs(file.mean_NC[places] - scan.mean_NC[rows]) > allowed_NC)
            | (np.abs(file.sd_NC[places] - scan.sd_NC[rows]) > allowed_NC)
        ).any(axis=1)
        if wrong_N.any():
            bad_N = np.zeros(len(scan.events), dtype=np.bool_)
            bad_N[scan.places_N[rows[wrong_N]]] = True
            text = (
                f"datasets 'event_mean' and 'event_sd' of {file.path.name} are not those of its audio in "
                "{events}; was the audio changed after they were written? Delete both datasets"
            )
            findings.append(about_events("error", "stale-statistics", text, scan.events, bad_N))
    return findings


def _are_copies(scan: AudioScan, i: int, j: int, opposite: bool) -> bool:
    """Compare two channels sample by sample in some events spread over the set."""
    constant_N = scan.constant_NC[:, i] | scan.constant_NC[:, j]
    rows = np.flatnonzero(scan.sounding_N & ~constant_N)
    some = rows[np.unique(np.linspace(0, len(rows) - 1, _NUM_VERIFIED).astype(np.int64))]
    for place in scan.places_N[some].tolist():
        audio_TC = scan.events.read(place)
        wide = np.int64 if audio_TC.dtype.kind == "i" else np.float64
        first, second = audio_TC[:, i].astype(wide), audio_TC[:, j].astype(wide)
        if not np.array_equal(first, -second if opposite else second):
            return False
    return True


def _levels(scan: AudioScan) -> FloatArray:
    """Standard deviation of each channel of each event; NaN where it says nothing."""
    dead_NC, _ = find_dead(scan, DeadMicrophoneFilter().max_below_db)
    usable_NC = scan.sounding_N[:, None] & np.isfinite(scan.sd_NC) & (scan.sd_NC > 0) & ~dead_NC
    return np.where(usable_NC, scan.sd_NC, np.nan)


def _check_quiet(scan: AudioScan) -> list[Finding]:
    """Find events that are next to silent beside the others, or take up a few steps of the integers."""
    findings = []
    limit_db = SilenceFilter().min_level_db
    quiet_N = scan.sounding_N & (compare_with_median_db(scan) < limit_db)
    if quiet_N.any():
        text = (
            f"audio of {{events}} is nearly silent: more than {-limit_db:g} dB below the median event; "
            "remove them: gerbil-tune data clean"
        )
        bad_N = scan.spread(quiet_N, False)
        findings.append(about_events("warning", "quiet-events", text, scan.events, bad_N))
    swings_N = (scan.high_NC - scan.low_NC).max(axis=1)
    coarse_N = scan.sounding_N & ~quiet_N & (swings_N < FEWEST_STEPS)
    if scan.events.files[0].dtype.kind == "i" and coarse_N.any():
        text = (
            f"audio of {{events}} stays within {FEWEST_STEPS} steps of the integers, which is nearly silent; "
            "was the gain of the recorder too low?"
        )
        bad_N = scan.spread(coarse_N, False)
        findings.append(about_events("warning", "few-steps", text, scan.events, bad_N))
    return findings


def _check_offsets(scan: AudioScan) -> list[Finding]:
    """Find microphones whose mean is farther from 0 than the sound swings."""
    levels_NC = _levels(scan)
    ratios_NC = np.abs(scan.mean_NC) / levels_NC
    found = {
        c: float(np.median(ratios_C[np.isfinite(ratios_C)]))
        for c, ratios_C in enumerate(ratios_NC.T)
        if np.isfinite(ratios_C).any()
    }
    far = [c for c, ratio in found.items() if ratio > 1]
    if not far:
        return []
    most = max(found.values())
    text = (
        f"microphones {far} (counted from 0) have an offset: their mean is up to {most:.1f} standard "
        "deviations from 0; scale with channel_zscore, or subtract it"
    )
    examples = tuple(f"microphone {c}" for c in far[:NUM_EXAMPLES])
    return [Finding("warning", text, "offset", len(far), examples)]


def _check_levels(scan: AudioScan) -> list[Finding]:
    """Find microphones that are far louder or quieter than the others over all events."""
    levels_NC = _levels(scan)
    if len(levels_NC) < _FEWEST_FOR_LEVELS or levels_NC.shape[1] < 2:
        return []
    known_C = np.isfinite(levels_NC).sum(axis=0) >= _FEWEST_FOR_LEVELS
    if known_C.sum() < 2:
        return []
    medians = np.nanmedian(levels_NC[:, known_C], axis=0)
    differences_db = 20 * np.log10(medians / np.median(medians))
    channels = np.flatnonzero(known_C)[np.abs(differences_db) > _LEVEL_RANGE_DB].tolist()
    if not channels:
        return []
    said = [
        f"{c} by {differences_db[np.flatnonzero(known_C) == c][0]:+.0f} dB"
        for c in channels[:NUM_EXAMPLES]
    ]
    text = (
        f"microphones differ in level from the median one: {', '.join(said)} (counted from 0); are their "
        "gains alike, and is each plugged in?"
    )
    examples = tuple(f"microphone {c}" for c in channels[:NUM_EXAMPLES])
    return [Finding("warning", text, "microphone-levels", len(channels), examples)]
