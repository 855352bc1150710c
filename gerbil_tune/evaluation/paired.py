"""Whether one model is better than another on the same events: the paired bootstrap.

The events are drawn with replacement many times. Both models are scored on each draw, so what makes events
easy or hard for both cancels in the difference (Efron & Tibshirani 1993, An Introduction to the Bootstrap,
chapters 8 and 13: percentile intervals). Events of one group (calls of one session, copies of one sound) are
not independent; where groups are known, whole groups are drawn.

Letters: N events, R draws, K keypoints, D axes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gerbil_tune.errors import DatasetError
from gerbil_tune.evaluation.accuracy import errors_mm
from gerbil_tune.evaluation.results import EvaluationResult, MethodResult

Floats = NDArray[np.float64]

NUM_DRAWS = 2000
CONFIDENCE = 0.95
FEWEST_GROUPS = 6
"""Below it, not even a difference of one sign in all groups would be beyond chance: 2 / 2**5 > 5 %."""
_QUANTILES = {"error_median_mm": 0.5, "error_p90_mm": 0.9}
_TITLES = {
    "error_median_mm": ("median error", "{:+.2f}", " mm"),
    "error_p90_mm": ("90th percentile", "{:+.2f}", " mm"),
    "error_mean_mm": ("mean error", "{:+.2f}", " mm"),
    "nll": ("NLL", "{:+.3f}", ""),
}


@dataclass(frozen=True, slots=True)
class Difference:
    """One figure of merit of model a minus that of model b; lower is better.

    Attributes:
        value: On the events as they are.
        low: Lower end of the interval.
        high: Upper end of the interval.
        probability_better: Share of draws in which a is better; ties count half.
    """

    value: float
    low: float
    high: float
    probability_better: float

    @property
    def is_certain(self) -> bool:
        """Whether the interval excludes 0."""
        return self.high < 0 or self.low > 0


@dataclass(frozen=True, slots=True)
class PairedComparison:
    """Model a against model b.

    Attributes:
        differences: By figure of merit: error_median_mm, error_p90_mm, error_mean_mm, and nll (nats, density
            per mm^D) where both state an uncertainty.
        num_events: N.
        num_groups: Groups that were drawn; None where single events were.
        confidence: Mass of the intervals.
    """

    differences: dict[str, Difference]
    num_events: int
    num_groups: int | None
    confidence: float = CONFIDENCE

    def sentence(self, a: str, b: str) -> str:
        """Say it all in one sentence, with the names of the two models."""
        drawn = f", drawn by {self.num_groups} groups" if self.num_groups is not None else ""
        parts = []
        for name, found in self.differences.items():
            title, form, unit = _TITLES[name]
            value, low, high = (form.format(x) for x in (found.value, found.low, found.high))
            parts.append(
                f"{title} {value}{unit} ({low} to {high}, P {found.probability_better:.2f})"
            )
        return (
            f"{a} minus {b} on {self.num_events:,} events{drawn} (with {self.confidence:.0%} intervals and "
            f"the probability P that {a} is better): {', '.join(parts)}"
        )


def compare_methods(
    result: EvaluationResult, a: str, b: str, groups_N: NDArray[Any] | None = None
) -> PairedComparison:
    """Compare two methods of an evaluation by name; see ``paired_bootstrap``."""
    methods = {method.name: method for method in result.methods}
    truth = result.locations_mm_NKD
    figures_a, figures_b = (event_figures(methods[name], truth) for name in (a, b))
    return paired_bootstrap(figures_a, figures_b, groups_N)


def against_others(
    result: EvaluationResult, name: str, others: Iterable[str], groups_N: NDArray[Any] | None = None
) -> list[str]:
    """Compare one method of an evaluation with others, each in a sentence."""
    return [
        compare_methods(result, name, other, groups_N).sentence(name, other)
        for other in others
        if other != name
    ]


def event_figures(method: MethodResult, locations_mm_NKD: NDArray[Any]) -> dict[str, Floats]:
    """Error in mm and, with an uncertainty, NLL in nats of each event, (N,), means over its keypoints."""
    errors_N = errors_mm(method.predictions_mm_NKD, locations_mm_NKD)
    figures: dict[str, Floats] = {"error_mm": errors_N}
    if method.nll_NK is not None:
        figures["nll"] = np.asarray(method.nll_NK, np.float64).mean(axis=1)
    return figures


def paired_bootstrap(
    a: Mapping[str, NDArray[Any]],
    b: Mapping[str, NDArray[Any]],
    groups_N: NDArray[Any] | None = None,
    *,
    num_draws: int = NUM_DRAWS,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> PairedComparison:
    """Compare two models on the same events.

    Args:
        a: ``error_mm`` and perhaps ``nll`` of each event, (N,).
        b: Likewise, of the same events in the same order.
        groups_N: Group of each event, any integers. With fewer than ``FEWEST_GROUPS`` of them single events
            are drawn, as without groups.
        num_draws: R.
        confidence: Mass of the interval.
        seed: The same seed and data give the same numbers.

    Raises:
        DatasetError: If there are no events, or not equally many.
    """
    num_events = len(a["error_mm"])
    if num_events == 0 or len(b["error_mm"]) != num_events:
        raise DatasetError(
            f"two models are compared on the same events, at least one, but one has {num_events} and the "
            f"other {len(b['error_mm'])}"
        )
    units_N, num_groups = _units(groups_N, num_events)
    names = [name for name in ("error_mm", "nll") if name in a and name in b]
    columns = [(_Column(name, a[name]), _Column(name, b[name])) for name in names]
    exact = _differences(columns, np.ones(num_events, np.int64))
    generator = np.random.default_rng(seed)
    drawn = [_differences(columns, _draw(units_N, generator)) for _ in range(num_draws)]
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    differences = {}
    for name, value in exact.items():
        difference_R = np.array([difference[name] for difference in drawn])
        low, high = np.quantile(difference_R, tails)
        better = np.mean(difference_R < 0) + np.mean(difference_R == 0) / 2
        differences[name] = Difference(value, float(low), float(high), float(better))
    return PairedComparison(differences, num_events, num_groups, confidence)


class _Column:
    """One figure of one model for all events, ready to be scored on many draws."""

    def __init__(self, name: str, values_N: NDArray[Any]) -> None:
        self._values_N = np.asarray(values_N, np.float64)
        self._order_N = np.argsort(self._values_N, kind="stable")
        self._sorted_N = self._values_N[self._order_N]
        self._has_quantiles = name == "error_mm"
        self._mean_name = "error_mean_mm" if self._has_quantiles else name

    def scores(self, weights_N: NDArray[np.int64]) -> dict[str, float]:
        """Figures of merit of a draw in which each event is as often as its weight."""
        scores = {}
        if self._has_quantiles:
            ranks_N = np.cumsum(weights_N[self._order_N])
            for name, quantile in _QUANTILES.items():
                scores[name] = self._value_at((ranks_N[-1] - 1) * quantile, ranks_N)
        scores[self._mean_name] = float(np.average(self._values_N, weights=weights_N))
        return scores

    def _value_at(self, place: float, ranks_N: NDArray[np.int64]) -> float:
        """Value at a fractional place of the draw, linear between neighbours as ``numpy.quantile``."""
        below = np.floor(place)
        low, high = self._sorted_N[np.searchsorted(ranks_N, [below, np.ceil(place)], side="right")]
        return float(low + (place - below) * (high - low))


def _differences(
    columns: list[tuple[_Column, _Column]], weights_N: NDArray[np.int64]
) -> dict[str, float]:
    found: dict[str, float] = {}
    for column_a, column_b in columns:
        scores_b = column_b.scores(weights_N)
        scores_a = column_a.scores(weights_N)
        found |= {name: score - scores_b[name] for name, score in scores_a.items()}
    return found


def _units(groups_N: NDArray[Any] | None, num_events: int) -> tuple[NDArray[np.int64], int | None]:
    """What is drawn as a whole, counted from 0, of each event; and the number of groups, if they are it."""
    if groups_N is not None:
        names, numbers_N = np.unique(groups_N, return_inverse=True)
        if len(names) >= FEWEST_GROUPS:
            return numbers_N.astype(np.int64), len(names)
    return np.arange(num_events), None


def _draw(units_N: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.int64]:
    """How often each event is in one draw of as many units as there are, (N,)."""
    num_units = int(units_N.max()) + 1
    drawn = generator.integers(0, num_units, num_units)
    weights_N: NDArray[np.int64] = np.bincount(drawn, minlength=num_units)[units_N]
    return weights_N
