"""What the figures of a study share: marks of trials, their words, the axis of the objective; importance."""

import html
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from gerbil_tune.evaluation.figures import METHOD_COLORS, style
from gerbil_tune.search.report_study import StudyView, TrialRecord, format_value

BLUE, ORANGE, GREEN, *_, RED = METHOD_COLORS
_LOG_AXIS_RATIO = 8.0
_MIN_SHARE = 0.005
_MAX_BARS = 15


def importance_bars(view: StudyView, shares: Mapping[str, float]) -> Any:
    """Share of each parameter in deciding which trials are the best, largest on top, tiny ones left out."""
    labels = {parameter.name: parameter.label for parameter in view.parameters}
    names = [name for name, share in shares.items() if share >= _MIN_SHARE][:_MAX_BARS][::-1]
    figure = go.Figure(
        go.Bar(
            x=[shares[name] for name in names],
            y=[html.escape(labels.get(name, name)).replace(" (", "<br>(") for name in names],
            orientation="h",
            marker={"color": BLUE},
            texttemplate="%{x:.0%}",
            textposition="outside",
            cliponaxis=False,
            hovertemplate="%{y}<br>%{x:.1%}<extra></extra>",
        )
    )
    figure.update_xaxes(
        title_text="importance", tickformat=".0%", range=[0, 1.2 * max(shares.values())]
    )
    figure.update_yaxes(automargin=True, ticklabelstandoff=6)
    return style(figure, height=80 + 38 * len(names), bargap=0.35)


def hover_text(trial: TrialRecord) -> str:
    """A trial in the box at the pointer."""
    value = "" if trial.objective is None else f": {trial.objective:.4g}"
    lines = [f"<b>trial {trial.number}</b>, {trial.state}{value}"]
    lines += [
        f"{html.escape(name)} = {html.escape(format_value(setting))}"
        for name, setting in trial.parameters.items()
    ]
    if trial.reason:
        lines.append(f"<i>{html.escape(trial.reason[:120])}</i>")
    return "<br>".join(lines)


def whole_steps(count: int) -> int | None:
    """Step of the ticks of a short axis of whole numbers; None leaves it to plotly."""
    return 1 if count <= 12 else None


def wants_log_axis(values: Sequence[float]) -> bool:
    """Whether a few bad trials would press the good ones to the floor of a linear axis."""
    if not values or min(values) <= 0.0:
        return False
    return max(values) > _LOG_AXIS_RATIO * statistics.median(values)


def set_objective_axis(figure: Any, view: StudyView, values: Sequence[float]) -> None:
    """Name the axis of the first objective, and choose its scale."""
    title = html.escape(view.metric_title)
    if wants_log_axis(values):
        figure.update_yaxes(type="log", title_text=f"{title}, log scale")
    else:
        figure.update_yaxes(title_text=title)


def number_ticks(low: float, high: float, *, log: bool) -> dict[str, list[Any]]:
    """Round numbers on an axis from low to high, which are exponents of ten where log."""
    if log:
        decades = range(math.floor(low), math.ceil(high) + 1)
        factors = (1, 2, 5) if high - low < 2 else (1,)
        candidates = [math.log10(factor) + decade for decade in decades for factor in factors]
    else:
        rough = (high - low or 1.0) / 5
        magnitude = 10.0 ** math.floor(math.log10(rough))
        step = next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= rough)
        first = math.ceil(low / step - 1e-9)
        candidates = [step * number for number in range(first, math.floor(high / step + 1e-9) + 1)]
    places = [place for place in candidates if low - 1e-9 <= place <= high + 1e-9]
    texts = [format_value(10.0**place if log else place + 0.0, digits=3) for place in places]
    return {"tickvals": places, "ticktext": texts}


def log_axis(low: float, high: float) -> dict[str, Any]:
    """Options of an axis on a log scale from low to high, with round numbers at its ticks."""
    ticks = number_ticks(math.log10(low), math.log10(high), log=True)
    values = [10.0**place for place in ticks["tickvals"]]
    return {"type": "log", "tickvals": values, "ticktext": ticks["ticktext"]}
