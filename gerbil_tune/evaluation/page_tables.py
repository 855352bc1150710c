"""Tables of the page of an evaluation."""

import math
from collections.abc import Mapping, Sequence

from gerbil_tune.evaluation.bootstrap import Interval
from gerbil_tune.evaluation.breakdowns import Breakdown
from gerbil_tune.evaluation.paired import Difference, PairedComparison
from gerbil_tune.evaluation.results import region_size_name
from gerbil_tune.evaluation.summary import STAGES, Evaluation, Summary
from gerbil_tune.pages.pieces import DASH, Cell, number_cell, table, text_cell

_FIGURES = (
    ("median (mm)", "error_median_mm", ".1f"),
    ("90th percentile (mm)", "error_p90_mm", ".1f"),
    ("mean (mm)", "error_mean_mm", ".1f"),
    ("NLL (nats)", "nll", ".2f"),
    ("95 % coverage", "coverage_95", ".1%"),
)
"""Heading, figure of merit and format of each column with intervals."""
_DIFFERENCES = (
    ("median (mm)", "error_median_mm", "+.1f"),
    ("90th percentile (mm)", "error_p90_mm", "+.1f"),
    ("mean (mm)", "error_mean_mm", "+.1f"),
    ("NLL (nats)", "nll", "+.2f"),
    ("coverage short of 95 %", "shortfall_95", "+.1%"),
)


def methods_table(evaluation: Evaluation, summary: Summary) -> str:
    """All methods with intervals, the model in question standing out."""
    size = region_size_name(evaluation.setup.num_axes)
    divisor, unit = (100, "cm²") if evaluation.setup.num_axes == 2 else (1000, "cm³")
    rows = []
    for name, scores in summary.scores.items():
        further = summary.further[name]
        cells = [text_cell(name)]
        cells += [interval_cell(scores.get(figure), form) for _, figure, form in _FIGURES]
        cells.append(number_cell(further.get("calibration_error"), ".3f"))
        cells.append(_size_cell(further.get(size), divisor))
        rows.append((cells, name == evaluation.subject))
    headings = ("method", *(title for title, _, _ in _FIGURES), "calibration error")
    return _table((*headings, f"95 % region ({unit})"), rows, num_texts=1)


def _size_cell(size: float | None, divisor: float) -> Cell:
    if size is not None and math.isinf(size):
        return Cell("no bound", math.inf, "number")
    return number_cell(None if size is None else size / divisor, ",.0f")


def interval_cell(interval: Interval | None, form: str) -> Cell:
    """A figure with the ends of its interval below it."""
    if interval is None:
        return number_cell(None)
    return _with_ends(interval.value, interval.low, interval.high, form)


def _with_ends(value: float, low: float, high: float, form: str) -> Cell:
    if not math.isfinite(value):
        return number_cell(None)
    text = _signed(value, form)
    if math.isfinite(low) and math.isfinite(high):
        text += f"\n{_signed(low, form)} to {_signed(high, form)}"
    return Cell(text, value, "number ends")


def _signed(value: float, form: str) -> str:
    return format(value, form).replace("-", "\N{MINUS SIGN}")


def comparisons_table(subject: str, comparisons: Mapping[str, PairedComparison]) -> str:
    """The model in question minus each other method."""
    rows = []
    for name, found in comparisons.items():
        cells = [text_cell(name)]
        for _, figure, form in _DIFFERENCES:
            cells.append(_difference_cell(found.differences.get(figure), form))
        cells.append(number_cell(found.differences["error_median_mm"].probability_better, ".2f"))
        rows.append((cells, False))
    headings = (f"{subject} minus", *(title for title, _, _ in _DIFFERENCES), "P")
    return _table(headings, rows, num_texts=1)


def _difference_cell(found: Difference | None, form: str) -> Cell:
    if found is None:
        return number_cell(None)
    return _with_ends(found.value, found.low, found.high, form)


def weights_table(by_weights: Mapping[str, Mapping[str, Mapping[str, Interval]]]) -> str:
    """Errors of each model with the weights of each stage of its training."""
    rows = [
        (
            [text_cell(model), text_cell(STAGES[stage], css="")]
            + [interval_cell(scores[figure], form) for _, figure, form in _FIGURES[:2]],
            stage == "best",
        )
        for model, stages in by_weights.items()
        for stage, scores in stages.items()
    ]
    headings = ("model", "weights", *(title for title, _, _ in _FIGURES[:2]))
    return _table(headings, rows, num_texts=2)


def breakdown_table(found: Breakdown, bins: Sequence[int]) -> str:
    """All methods in some bins."""
    rows = []
    for place in bins:
        for number, (name, method) in enumerate(found.methods.items()):
            is_first, covered = number == 0, method.coverage_95_G
            ends = (float(low_mm_G[place]) for low_mm_G in (method.low_mm_G, method.high_mm_G))
            cells = [
                text_cell(f"{found.labels[place]} ({found.count_G[place]:,})" if is_first else ""),
                text_cell(name),
                number_cell(float(method.median_mm_G[place]), ".1f"),
                Cell(_between(*ends), css="number"),
                number_cell(float(method.p90_mm_G[place]), ".1f"),
                number_cell(None if covered is None else float(covered[place]), ".1%"),
            ]
            rows.append((cells, False))
    headings = (
        *("events (number)", "method", "median (mm)", "95 % interval"),
        *("90th percentile (mm)", "95 % coverage"),
    )
    classes = dict.fromkeys((2, 3, 4, 5), "number")
    return table(headings, rows, classes=classes)


def _between(low: float, high: float) -> str:
    return f"{low:.1f} to {high:.1f}" if math.isfinite(low) and math.isfinite(high) else DASH


def _table(headings: Sequence[str], rows: list[tuple[list[Cell], bool]], num_texts: int) -> str:
    classes = dict.fromkeys(range(num_texts, len(headings)), "number")
    return table(headings, rows, classes=classes)
