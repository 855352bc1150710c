"""Whether a large region is a warning: the size of stated regions beside the errors that were made.

Letters: N events, K keypoints, M events of a scatter plot.
"""

import html
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from gerbil_tune.evaluation.figures import LEGEND_BELOW, MAX_POINTS, style
from gerbil_tune.evaluation.results import EvaluationResult

_FEWEST_PER_POINT = 10
_MOST_POINTS = 20
_SMALLEST_ERROR_MM = 0.1
"""Below it a log axis only shows luck."""


@dataclass(frozen=True, eq=False, slots=True)
class RegionErrors:
    """Size of the 95 % region and error of each event of one method.

    Attributes:
        method: Its name.
        size_M: Area in mm² (volume in mm³ of three axes), mean over the keypoints, of events whose regions
            are finite.
        error_mm_M: Their errors.
        num_infinite: Events with a region that is everything.
        rank_correlation: Spearman's, of size and error; NaN where all sizes are alike.
        running_size: Median size of events of similar size, rising.
        running_error_mm: Their median error.
    """

    method: str
    size_M: NDArray[np.float64]
    error_mm_M: NDArray[np.float64]
    num_infinite: int
    rank_correlation: float
    running_size: NDArray[np.float64]
    running_error_mm: NDArray[np.float64]


def region_errors(
    result: EvaluationResult, method_number: int, error_mm_N: NDArray[Any]
) -> RegionErrors | None:
    """Compare region and error of each event of one method; None where it has no conformal regions.

    Args:
        result: The evaluation.
        method_number: Which of its methods.
        error_mm_N: Its errors.
    """
    method = result.methods[method_number]
    if method.region_size_95_NK is None:
        return None
    size_N = method.region_size_95_NK.astype(np.float64).mean(axis=1)
    is_usable_N = np.isfinite(size_N) & (size_N > 0)
    size_M, error_mm_M = size_N[is_usable_N], np.asarray(error_mm_N, np.float64)[is_usable_N]
    order_M = np.argsort(size_M, kind="stable")
    num_points = max(1, min(_MOST_POINTS, len(order_M) // _FEWEST_PER_POINT))
    parts = [part for part in np.array_split(order_M, num_points) if len(part)]
    return RegionErrors(
        method.name,
        size_M,
        error_mm_M,
        int(np.isposinf(size_N).sum()),
        _rank_correlation(size_M, error_mm_M),
        np.array([np.median(size_M[part]) for part in parts]),
        np.array([np.median(error_mm_M[part]) for part in parts]),
    )


def _rank_correlation(a_M: NDArray[Any], b_M: NDArray[Any]) -> float:
    from scipy.stats import rankdata

    ranks = [rankdata(values) for values in (a_M, b_M)]
    if len(a_M) < 2 or not all(np.ptp(rank_M) for rank_M in ranks):
        return math.nan
    return float(np.corrcoef(*ranks)[0, 1])


def region_figure(found: list[RegionErrors], colors: Mapping[str, str], num_axes: int) -> Any:
    """Size against error on log axes: dots of the last method, a line of running medians of each.

    At most ``figures.MAX_POINTS`` dots are drawn, chosen at random with a fixed seed.

    Args:
        found: Of at least one method.
        colors: By method.
        num_axes: D.
    """
    figure = go.Figure()
    shown = found[-1]
    size_M, error_mm_M = shown.size_M, shown.error_mm_M
    if len(size_M) > MAX_POINTS:
        chosen = np.random.default_rng(0).choice(len(size_M), MAX_POINTS, replace=False)
        size_M, error_mm_M = size_M[chosen], error_mm_M[chosen]
    unit = {2: "area of the 95 % region (mm²)", 3: "volume of the 95 % region (mm³)"}[num_axes]
    figure.add_scatter(
        x=size_M,
        y=np.maximum(error_mm_M, _SMALLEST_ERROR_MM),
        mode="markers",
        marker={"color": colors[shown.method], "size": 4, "opacity": 0.35},
        name=f"{html.escape(shown.method)}: events",
        hovertemplate="%{x:,.0f}<br>error %{y:.1f} mm<extra></extra>",
    )
    for one in found:
        figure.add_scatter(
            x=one.running_size,
            y=np.maximum(one.running_error_mm, _SMALLEST_ERROR_MM),
            mode="lines+markers",
            line={"color": colors[one.method], "width": 2.5},
            marker={"size": 7, "line": {"color": "white", "width": 1}},
            name=f"{html.escape(one.method)}: running median",
            hovertemplate="%{x:,.0f}<br>median error %{y:.1f} mm<extra></extra>",
        )
    figure.update_xaxes(title_text=unit, type="log", dtick=1, exponentformat="power")
    figure.update_yaxes(title_text="error (mm)", type="log", dtick=1)
    legend_px = 22 * (len(found) + 1)
    layout = {**LEGEND_BELOW, "margin_b": 64 + legend_px}
    return style(figure, height=400 + legend_px, **layout)
