"""All complete trials at a glance: one line a trial through the values of its parameters."""

import html
import math
import statistics
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from gerbil_tune.evaluation.figures import NEUTRAL, style
from gerbil_tune.search.report_figures import BLUE, ORANGE, number_ticks
from gerbil_tune.search.report_study import (
    Scalar,
    SearchedParameter,
    StudyView,
    TrialRecord,
    format_value,
)

_UNUSED = "not used"


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
                "colorscale": [[0.0, ORANGE], [0.35, BLUE], [1.0, NEUTRAL]],
                "cmin": min(objectives, default=0.0),
                "cmax": _upper_quartile(objectives),
            },
        )
    )
    return style(figure, height=460, margin={"l": 70, "r": 70, "t": 76, "b": 24})


def _objective_dimension(view: StudyView, objectives: Sequence[float]) -> dict[str, Any]:
    low, high = min(objectives, default=0.0), max(objectives, default=1.0)
    return {
        "label": html.escape(view.metric_title).replace(" (", "<br>("),
        "values": list(objectives),
        "range": [low, high],
        **number_ticks(low, high, log=False),
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
        ticks = number_ticks(low, high, log=parameter.log)
    if not all(present):
        unused = low - 0.14 * (high - low) if parameter.kind != "categorical" else low - 1.0
        values = [value if there else unused for value, there in zip(values, present, strict=True)]
        ticks = {
            "tickvals": [unused, *ticks["tickvals"]],
            "ticktext": [_UNUSED, *ticks["ticktext"]],
        }
        low = unused
    return {"label": _axis_label(parameter), "values": values, "range": [low, high], **ticks}


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
