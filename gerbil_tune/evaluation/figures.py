"""Plotly figures of an evaluation. Backgrounds are transparent and greys sit between light and dark.

Letters: N events, K keypoints, D axes.
"""

import html
import math
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from gerbil_tune.evaluation.accuracy import errors_mm
from gerbil_tune.evaluation.calibration import calibration_curve as curve_of
from gerbil_tune.evaluation.results import EvaluationResult, MethodResult

METHOD_COLORS = ("#3b7dd8", "#e0762f", "#1f9e89", "#b0509e", "#a8871a", "#d1495b")
NEUTRAL = "#8a8f98"
MAX_POINTS = 3000
"""Of a scatter plot; of more a random choice is shown."""
_EVENTS_PER_CELL = 8
_MIN_EVENTS_PER_CELL = 3
_AXES = "xyz"


def style(figure: Any, *, height: int, **layout: Any) -> Any:
    """Apply what all figures of a report share: transparent, no template, small margins."""
    figure.update_layout(
        template=go.layout.Template(),
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        height=height,
        margin={"l": 60, "r": 16, "t": 30, "b": 48},
        font={"family": "system-ui, sans-serif", "size": 13, "color": NEUTRAL},
        hoverlabel={"align": "left"},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": NEUTRAL, "activecolor": METHOD_COLORS[0]},
    )
    figure.update_layout(**layout)
    figure.update_xaxes(gridcolor="rgba(138,143,152,0.25)", zeroline=False, title_standoff=8)
    figure.update_yaxes(gridcolor="rgba(138,143,152,0.25)", zeroline=False, title_standoff=8)
    return figure


def error_map(result: EvaluationResult, method_number: int = -1) -> Any:
    """Median error of one method in the cells of the arena, by where the animal truly was.

    Cells with fewer than 3 events stay empty.

    Args:
        result: The evaluation.
        method_number: Which of its methods; default: the one that it is about.

    Returns:
        A plotly figure; axes in mm from the arena centre with equal scales.
    """
    method = result.methods[method_number]
    error_N = errors_mm(method.predictions_mm_NKD, result.locations_mm_NKD)
    place_N2 = np.asarray(result.locations_mm_NKD, np.float64).mean(axis=1)[:, :2]
    x_edges, y_edges = _cell_edges(result.arena_mm, place_N2)
    median_YX, count_YX = _median_by_cell(place_N2, error_N, x_edges, y_edges)
    finite = median_YX[np.isfinite(median_YX)]
    figure = go.Figure(
        go.Heatmap(
            x=(x_edges[:-1] + x_edges[1:]) / 2,
            y=(y_edges[:-1] + y_edges[1:]) / 2,
            z=median_YX,
            customdata=count_YX,
            zmin=0.0,
            zmax=float(np.quantile(finite, 0.98)) if finite.size else 1.0,
            colorscale="Viridis",
            colorbar={
                "title": {"text": "median error (mm)", "side": "top"},
                "orientation": "h",
                "y": -0.22,
                "yanchor": "top",
                "thickness": 12,
                "outlinewidth": 0,
            },
            hovertemplate="x %{x:.0f} mm, y %{y:.0f} mm<br>median error %{z:.1f} mm"
            "<br>%{customdata} events<extra></extra>",
            hoverongaps=False,
        )
    )
    half_x, half_y = result.arena_mm[0] / 2, result.arena_mm[1] / 2
    outline = {"color": NEUTRAL, "width": 2}
    figure.add_shape(type="rect", x0=-half_x, x1=half_x, y0=-half_y, y1=half_y, line=outline)
    figure.update_xaxes(title_text="x (mm)", constrain="domain")
    figure.update_yaxes(title_text="y (mm)", scaleanchor="x", constrain="domain")
    return style(figure, height=420)


