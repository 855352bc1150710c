"""Events cut off at the largest value that a recorder can write.

Legend: N events, C microphones.
"""

from collections import Counter
from typing import Any

import numpy as np

from gerbil_tune.config.cleaning import ClippingFilter
from gerbil_tune.data.checks.audio_scan import AudioScan
from gerbil_tune.data.checks.findings import NUM_EXAMPLES, Finding, FloatArray, about_events
from gerbil_tune.data.checks.flat_tops import FlatTop

_Rail = tuple[int, int, int, float]
"""File, channel, sign and value of an extreme."""
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

    A flat top (see ``flat_tops``) is clipped if its value

    - is the limit of the file's integers; or
    - is one that the event comes back to, far more often than to any other large value: then the event alone
      is evidence, whatever the gain that it was stored with; or
    - is the extreme of this channel in the whole file, stays for 3 samples or more between steep steps, and
      either is a full scale of 16, 24 or 32 bits, or is reached like that by two events or twice in one.

    Zero is never taken for an extreme: it is what pauses are filled with. One flat top alone, or some below
    larger values of the file, are no evidence: samples that a recorder repeats look the same.
    """
    events = scan.events
    files = [int(events.file_numbers[top.event]) for top in scan.flat_tops]
    extremes = {file: _extremes(scan, file) for file in set(files)}
    visits: Counter[_Rail] = Counter()
    for top, file in zip(scan.flat_tops, files, strict=True):
        low_C, high_C = extremes[file]
        if top.value == (high_C if top.sign == 1 else low_C)[top.channel]:
            visits[_rail(file, top)] += 2 if top.comes_back else top.runs * top.is_steep
    return [
        top
        for top, file in zip(scan.flat_tops, files, strict=True)
        if _is_clipped(top, events.files[file].dtype, visits[_rail(file, top)])
    ]


def _is_clipped(top: FlatTop, dtype: np.dtype[Any], visits: int) -> bool:
    """Judge a flat top that was seen so many times in the file; 0: its value is not the file's extreme."""
    if dtype.kind == "i" and top.value in (np.iinfo(dtype).min, np.iinfo(dtype).max):
        return True
    fewest = 1 if abs(top.value) in _FULL_SCALES else 2
    return top.value != 0 and (top.comes_back or (top.is_steep and visits >= fewest))


def _rail(file: int, top: FlatTop) -> _Rail:
    return file, top.channel, top.sign, top.value


def _extremes(scan: AudioScan, file: int) -> tuple[FloatArray, FloatArray]:
    """Smallest and largest value of each channel of a file, (C,) each."""
    rows_N = (scan.events.file_numbers[scan.places_N] == file) & scan.finite_N
    if not rows_N.any():
        nothing = np.full(scan.events.num_microphones, np.nan)
        return nothing, nothing
    return scan.low_NC[rows_N].min(axis=0), scan.high_NC[rows_N].max(axis=0)


def find_clipped_share(scan: AudioScan) -> FloatArray:
    """Share of the samples of each channel that are clipped, float64 (N, C)."""
    return _sum_up(scan, find_clipped(scan))


def _sum_up(scan: AudioScan, tops: list[FlatTop]) -> FloatArray:
    share_NC = np.zeros((len(scan.places_N), scan.events.num_microphones))
    for top in tops:
        share_NC[_row(scan, top), top.channel] += top.samples / scan.events.lengths[top.event]
    return share_NC


def _row(scan: AudioScan, top: FlatTop) -> int:
    return int(np.searchsorted(scan.places_N, top.event))


def check_clipping(scan: AudioScan) -> list[Finding]:
    """Find events of which more is clipped than `data clean` lets pass by default; less does no harm."""
    max_share = ClippingFilter().max_share
    tops = find_clipped(scan)
    bad_NC = _sum_up(scan, tops) > max_share
    if not bad_NC.any():
        return []
    bad_N = np.asarray(bad_NC.any(axis=1))
    microphones = np.flatnonzero(bad_NC.any(axis=0)).tolist()
    values = sorted({top.value for top in tops if bad_NC[_row(scan, top), top.channel]})
    told = ", ".join(f"{value:g}" for value in values[-NUM_EXAMPLES:])
    text = (
        f"{{events}} are clipped: more than {max_share:.1%} of the samples are cut off at the largest value, "
        f"{told}, of microphones {microphones} (counted from 0); "
        "lower the gain of the recorder, or remove them: gerbil-tune data clean"
    )
    where_N = scan.spread(bad_N, False)
    return [about_events("warning", "clipped-events", text, scan.events, where_N)]
