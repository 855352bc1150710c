"""Slices: the objective against each parameter, one small figure each, coloured by the order of trials."""

import html
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from gerbil_tune.evaluation.figures import style
from gerbil_tune.search.report_figures import GREEN, hover_text, log_axis
from gerbil_tune.search.report_study import SearchedParameter, StudyView, TrialRecord, format_value

TRIAL_COLOURS = ("#a9bfdf", "#5c6fc4", "#d0581a")
"""Of the first trial, the middle one and the last; readable on white and on black."""
_MAX_SLICES = 12
_LOG_RATIO = 3.0


def sliced_parameters(view: StudyView, order: Sequence[str]) -> list[SearchedParameter]:
    """The parameters that get a figure: the most important ones first, and no more than a page bears."""
    rank = {name: place for place, name in enumerate(order)}
    ranked = sorted(view.parameters, key=lambda parameter: rank.get(parameter.name, len(rank)))
    return ranked[:_MAX_SLICES]


def value_slice(view: StudyView, parameter: SearchedParameter) -> Any:
    """The objective against one parameter: filled circles are complete, open diamonds stopped early."""
    tried = [t for t in view.in_state("complete", "pruned") if t.objective is not None]
    figure = go.Figure()
    for state, symbol in (("pruned", "diamond-open"), ("complete", "circle")):
        trials = [t for t in tried if t.state == state and parameter.name in t.parameters]
        _add_trials(figure, parameter, trials, symbol, len(view.trials))
    champion = view.champion
    if champion in tried and champion is not None and parameter.name in champion.parameters:
        ring = {"color": GREEN, "size": 15, "symbol": "circle-open", "line": {"width": 3}}
        places = [_place(parameter, champion)]
        figure.add_scatter(x=places, y=[champion.objective], marker=ring, hoverinfo="skip")
    _set_parameter_axis(figure, parameter)
    objectives = [t.objective for t in tried if t.objective is not None]
    if objectives and min(objectives) > 0 and max(objectives) > _LOG_RATIO * min(objectives):
        # Trials that were stopped early would press the good ones to the floor.
        figure.update_yaxes(**log_axis(0.85 * min(objectives), 1.1 * max(objectives)))
    figure.update_traces(mode="markers", showlegend=False)
    return style(figure, height=220, margin={"l": 44, "r": 12, "t": 12, "b": 40})


def _add_trials(
    figure: Any,
    parameter: SearchedParameter,
    trials: Sequence[TrialRecord],
    symbol: str,
    num_trials: int,
) -> None:
    figure.add_scatter(
        x=[_place(parameter, trial) for trial in trials],
        y=[trial.objective for trial in trials],
        marker={
            "color": [trial.number for trial in trials],
            "colorscale": [[place / 2, colour] for place, colour in enumerate(TRIAL_COLOURS)],
            "cmin": 0,
            "cmax": max(1, num_trials - 1),
            "size": 7,
            "symbol": symbol,
        },
        text=[hover_text(trial) for trial in trials],
        hovertemplate="%{text}<extra></extra>",
    )


def _place(parameter: SearchedParameter, trial: TrialRecord) -> Any:
    value = trial.parameters[parameter.name]
    return _choice_text(value) if parameter.kind == "categorical" else value


def _set_parameter_axis(figure: Any, parameter: SearchedParameter) -> None:
    if parameter.kind == "categorical":
        choices = [_choice_text(choice) for choice in parameter.ends]
        figure.update_xaxes(
            type="category",
            categoryorder="array",
            categoryarray=choices,
            range=[-0.5, len(choices) - 0.5],
        )
    elif parameter.log:
        low, high = (float(end or 0.0) for end in parameter.ends)
        figure.update_xaxes(**log_axis(low, high))
    else:
        figure.update_xaxes(nticks=6)


def _choice_text(value: Any) -> str:
    return html.escape(format_value(value))
