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
    NUM_DRAWS,
    FigureColumn,
    draw_weights,
    drawing_units,
    event_figures,
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
    num_draws: int = NUM_DRAWS,
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
    units_N, num_groups = drawing_units(groups_N, num_events)
    names = [name for name in (ERROR, NLL, COVERED) if name in a and name in b]
    columns = [(FigureColumn(name, a[name]), FigureColumn(name, b[name])) for name in names]
    exact = _differences(columns, np.ones(num_events, np.int64))
    generator = np.random.default_rng(seed)
    drawn = [_differences(columns, draw_weights(units_N, generator)) for _ in range(num_draws)]
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    differences = {}
    for name, value in exact.items():
        difference_R = np.array([difference[name] for difference in drawn])
        low, high = np.quantile(difference_R, tails)
        better = np.mean(difference_R < 0) + np.mean(difference_R == 0) / 2
        differences[name] = Difference(value, float(low), float(high), float(better))
    return PairedComparison(differences, num_events, num_groups, confidence)


def _differences(
    columns: list[tuple[FigureColumn, FigureColumn]], weights_N: NDArray[np.int64]
) -> dict[str, float]:
    found: dict[str, float] = {}
    for column_a, column_b in columns:
        scores_b = column_b.scores(weights_N)
        scores_a = column_a.scores(weights_N)
        if "coverage_95" in scores_a:
            short_a, short_b = (
                max(0.0, COVERAGE - scores["coverage_95"]) for scores in (scores_a, scores_b)
            )
            found["shortfall_95"] = short_a - short_b
        else:
            found |= {name: score - scores_b[name] for name, score in scores_a.items()}
    return found
