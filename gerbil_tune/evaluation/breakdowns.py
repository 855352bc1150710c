"""How good methods are on each kind of event: by session, call length, signal-to-noise ratio, arena zone.

Letters: N events, G groups (bins) of a breakdown, R draws, K keypoints, D axes.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gerbil_tune.evaluation.bootstrap import (
    CONFIDENCE,
    COVERED,
    ERROR,
    FEWEST_GROUPS,
    draw_weights,
    drawing_units,
)
from gerbil_tune.models.calibrated import ZONES_PER_AXIS

Floats = NDArray[np.float64]

NUM_DRAWS = 200
_TAILS = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)
_FEWEST_PER_QUANTILE_BIN = 20
_MOST_QUANTILE_BINS = 5
_STEPS_DB = (1, 2, 3, 5, 10, 20)
_MOST_STEPS = 8
ZONE_NAMES = (
    ("bottom left", "bottom", "bottom right"),
    ("left", "centre", "right"),
    ("top left", "top", "top right"),
)
"""Rows from low y, columns from low x, as a map shows them."""


@dataclass(frozen=True, eq=False, slots=True)
class Binning:
    """Events by one of their properties.

    Attributes:
        name: A word for files: session, call_length, snr, zone.
        title: For a heading.
        labels: Of the G bins, in order.
        bin_N: Which of them each event is in, (N,); -1: in none.
    """

    name: str
    title: str
    labels: tuple[str, ...]
    bin_N: NDArray[np.int64]


@dataclass(frozen=True, eq=False, slots=True)
class MethodBreakdown:
    """One method in each bin; NaN where there is nothing to say.

    Attributes:
        median_mm_G: Median error.
        low_mm_G: Lower end of its 95 % interval.
        high_mm_G: Upper end.
        p90_mm_G: 90th percentile of the error.
        coverage_95_G: Share of truths in the 95 % regions; None of a method without an uncertainty.
    """

    median_mm_G: Floats
    low_mm_G: Floats
    high_mm_G: Floats
    p90_mm_G: Floats
    coverage_95_G: Floats | None


@dataclass(frozen=True, eq=False, slots=True)
class Breakdown:
    """Methods by a property of the events; bins without an event are left out.

    Attributes:
        name: See ``Binning``.
        title: Likewise.
        labels: Of the bins that have events.
        count_G: Events in each.
        methods: By name.
    """

    name: str
    title: str
    labels: tuple[str, ...]
    count_G: NDArray[np.int64]
    methods: dict[str, MethodBreakdown]


def by_number(name: str, title: str, word: str, numbers_N: NDArray[Any]) -> Binning:
    """Bins of equal numbers, such as those of sessions, labelled by a word and the number."""
    numbers, bin_N = np.unique(numbers_N, return_inverse=True)
    labels = tuple(f"{word} {number}" for number in numbers.tolist())
    return Binning(name, title, labels, bin_N.astype(np.int64))


def by_length(length_ms_N: NDArray[Any]) -> Binning:
    """Up to five bins of about equally many events, by their length in ms."""
    wanted = len(length_ms_N) // _FEWEST_PER_QUANTILE_BIN
    num_bins = max(1, min(_MOST_QUANTILE_BINS, wanted))
    inner = np.unique(np.quantile(length_ms_N, np.arange(1, num_bins) / num_bins))
    inner = inner[inner > np.min(length_ms_N)]
    bin_N = np.searchsorted(inner, length_ms_N, side="right")
    edges = [float(np.min(length_ms_N)), *inner.tolist(), float(np.max(length_ms_N))]
    digits = 0 if edges[-1] - edges[0] >= 20 * len(edges) else 1
    labels = tuple(
        f"{low:.{digits}f} to {high:.{digits}f} ms" for low, high in itertools.pairwise(edges)
    )
    return Binning("call_length", "Call length", labels, bin_N)


def by_snr(snr_db_N: NDArray[Any]) -> Binning:
    """Bins of a round width in dB; what has no or an infinite ratio has a bin of its own."""
    is_finite_N = np.isfinite(snr_db_N)
    labels: list[str] = []
    bin_N = np.full(len(snr_db_N), -1)
    if is_finite_N.any():
        edges = _round_edges(snr_db_N[is_finite_N])
        bin_N[is_finite_N] = np.searchsorted(edges, snr_db_N[is_finite_N], side="right")
        labels = _edge_labels(edges)
    for label, mask_N in (
        ("silent between", np.isposinf(snr_db_N)),
        ("not known", ~is_finite_N & ~np.isposinf(snr_db_N)),
    ):
        bin_N[mask_N] = len(labels)
        labels.append(label)
    return Binning("snr", "Signal-to-noise ratio", tuple(labels), bin_N)


def _round_edges(values: NDArray[Any]) -> Floats:
    """Multiples of a round step between all but the lowest and the highest 2 % of values."""
    low, high = np.quantile(values, [0.02, 0.98])
    for step in _STEPS_DB:
        edges: Floats = step * np.arange(math.ceil(low / step), math.floor(high / step) + 1.0)
        if len(edges) <= _MOST_STEPS:
            break
    return edges


def _edge_labels(edges: Floats) -> list[str]:
    if not len(edges):
        return ["all"]
    between = [f"{a:g} to {b:g} dB" for a, b in itertools.pairwise(edges)]
    return [f"below {edges[0]:g} dB", *between, f"from {edges[-1]:g} dB"]


def by_zone(locations_mm_NKD: NDArray[Any], arena_mm: Sequence[float]) -> Binning:
    """The ninths of the arena, by where the animal truly was: the mean of its keypoints."""
    place_N2 = np.asarray(locations_mm_NKD, np.float64).mean(axis=1)[:, :2]
    cell_N2 = np.floor((place_N2 / np.asarray(arena_mm[:2]) + 0.5) * ZONES_PER_AXIS)
    column_N, row_N = cell_N2.clip(0, ZONES_PER_AXIS - 1).astype(np.int64).T
    labels = tuple(name for row in ZONE_NAMES for name in row)
    return Binning("zone", "Place in the arena", labels, row_N * ZONES_PER_AXIS + column_N)


def break_down(
    binning: Binning,
    figures: Mapping[str, Mapping[str, NDArray[Any]]],
    groups_N: NDArray[Any] | None = None,
    *,
    num_draws: int = NUM_DRAWS,
    seed: int = 0,
) -> Breakdown:
    """Score methods in each bin.

    The interval of a median is of order statistics, in closed form (Conover 1999, section 3.2), or, in a bin
    with events of at least ``FEWEST_GROUPS`` groups, of draws of whole groups. A bin with fewer than six
    events has none.

    Args:
        binning: Of the N events.
        figures: By method ``error_mm`` and perhaps ``covered_95`` of each event, (N,); see ``event_figures``.
        groups_N: Group of each event, or None.
        num_draws: R.
        seed: The same seed and data give the same numbers.
    """
    inside = np.flatnonzero(binning.bin_N >= 0)
    kept, bin_M = np.unique(binning.bin_N[inside], return_inverse=True)
    bins = _Bins(inside, bin_M.astype(np.int64), len(kept))
    ordered = {name: bins.ordered(of_method[ERROR]) for name, of_method in figures.items()}
    ends = {name: bins.order_statistics(errors) for name, errors in ordered.items()}
    units_N, num_groups = drawing_units(groups_N, len(binning.bin_N))
    if num_groups is not None:
        is_drawn_G = bins.count_groups(units_N, num_groups) >= FEWEST_GROUPS
        if is_drawn_G.any():
            drawn = _drawn_ends(bins, ordered, units_N, num_draws, seed)
            for name in figures:
                ends[name] = np.where(is_drawn_G, drawn[name], ends[name])
    methods = {
        name: MethodBreakdown(
            bins.quantile(ordered[name], 0.5),
            ends[name][0],
            ends[name][1],
            bins.quantile(ordered[name], 0.9),
            bins.mean(of_method[COVERED]) if COVERED in of_method else None,
        )
        for name, of_method in figures.items()
    }
    labels = tuple(binning.labels[number] for number in kept.tolist())
    return Breakdown(binning.name, binning.title, labels, bins.count_G, methods)


@dataclass(frozen=True, eq=False, slots=True)
class _Ordered:
    """Errors of M events by bin, rising within each, and which event each is of, (M,)."""

    error_mm_M: Floats
    order_M: NDArray[np.intp]


class _Bins:
    """M events that are in bins, and what is asked of all bins at once."""

    def __init__(self, events_M: NDArray[np.intp], bin_M: NDArray[np.int64], num_bins: int) -> None:
        self.events_M = events_M
        self.bin_M = bin_M
        self.count_G = np.bincount(bin_M, minlength=num_bins)
        self.first_G = np.cumsum(self.count_G) - self.count_G

    def ordered(self, error_mm_N: NDArray[Any]) -> _Ordered:
        error_mm_M = np.asarray(error_mm_N, np.float64)[self.events_M]
        order_M = np.lexsort((error_mm_M, self.bin_M))
        return _Ordered(error_mm_M[order_M], order_M)

    def count_groups(self, units_N: NDArray[np.int64], num_groups: int) -> NDArray[np.int64]:
        """Different groups in each bin, (G,)."""
        pairs = np.unique(self.bin_M * num_groups + units_N[self.events_M])
        return np.bincount(pairs // num_groups, minlength=len(self.count_G))

    def mean(self, values_N: NDArray[Any]) -> Floats:
        values_M = np.asarray(values_N, np.float64)[self.events_M]
        return np.asarray(np.bincount(self.bin_M, values_M, len(self.count_G)) / self.count_G)

    def quantile(self, errors: _Ordered, quantile: float) -> Floats:
        """Of each bin, linear between neighbours as ``numpy.quantile``."""
        place_G = quantile * (self.count_G - 1)
        below_G = np.floor(place_G).astype(np.int64)
        above_G = np.minimum(below_G + 1, self.count_G - 1)
        low_G = errors.error_mm_M[self.first_G + below_G]
        high_G = errors.error_mm_M[self.first_G + above_G]
        return np.asarray(low_G + (place_G - below_G) * (high_G - low_G))

    def order_statistics(self, errors: _Ordered) -> Floats:
        """Ends of the interval of each bin's median, (2, G); NaN of too few events."""
        from scipy.stats import binom

        rank_G = binom.ppf(_TAILS[0], self.count_G, 0.5).astype(np.int64)
        low_G = errors.error_mm_M[self.first_G + np.maximum(rank_G - 1, 0)]
        high_G = errors.error_mm_M[
            self.first_G + np.minimum(self.count_G - rank_G, self.count_G - 1)
        ]
        return np.where(rank_G > 0, [low_G, high_G], np.nan)

    def drawn_median(self, errors: _Ordered, weights_M: NDArray[np.int64]) -> Floats:
        """Median of each bin in a draw, (G,); NaN of a bin that the draw leaves empty."""
        ranks_M = np.cumsum(weights_M[errors.order_M])
        last_G = ranks_M[self.first_G + self.count_G - 1]
        before_G = np.concatenate([[0], last_G[:-1]])
        is_drawn_G = last_G > before_G
        place_G = (last_G - before_G - 1)[is_drawn_G] / 2
        below_G, above_G = (
            before_G[is_drawn_G] + part for part in (np.floor(place_G), np.ceil(place_G))
        )
        low_G = errors.error_mm_M[np.searchsorted(ranks_M, below_G, side="right")]
        high_G = errors.error_mm_M[np.searchsorted(ranks_M, above_G, side="right")]
        median_G = np.full(len(self.count_G), np.nan)
        median_G[is_drawn_G] = (low_G + high_G) / 2
        return median_G


def _drawn_ends(
    bins: _Bins,
    ordered: Mapping[str, _Ordered],
    units_N: NDArray[np.int64],
    num_draws: int,
    seed: int,
) -> dict[str, Floats]:
    """Ends of percentile intervals, (2, G), by method; all methods are scored on the same draws."""
    generator = np.random.default_rng(seed)
    medians: dict[str, list[Floats]] = {name: [] for name in ordered}
    for _ in range(num_draws):
        weights_M = draw_weights(units_N, generator)[bins.events_M]
        for name, errors in ordered.items():
            medians[name].append(bins.drawn_median(errors, weights_M))
    ends = {}
    for name, drawn in medians.items():
        median_RG = np.stack(drawn)
        ends_2G = np.full((2, len(bins.count_G)), np.nan)
        is_known_G = np.isfinite(median_RG).any(axis=0)
        ends_2G[:, is_known_G] = np.nanquantile(median_RG[:, is_known_G], _TAILS, axis=0)
        ends[name] = ends_2G
    return ends
