"""Whether one model is better than another on the same events: the paired bootstrap.

The events are drawn with replacement many times (``bootstrap``). Both models are scored on each draw, so what
makes events easy or hard for both cancels in the difference.

Letters: N events, R draws, K keypoints, D axes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gerbil_tune.errors import DatasetError
from gerbil_tune.evaluation.bootstrap import (
    CONFIDENCE,
    COVERAGE,
    COVERED,
    ERROR,
    NLL,
    ScoreDraws,
    draw_scores,
    event_figures,
    interval_ends,
)
from gerbil_tune.evaluation.results import EvaluationResult

_TITLES = {
    "error_median_mm": ("median error", "{:+.2f}", " mm"),
    "error_p90_mm": ("90th percentile", "{:+.2f}", " mm"),
    "error_mean_mm": ("mean error", "{:+.2f}", " mm"),
    "nll": ("NLL", "{:+.3f}", ""),
    "shortfall_95": ("coverage short of 95 %", "{:+.3f}", ""),
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
        differences: By figure of merit: error_median_mm, error_p90_mm, error_mean_mm, and where both state an
            uncertainty nll (nats, density per mm^D) and shortfall_95, by how much less than 95 % of the
            truths the regions of this probability hold (0 if they hold more).
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


def paired_bootstrap(
    a: Mapping[str, NDArray[Any]],
    b: Mapping[str, NDArray[Any]],
    groups_N: NDArray[Any] | None = None,
    *,
    num_draws: int | None = None,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> PairedComparison:
    """Compare two models on the same events.

    Args:
        a: ``error_mm`` and perhaps ``nll`` and ``covered_95`` of each event, (N,); see ``event_figures``.
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
    names = [name for name in (ERROR, NLL, COVERED) if name in a and name in b]
    both = {side: {name: figures[name] for name in names} for side, figures in (("a", a), ("b", b))}
    draws = draw_scores(both, groups_N, num_draws=num_draws, seed=seed)
    return paired_difference(draws, "a", "b", confidence)


def paired_difference(
    draws: ScoreDraws, a: str, b: str, confidence: float = CONFIDENCE
) -> PairedComparison:
    """Compare two methods that were scored on the same draws, in the figures that both have."""
    exact_a, exact_b = (_lower_is_better(draws.exact[name]) for name in (a, b))
    drawn_a, drawn_b = (_lower_is_better(draws.drawn_R[name]) for name in (a, b))
    differences = {}
    for name in exact_a:
        if name not in exact_b:
            continue
        difference_R = drawn_a[name] - drawn_b[name]
        low, high = interval_ends(difference_R, confidence)
        better = np.mean(difference_R < 0) + np.mean(difference_R == 0) / 2
        value = float(exact_a[name] - exact_b[name])
        differences[name] = Difference(value, low, high, float(better))
    return PairedComparison(differences, draws.num_events, draws.num_groups, confidence)


def _lower_is_better(scores: Mapping[str, Any]) -> dict[str, Any]:
    """The same scores with how far coverage falls short in the place of coverage."""
    found = {name: score for name, score in scores.items() if name != "coverage_95"}
    if "coverage_95" in scores:
        found["shortfall_95"] = np.maximum(0.0, COVERAGE - np.asarray(scores["coverage_95"]))
    return found
