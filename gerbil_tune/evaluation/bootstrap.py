"""Drawing events with replacement: how sure a figure of merit is.

The figures of many draws scatter as those of other events would (Efron & Tibshirani 1993, An Introduction to
the Bootstrap, chapters 8 and 13: percentile intervals). Events of one group (calls of one session, copies of
one sound) are not independent; where groups are known, whole groups are drawn.

Letters: N events, R draws, K keypoints, D axes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gerbil_tune.evaluation.accuracy import errors_mm
from gerbil_tune.evaluation.results import MethodResult

Floats = NDArray[np.float64]

NUM_DRAWS = 2000
_FEWEST_DRAWS = 400
_MOST_DRAWN_EVENTS = 4 * 10**7
"""Draws times events beyond which draws are fewer."""
CONFIDENCE = 0.95
COVERAGE = 0.95
"""What regions whose coverage is looked at state."""
FEWEST_GROUPS = 6
"""Below it, not even a difference of one sign in all groups would be beyond chance: 2 / 2**5 > 5 %."""
ERROR, NLL, COVERED = "error_mm", "nll", "covered_95"
"""What each event adds: see ``event_figures``."""
_QUANTILES = {"error_median_mm": 0.5, "error_p90_mm": 0.9}


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure of merit on the events as they are, and the ends of its interval."""

    value: float
    low: float
    high: float


def event_figures(method: MethodResult, locations_mm_NKD: NDArray[Any]) -> dict[str, Floats]:
    """What each event adds to the figures of merit, (N,): means over its keypoints.

    error_mm; with an uncertainty also nll (nats) and covered_95 (1: the 95 % region holds the truth).
    """
    errors_N = errors_mm(method.predictions_mm_NKD, locations_mm_NKD)
    figures: dict[str, Floats] = {ERROR: errors_N}
    if method.nll_NK is not None:
        figures[NLL] = np.asarray(method.nll_NK, np.float64).mean(axis=1)
    if method.level_NK is not None:
        figures[COVERED] = np.asarray(method.level_NK <= COVERAGE, np.float64).mean(axis=1)
    return figures


@dataclass(frozen=True, eq=False, slots=True)
class ScoreDraws:
    """Figures of merit of several methods on the events as they are, and on the same draws of them.

    Attributes:
        exact: By method and figure of merit.
        drawn_R: Likewise, of each draw, (R,).
        num_events: N.
        num_draws: R.
        num_groups: Groups that were drawn; None where single events were.
    """

    exact: dict[str, dict[str, float]]
    drawn_R: dict[str, dict[str, Floats]]
    num_events: int
    num_draws: int
    num_groups: int | None

    def intervals(self, method: str, confidence: float = CONFIDENCE) -> dict[str, Interval]:
        """How sure the figures of one method are."""
        return {
            name: Interval(value, *interval_ends(self.drawn_R[method][name], confidence))
            for name, value in self.exact[method].items()
        }


def draw_scores(
    figures: Mapping[str, Mapping[str, NDArray[Any]]],
    groups_N: NDArray[Any] | None = None,
    *,
    num_draws: int | None = None,
    seed: int = 0,
) -> ScoreDraws:
    """Score methods on many draws of the same events.

    Args:
        figures: By method: ``error_mm`` and perhaps ``nll`` and ``covered_95`` of each event, (N,), at least
            one event.
        groups_N: Group of each event; see ``drawing_units``.
        num_draws: R; default ``usual_draws``.
        seed: The same seed and data give the same numbers.

    Returns:
        error_median_mm, error_p90_mm, error_mean_mm, and where there is an uncertainty nll and coverage_95.
    """
    columns = {
        method: [FigureColumn(name, values_N) for name, values_N in of_method.items()]
        for method, of_method in figures.items()
    }
    num_events = len(next(iter(figures.values()))[ERROR])
    units_N, num_groups = drawing_units(groups_N, num_events)
    generator = np.random.default_rng(seed)
    exact = _scored(columns, np.ones(num_events, np.int64))
    draws = [
        _scored(columns, draw_weights(units_N, generator))
        for _ in range(num_draws or usual_draws(num_events))
    ]
    drawn_R = {
        method: {name: np.array([draw[method][name] for draw in draws]) for name in scores}
        for method, scores in exact.items()
    }
    return ScoreDraws(exact, drawn_R, num_events, len(draws), num_groups)


