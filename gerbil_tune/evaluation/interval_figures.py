"""Figures of medians with their intervals: by a property of the events, and by the weights of a run."""

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from gerbil_tune.evaluation.bootstrap import Interval
from gerbil_tune.evaluation.breakdowns import Breakdown
from gerbil_tune.evaluation.figures import style

_LOG_RATIO = 8.0
_SPREAD = 0.55
"""Part of a bin's width over which its methods stand side by side."""


def breakdown_figure(breakdown: Breakdown, bins: Sequence[int], colors: Mapping[str, str]) -> Any:
    """Median error of each method in some bins, side by side.

    Args:
        breakdown: Of at least one method.
        bins: Places of the bins to show, in order.
        colors: By method.
    """
    chosen = np.asarray(bins, np.int64)
    figure = go.Figure()
    ends: list[Any] = []
    count_G = breakdown.count_G[chosen]
    for number, (name, method) in enumerate(breakdown.methods.items()):
        median_G, low_G, high_G = (
            values[chosen] for values in (method.median_mm_G, method.low_mm_G, method.high_mm_G)
        )
        ends += [median_G, low_G, high_G]
        figure.add_scatter(
            x=np.arange(len(chosen)) + _offset(number, len(breakdown.methods)),
            y=median_G,
            error_y=_bars(median_G, low_G, high_G, colors[name]),
            mode="markers",
            marker={"color": colors[name], "size": 8},
            name=html.escape(name),
            customdata=np.stack([np.nan_to_num(low_G), np.nan_to_num(high_G), count_G], axis=1),
            hovertemplate="median %{y:.1f} mm (%{customdata[0]:.1f} to %{customdata[1]:.1f})"
            "<br>%{customdata[2]} events",
        )
    labels = [html.escape(breakdown.labels[place]) for place in chosen.tolist()]
    figure.update_xaxes(
        tickvals=list(range(len(labels))),
        ticktext=labels,
        range=[-0.5, len(labels) - 0.5],
        automargin=True,
        # Slanted labels that rise to their tick do not run out of a narrow figure.
        autotickangles=[0, -45, -90],
        showgrid=False,
    )
    _set_error_axis(figure, np.concatenate(ends))
    return style(figure, height=340, showlegend=False)


def weights_figure(medians: Mapping[str, Mapping[str, Interval]], colors: Mapping[str, str]) -> Any:
    """Median error with the initial, best and final weights of each model.

    Args:
        medians: By model and weights, in the order of training.
        colors: By model.
    """
    figure = go.Figure()
    stages = list(dict.fromkeys(stage for of_model in medians.values() for stage in of_model))
    ends: list[Any] = []
    for number, (name, of_model) in enumerate(medians.items()):
        intervals = list(of_model.values())
        median = np.array([interval.value for interval in intervals])
        low, high = (
            np.array([getattr(interval, end) for interval in intervals]) for end in ("low", "high")
        )
        ends += [median, low, high]
        figure.add_scatter(
            x=[stages.index(stage) + _offset(number, len(medians)) / 4 for stage in of_model],
            y=median,
            error_y=_bars(median, low, high, colors[name]),
            mode="lines+markers",
            line={"color": colors[name], "width": 2},
            marker={"size": 8},
            name=html.escape(name),
            hovertemplate="median %{y:.1f} mm",
        )
    figure.update_xaxes(
        tickvals=list(range(len(stages))),
        ticktext=stages,
        range=[-0.4, len(stages) - 0.6],
        showgrid=False,
    )
    _set_error_axis(figure, np.concatenate(ends))
    return style(figure, height=320, showlegend=False)


def _offset(number: int, count: int) -> float:
    return _SPREAD * ((number + 0.5) / count - 0.5)


def _bars(median: Any, low: Any, high: Any, color: str) -> dict[str, Any]:
    """Bars from the low to the high end; none where there is no interval."""
    return {
        "type": "data",
        "symmetric": False,
        "array": np.nan_to_num(high - median),
        "arrayminus": np.nan_to_num(median - low),
        "color": color,
        "thickness": 1.5,
        "width": 3,
    }


def _set_error_axis(figure: Any, values_mm: Any) -> None:
    """From 0, or a log axis where a few large values would press the small ones to the floor."""
    finite = values_mm[np.isfinite(values_mm)]
    if finite.size and finite.min() > 0 and finite.max() > _LOG_RATIO * finite.min():
        low, high = math.log10(finite.min()), math.log10(finite.max())
        decades = range(math.floor(low), math.ceil(high) + 1)
        ticks = [factor * 10.0**decade for decade in decades for factor in (1, 2, 5)]
        figure.update_yaxes(
            type="log",
            title_text="median error (mm), log scale",
            range=[low - 0.1, high + 0.1],
            tickvals=ticks,
            ticktext=[f"{tick:g}" for tick in ticks],
        )
    else:
        figure.update_yaxes(title_text="median error (mm)", rangemode="tozero")
