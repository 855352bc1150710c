"""Events cut off at the largest value that a recorder can write.

Legend: N events, C microphones.
"""

from collections import Counter

import numpy as np

from gerbil_tune.data.checks.audio_scan import AudioScan
from gerbil_tune.data.checks.block_summary import FLAT_SAMPLES, FlatTop
from gerbil_tune.data.checks.findings import NUM_EXAMPLES, Finding, FloatArray, about_events

_FULL_SCALES = (
    1.0,
    2**15 - 1,
    2**15,
    2**23 - 1,
    2**23,
    2**31 - 1,
    2**31,
    (2**15 - 1) / 2**15,
    (2**23 - 1) / 2**23,
)
"""Largest values of 16, 24 and 32 bits, also where they are kept as floats or scaled to 1."""


def find_clipped(scan: AudioScan) -> list[FlatTop]:
    """Flat tops that are clipped, and not the crest of a slow wave or silence around a call.

    A flat top is 3 or more samples in a row at the largest or smallest value of a channel of an event. It is
    clipped if that value

    - is the limit of the file's integers; or
    - is the extreme of this channel in the whole file, is left by a steep step (a slow wave that was rounded
      to steps leaves its crest by small ones), and either is a full scale of 16, 24 or 32 bits, or is reached
      like that by two events or twice in one.

    Zero is never taken for an extreme: it is what pauses are filled with.
    """
    events = scan.events
    files = {top.event: int(events.file_numbers[top.event]) for top in scan.flat_tops}
    extremes = {file: _extremes(scan, file) for file in set(files.values())}
    kept: list[FlatTop] = []
    likely: list[FlatTop] = []
    for top in scan.flat_tops:
        low_C, high_C = extremes[files[top.event]]
        dtype = events.files[files[top.event]].dtype
        at_extreme = top.value == (high_C if top.sign == 1 else low_C)[top.channel]
        if dtype.kind == "i" and top.value in (np.iinfo(dtype).min, np.iinfo(dtype).max):
            kept.append(top)
        elif top.value != 0 and at_extreme and top.is_steep:
            (kept if abs(top.value) in _FULL_SCALES else likely).append(top)
    shared = Counter(
        _rail(files[top.event], top) for top in likely for _ in range(min(top.runs, 2))
    )
    return kept + [top for top in likely if shared[_rail(files[top.event], top)] > 1]


def _rail(file: int, top: FlatTop) -> tuple[int, int, int]:
    return file, top.channel, top.sign


def _extremes(scan: AudioScan, file: int) -> tuple[FloatArray, FloatArray]:
    """Smallest and largest value of each channel of a file, (C,) each."""
    rows_N = (scan.events.file_numbers[scan.places_N] == file) & scan.finite_N
    if not rows_N.any():
        nothing = np.full(scan.events.num_microphones, np.nan)
        return nothing, nothing
    return scan.low_NC[rows_N].min(axis=0), scan.high_NC[rows_N].max(axis=0)


def check_clipping(scan: AudioScan) -> list[Finding]:
    """Find clipped events."""
    tops = find_clipped(scan)
    if not tops:
        return []
    bad_N = np.zeros(len(scan.events), dtype=np.bool_)
    bad_N[[top.event for top in tops]] = True
    microphones = sorted({top.channel for top in tops})
    values = sorted({top.value for top in tops})[-NUM_EXAMPLES:]
    text = (
        f"{{events}} are clipped: {FLAT_SAMPLES} or more samples in a row at the largest value, "
        f"{', '.join(f'{value:g}' for value in values)}, of microphones {microphones} (counted from 0); "
        "lower the gain of the recorder, or remove them: gerbil-tune data clean"
    )
    return [about_events("warning", "clipped-events", text, scan.events, bad_N)]