def predicted_vs_true(result: EvaluationResult, method_number: int = -1) -> Any:
    """Predicted against true coordinate, one panel an axis, with the line of perfect prediction.

    At most 3000 points are drawn, chosen at random with a fixed seed.

    Args:
        result: The evaluation.
        method_number: Which of its methods; default: the one that it is about.

    Returns:
        A plotly figure; axes in mm with equal scales.
    """
    method = result.methods[method_number]
    num_axes = result.locations_mm_NKD.shape[2]
    true_MD = np.asarray(result.locations_mm_NKD, np.float64).reshape(-1, num_axes)
    predicted_MD = np.asarray(method.predictions_mm_NKD, np.float64).reshape(-1, num_axes)
    if len(true_MD) > MAX_POINTS:
        chosen = np.random.default_rng(0).choice(len(true_MD), MAX_POINTS, replace=False)
        true_MD, predicted_MD = true_MD[chosen], predicted_MD[chosen]
    figure = make_subplots(rows=1, cols=num_axes, horizontal_spacing=0.18)
    for axis in range(num_axes):
        _add_predicted_vs_true(figure, axis, true_MD[:, axis], predicted_MD[:, axis])
    return style(figure, height=380, showlegend=False)


def calibration_curve(result: EvaluationResult) -> Any:
    """Fraction of truths inside the stated regions, for each method that states its uncertainty.

    Args:
        result: The evaluation.

    Returns:
        A plotly figure. The band around the diagonal holds 95 % of curves of calibrated methods, point
        by point, for independent events.
    """
    figure = go.Figure()
    _add_diagonal(figure, len(result.locations_mm_NKD))
    for color, method in _colored(result):
        if method.level_NK is None:
            continue
        figure.add_scatter(
            x=np.linspace(0.0, 1.0, 11),
            y=curve_of(method.level_NK),
            mode="lines+markers",
            line={"color": color, "width": 2.5},
            name=html.escape(method.name),
            hovertemplate="regions that state %{x:.0%}<br>hold %{y:.1%} of the events",
        )
    figure.update_xaxes(
        title_text="stated probability of the region",
        tickformat=".0%",
        range=[0, 1],
        constrain="domain",
    )
    figure.update_yaxes(
        title_text="events inside the region",
        tickformat=".0%",
        range=[0, 1.005],
        scaleanchor="x",
        constrain="domain",
    )
    legend_px = 22 * len(figure.data)
    return style(figure, height=350 + legend_px, **{**LEGEND_BELOW, "margin_b": 64 + legend_px})


def error_cdf(result: EvaluationResult) -> Any:
    """Fraction of events within a distance of the truth, for each method.

    Args:
        result: The evaluation.

    Returns:
        A plotly figure; the distance in mm ends where 95 % of the events of every method lie.
    """
    figure = go.Figure()
    fractions = np.linspace(0.0, 1.0, 201)
    longest_mm = 0.0
    for color, method in _colored(result):
        error_N = errors_mm(method.predictions_mm_NKD, result.locations_mm_NKD)
        quantiles_mm = np.quantile(error_N, fractions) if error_N.size else fractions * math.nan
        longest_mm = max(longest_mm, float(np.nan_to_num(quantiles_mm[190])))
        figure.add_scatter(
            x=quantiles_mm,
            y=fractions,
            mode="lines",
            line={"color": color, "width": 2.5},
            name=html.escape(method.name),
            hovertemplate="%{y:.0%} of the events within %{x:.1f} mm",
        )
    figure.update_xaxes(title_text="error (mm)", range=[0, longest_mm or 1.0])
    figure.update_yaxes(
        title_text="events with at most this error", tickformat=".0%", range=[0, 1.005]
    )
    # On a narrow page every name takes a line of the legend.
    legend_px = 22 * len(result.methods)
    return style(figure, height=400 + legend_px, **{**LEGEND_BELOW, "margin_b": 64 + legend_px})


LEGEND_BELOW = {
    "legend": {"orientation": "h", "x": 0, "yref": "container", "y": 0, "yanchor": "bottom"},
    "margin_b": 96,
}


def method_colors(result: EvaluationResult) -> dict[str, str]:
    """Colour of each method by name, the same in all figures."""
    count = len(METHOD_COLORS)
    return {method.name: METHOD_COLORS[i % count] for i, method in enumerate(result.methods)}


def _colored(result: EvaluationResult) -> list[tuple[str, MethodResult]]:
    return list(zip(method_colors(result).values(), result.methods, strict=True))


