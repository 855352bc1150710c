"""Plotly figures of a study: its history, learning curves, what mattered, and all trials at a glance."""

import html
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from gerbil_tune.evaluation.figures import LEGEND_BELOW, METHOD_COLORS, NEUTRAL, style
from gerbil_tune.search.report_study import (
    Scalar,
    SearchedParameter,
    StudyView,
    TrialRecord,
    format_value,
)

_BLUE, _ORANGE, _GREEN, _, _, _RED = METHOD_COLORS
_LOG_AXIS_RATIO = 8.0
_UNUSED = "not used"
_MIN_SHARE = 0.005
_MAX_BARS = 15


def history(view: StudyView) -> Any:
    """Objective of each trial, in the order of trials, with the best so far.

    Failed trials have no objective; a cross at the upper edge marks them.
    """
    figure = go.Figure()
    complete, pruned = view.in_state("complete"), view.in_state("pruned")
    _add_trials(figure, complete, "complete", {"color": _BLUE, "size": 8})
    open_marker = {"color": _ORANGE, "size": 8, "symbol": "diamond-open"}
    _add_trials(figure, [t for t in pruned if t.objective is not None], "pruned", open_marker)
    failed = view.in_state("failed")
    figure.add_scatter(
        x=[trial.number for trial in failed],
        y=[0.97] * len(failed),
        yaxis="y2",
        mode="markers",
        marker={"color": _RED, "size": 9, "symbol": "x-thin", "line": {"width": 2, "color": _RED}},
        name="failed",
        text=[_hover(trial) for trial in failed],
        hovertemplate="%{text}<extra></extra>",
        visible=bool(failed),
    )
    best = _best_so_far(complete, view.minimize)
    figure.add_scatter(
        x=[trial.number for trial in complete] + [view.trials[-1].number],
        y=best + best[-1:],
        mode="lines",
        line={"color": _GREEN, "width": 2.5, "shape": "hv"},
        name="best so far",
        hovertemplate="best so far %{y:.4g}<extra></extra>",
    )
    if view.champion is not None and view.champion.objective is not None:
        ring = {"color": _GREEN, "size": 17, "symbol": "circle-open", "line": {"width": 3}}
        _add_trials(figure, [view.champion], "best trial", ring)
    figure.update_xaxes(title_text="trial", dtick=_whole_steps(len(view.trials)))
    _set_objective_axis(figure, view, [t.objective for t in view.trials if t.objective is not None])
    hidden = {"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True}
    return style(figure, height=400, **LEGEND_BELOW, yaxis2=hidden)


def learning_curves(view: StudyView) -> Any:
    """Objective by epoch of every trial, the champion's on top."""
    figure = go.Figure()
    champion = view.champion
    groups: tuple[tuple[str, str, float, list[TrialRecord]], ...] = (
        ("complete", _BLUE, 0.5, view.in_state("complete")),
        ("pruned", _ORANGE, 0.55, view.in_state("pruned")),
        ("failed", _RED, 0.6, view.in_state("failed")),
        ("running", NEUTRAL, 0.8, view.in_state("running")),
    )
    for name, color, opacity, trials in groups:
        drawn = [trial for trial in trials if trial.curve and trial is not champion]
        if drawn:
            _add_curves(figure, drawn, name, opacity, {"color": color, "width": 1.25})
    if champion is not None and champion.curve:
        name = f"best trial ({champion.number})"
        _add_curves(figure, [champion], name, 1.0, {"color": _GREEN, "width": 3.5})
    epochs = max((trial.curve[-1][0] for trial in view.trials if trial.curve), default=1)
    figure.update_xaxes(title_text="epoch", dtick=_whole_steps(epochs))
    _set_objective_axis(figure, view, [value for trial in view.trials for _, value in trial.curve])
    return style(figure, height=400, **LEGEND_BELOW)


def importance_bars(view: StudyView, shares: Mapping[str, float]) -> Any:
    """Share of each parameter in deciding which trials are the best, largest on top, tiny ones left out."""
    labels = {parameter.name: parameter.label for parameter in view.parameters}
    names = [name for name, share in shares.items() if share >= _MIN_SHARE][:_MAX_BARS][::-1]
    figure = go.Figure(
        go.Bar(
            x=[shares[name] for name in names],
            y=[html.escape(labels.get(name, name)).replace(" (", "<br>(") for name in names],
            orientation="h",
            marker={"color": _BLUE},
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


def parallel_coordinates(view: StudyView, order: Sequence[str] = ()) -> Any:
    """One line a complete trial through the values of its parameters, coloured by the objective.

    Args:
        view: The study.
        order: Names of parameters to put first.
    """
    trials = [trial for trial in view.in_state("complete") if trial.objective is not None]
    objectives = [trial.objective or 0.0 for trial in trials]
    rank = {name: place for place, name in enumerate(order)}
    parameters = sorted(view.parameters, key=lambda parameter: rank.get(parameter.name, len(rank)))
    dimensions = [_objective_dimension(view, objectives)]
    dimensions += [_dimension(parameter, trials) for parameter in parameters]
    figure = go.Figure(
        go.Parcoords(
            dimensions=dimensions,
            labelangle=0,
            labelfont={"size": 12},
            tickfont={"size": 11},
            rangefont={"size": 1, "color": "rgba(0,0,0,0)"},
            line={
                "color": objectives,
                "colorscale": [[0.0, _ORANGE], [0.35, _BLUE], [1.0, NEUTRAL]],
                "reversescale": not view.minimize,
                "cmin": min(objectives, default=0.0),
                "cmax": _upper_quartile(objectives),
            },
        )
    )
    return style(figure, height=460, margin={"l": 70, "r": 70, "t": 76, "b": 24})


def _add_trials(
    figure: Any, trials: Sequence[TrialRecord], name: str, marker: dict[str, Any]
) -> None:
    figure.add_scatter(
        x=[trial.number for trial in trials],
        y=[trial.objective for trial in trials],
        mode="markers",
        marker=marker,
        name=name,
        text=[_hover(trial) for trial in trials],
        hovertemplate="%{text}<extra></extra>",
        visible=bool(trials),
    )


def _add_curves(
    figure: Any, trials: Sequence[TrialRecord], name: str, opacity: float, line: dict[str, Any]
) -> None:
    epochs: list[int | None] = []
    values: list[float | None] = []
    numbers: list[int | None] = []
    for trial in trials:
        epochs += [epoch for epoch, _ in trial.curve] + [None]
        values += [value for _, value in trial.curve] + [None]
        numbers += [trial.number] * len(trial.curve) + [None]
    figure.add_scatter(
        x=epochs,
        y=values,
        customdata=numbers,
        mode="lines+markers",
        marker={"size": 3 + line["width"] / 2},
        line=line,
        opacity=opacity,
        name=name,
        hovertemplate="trial %{customdata}, epoch %{x}: %{y:.4g}<extra></extra>",
    )


def _hover(trial: TrialRecord) -> str:
    value = "" if trial.objective is None else f": {trial.objective:.4g}"
    lines = [f"<b>trial {trial.number}</b>, {trial.state}{value}"]
    lines += [
        f"{html.escape(name)} = {html.escape(format_value(setting))}"
        for name, setting in trial.parameters.items()
    ]
    if trial.reason:
        lines.append(f"<i>{html.escape(trial.reason[:120])}</i>")
    return "<br>".join(lines)


def _whole_steps(count: int) -> int | None:
    """Step of the ticks of a short axis of whole numbers; None leaves it to plotly."""
    return 1 if count <= 12 else None


def _best_so_far(trials: Sequence[TrialRecord], minimize: bool) -> list[float]:
    best: list[float] = []
    for trial in trials:
        value = trial.objective or 0.0
        pick = min if minimize else max
        best.append(pick(best[-1], value) if best else value)
    return best


def _set_objective_axis(figure: Any, view: StudyView, values: Sequence[float]) -> None:
    """Use a log scale where a few bad trials would press the good ones to the floor."""
    title = html.escape(view.metric_title)
    spread = bool(values) and min(values) > 0.0
    if spread and max(values) > _LOG_AXIS_RATIO * statistics.median(values):
        figure.update_yaxes(type="log", title_text=f"{title}, log scale")
    else:
        figure.update_yaxes(title_text=title)


def _objective_dimension(view: StudyView, objectives: Sequence[float]) -> dict[str, Any]:
    low, high = min(objectives, default=0.0), max(objectives, default=1.0)
    return {
        "label": html.escape(view.metric_title).replace(" (", "<br>("),
        "values": list(objectives),
        "range": [low, high],
        **_number_ticks(low, high, log=False),
    }


def _dimension(parameter: SearchedParameter, trials: Sequence[TrialRecord]) -> dict[str, Any]:
    """An axis; a trial without the parameter runs through the place marked "not used"."""
    settings = [trial.parameters.get(parameter.name) for trial in trials]
    present = [parameter.name in trial.parameters for trial in trials]
    if parameter.kind == "categorical":
        places = {_key(choice): float(place) for place, choice in enumerate(parameter.ends)}
        low, high = 0.0, max(1.0, len(parameter.ends) - 1.0)
        values = [places.get(_key(setting), low) for setting in settings]
        ticks: dict[str, list[Any]] = {
            "tickvals": list(places.values()),
            "ticktext": [html.escape(format_value(choice)) for choice in parameter.ends],
        }
    else:
        low, high = (_scaled(end, parameter.log) for end in parameter.ends)
        values = [
            _scaled(setting, parameter.log) if setting is not None else low for setting in settings
        ]
        ticks = _number_ticks(low, high, log=parameter.log)
    if not all(present):
        unused = low - 0.14 * (high - low) if parameter.kind != "categorical" else low - 1.0
        values = [value if there else unused for value, there in zip(values, present, strict=True)]
        ticks = {
            "tickvals": [unused, *ticks["tickvals"]],
            "ticktext": [_UNUSED, *ticks["ticktext"]],
        }
        low = unused
    return {"label": _axis_label(parameter), "values": values, "range": [low, high], **ticks}


def _number_ticks(low: float, high: float, *, log: bool) -> dict[str, list[Any]]:
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


def _scaled(value: Scalar, log: bool) -> float:
    number = float(value) if value is not None else 0.0
    return math.log10(number) if log else number


def _key(value: Scalar) -> str:
    # True == 1 in Python, but not as choices.
    return f"{type(value).__name__} {value}"


def _upper_quartile(values: Sequence[float]) -> float:
    """Where the colours end, so that bad trials do not use them up."""
    return statistics.quantiles(values, n=4)[2] if len(values) > 1 else max(values, default=1.0)


def _axis_label(parameter: SearchedParameter) -> str:
    """At most two short lines: the end of the path, then the branches or the path's beginning."""
    parts = parameter.path.split("/")
    if parameter.branches:
        return (
            html.escape("/".join(parts[-2:]))
            + f"<br>({html.escape(', '.join(parameter.branches))})"
        )
    head, tail = "/".join(parts[:-1]), parts[-1]
    return html.escape(f"{head}/") + f"<br>{html.escape(tail)}" if head else html.escape(tail)