def _scored(
    columns: "Mapping[str, list[FigureColumn]]", weights_N: NDArray[np.int64]
) -> dict[str, dict[str, float]]:
    return {
        method: {name: x for column in own for name, x in column.scores(weights_N).items()}
        for method, own in columns.items()
    }


def usual_draws(num_events: int) -> int:
    """Draws that are enough: of very many events fewer, for their intervals are narrow anyway."""
    return max(_FEWEST_DRAWS, min(NUM_DRAWS, _MOST_DRAWN_EVENTS // max(num_events, 1)))


def interval_ends(drawn_R: Floats, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Ends of the percentile interval of one figure."""
    low, high = np.quantile(drawn_R, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def bootstrap_intervals(
    figures: Mapping[str, NDArray[Any]],
    groups_N: NDArray[Any] | None = None,
    *,
    num_draws: int | None = None,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> dict[str, Interval]:
    """How sure the figures of one method are; see ``draw_scores``.

    Args:
        figures: ``error_mm`` and perhaps ``nll`` and ``covered_95`` of each event, (N,), at least one event.
        groups_N: Group of each event; see ``drawing_units``.
        num_draws: R.
        confidence: Mass of the intervals.
        seed: The same seed and data give the same numbers.
    """
    draws = draw_scores({"": figures}, groups_N, num_draws=num_draws, seed=seed)
    return draws.intervals("", confidence)


class FigureColumn:
    """One figure of one model for all events, ready to be scored on many draws."""

    def __init__(self, name: str, values_N: NDArray[Any]) -> None:
        self._values_N = np.asarray(values_N, np.float64)
        self._order_N = np.argsort(self._values_N, kind="stable")
        self._sorted_N = self._values_N[self._order_N]
        self._name = name

    def scores(self, weights_N: NDArray[np.int64]) -> dict[str, float]:
        """Figures of merit of a draw in which each event is as often as its weight."""
        if self._name != ERROR:
            mean = float((weights_N * self._values_N).sum() / weights_N.sum())
            return {"coverage_95" if self._name == COVERED else self._name: mean}
        weights_N = weights_N[self._order_N]
        ranks_N = np.cumsum(weights_N)
        mean = float((weights_N * self._sorted_N).sum() / ranks_N[-1])
        scores = {
            name: self._value_at((ranks_N[-1] - 1) * quantile, ranks_N)
            for name, quantile in _QUANTILES.items()
        }
        return {**scores, "error_mean_mm": mean}

    def _value_at(self, place: float, ranks_N: NDArray[np.int64]) -> float:
        """Value at a fractional place of the draw, linear between neighbours as ``numpy.quantile``."""
        below = np.floor(place)
        low, high = self._sorted_N[np.searchsorted(ranks_N, [below, np.ceil(place)], side="right")]
        return float(low + (place - below) * (high - low))


def drawing_units(
    groups_N: NDArray[Any] | None, num_events: int
) -> tuple[NDArray[np.int64], int | None]:
    """What is drawn as a whole, counted from 0, of each event; and the number of groups, if they are it.

    With fewer than ``FEWEST_GROUPS`` groups single events are drawn, as without any.
    """
    if groups_N is not None:
        names, numbers_N = np.unique(groups_N, return_inverse=True)
        if len(names) >= FEWEST_GROUPS:
            return numbers_N.astype(np.int64), len(names)
    return np.arange(num_events), None


def draw_weights(units_N: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.int64]:
    """How often each event is in one draw of as many units as there are, (N,)."""
    num_units = int(units_N.max()) + 1
    drawn = generator.integers(0, num_units, num_units)
    weights_N: NDArray[np.int64] = np.bincount(drawn, minlength=num_units)[units_N]
    return weights_N