def _add_diagonal(figure: Any, num_events: int) -> None:
    """The line of perfect calibration and, around it, twice the standard error of a binomial fraction."""
    x = np.linspace(0.0, 1.0, 101)
    half_width = 1.96 * np.sqrt(x * (1 - x) / max(num_events, 1))
    band = np.concatenate([x + half_width, (x - half_width)[::-1]])
    figure.add_scatter(
        x=np.concatenate([x, x[::-1]]),
        y=np.clip(band, 0.0, 1.0),
        fill="toself",
        fillcolor="rgba(138,143,152,0.25)",
        line={"width": 0},
        hoverinfo="skip",
        name="sampling error",
    )
    line = {"color": NEUTRAL, "dash": "dash", "width": 1.5}
    figure.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", line=line, hoverinfo="skip", name="perfect"
    )


def _cell_edges(
    arena_mm: tuple[float, ...], place_N2: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Edges of square cells over the arena, large enough to hold about 8 events each."""
    area_mm2 = arena_mm[0] * arena_mm[1]
    side_mm = math.sqrt(area_mm2 * _EVENTS_PER_CELL / max(len(place_N2), 1))
    side_mm = min(max(side_mm, min(arena_mm[:2]) / 40), min(arena_mm[:2]) / 4)
    edges = []
    for axis in range(2):
        # Animals rear and lean over the wall: cells follow them up to a quarter of the arena outside.
        beyond = np.abs(place_N2[:, axis]).max(initial=0.0)
        half_mm = min(max(arena_mm[axis] / 2, beyond), 0.75 * arena_mm[axis])
        count = max(1, math.ceil(2 * half_mm / side_mm))
        edges.append(np.linspace(-half_mm, half_mm, count + 1))
    return edges[0], edges[1]


def _median_by_cell(
    place_N2: NDArray[Any], error_N: NDArray[Any], x_edges: NDArray[Any], y_edges: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    shape = (len(y_edges) - 1, len(x_edges) - 1)
    column_N = np.clip(np.searchsorted(x_edges, place_N2[:, 0], side="right") - 1, 0, shape[1] - 1)
    row_N = np.clip(np.searchsorted(y_edges, place_N2[:, 1], side="right") - 1, 0, shape[0] - 1)
    cell_N = row_N * shape[1] + column_N
    count = np.bincount(cell_N, minlength=shape[0] * shape[1])
    median = np.full(shape[0] * shape[1], np.nan)
    ordered = np.argsort(cell_N, kind="stable")
    for cell, part in enumerate(np.split(error_N[ordered], np.cumsum(count)[:-1])):
        if len(part) >= _MIN_EVENTS_PER_CELL:
            median[cell] = np.median(part)
    return median.reshape(shape), count.reshape(shape)


def _add_predicted_vs_true(
    figure: Any, axis: int, true_M: NDArray[Any], predicted_M: NDArray[Any]
) -> None:
    both = np.concatenate([true_M, predicted_M])
    low, high = (float(both.min()), float(both.max())) if both.size else (-1.0, 1.0)
    margin = 0.04 * (high - low) + 1e-6
    limits = [low - margin, high + margin]
    where = {"row": 1, "col": axis + 1}
    line = {"color": NEUTRAL, "dash": "dash", "width": 1.5}
    marker = {"color": METHOD_COLORS[0], "size": 4, "opacity": 0.45}
    figure.add_scatter(
        x=true_M,
        y=predicted_M,
        mode="markers",
        marker=marker,
        hovertemplate="true %{x:.0f} mm<br>predicted %{y:.0f} mm<extra></extra>",
        **where,
    )
    figure.add_scatter(x=limits, y=limits, mode="lines", line=line, hoverinfo="skip", **where)
    name = _AXES[axis]
    figure.update_xaxes(title_text=f"true {name} (mm)", range=limits, constrain="domain", **where)
    figure.update_yaxes(
        title_text=f"predicted {name} (mm)",
        range=limits,
        scaleanchor="x" if axis == 0 else f"x{axis + 1}",
        constrain="domain",
        **where,
    )
