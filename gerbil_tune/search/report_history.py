"""Figures of the course of a study: the result of each trial, and the learning curves.

The history can be read by trial, by epochs spent or by hours of searching; the page's script switches between
the places that the figure's layout carries in ``meta``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from gerbil_tune.evaluation.figures import LEGEND_BELOW, NEUTRAL, style
from gerbil_tune.search.report_figures import (
    BLUE,
    GREEN,
    ORANGE,
    RED,
    hover_text,
    set_objective_axis,
    whole_steps,
)
from gerbil_tune.search.report_runs import searched_hours
from gerbil_tune.search.report_study import StudyView, TrialRecord

Places = Mapping[int, float]
"""Where a trial stands on the x axis, by its number."""


def history(view: StudyView) -> Any:
    """Objective of each trial with the best so far, by trial, by epochs spent or by hours of searching.

    Failed trials have no objective; a cross at the upper edge marks them.
    """
    choices = [
        ("trials", "trial", {trial.number: float(trial.number) for trial in view.closed}),
        ("epochs", "epochs of all trials that had ended", _epochs_spent(view.closed)),
    ]
    if view.runs:
        hours = {t.number: searched_hours(t.ended, view.runs) for t in view.closed if t.ended}
        choices.append(("time", "hours of searching", hours))
    figure = go.Figure(_history_traces(view, choices[0][2]))
    figure.update_xaxes(title_text="trial", dtick=whole_steps(len(view.trials)))
    objectives = [trial.objective for trial in view.closed if trial.objective is not None]
    set_objective_axis(figure, view, objectives)
    hidden = {"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True}
    meta = {"choices": [_choice(view, *choice) for choice in choices]}
    return style(figure, height=400, **LEGEND_BELOW, yaxis2=hidden, meta=meta)


def learning_curves(view: StudyView) -> Any:
    """Objective by epoch of every trial, the champion's on top."""
    figure = go.Figure()
    champion = view.champion
    groups: tuple[tuple[str, str, float, list[TrialRecord]], ...] = (
        ("complete", BLUE, 0.5, view.in_state("complete")),
        ("pruned", ORANGE, 0.55, view.in_state("pruned")),
        ("failed", RED, 0.6, view.in_state("failed")),
        ("not over yet", NEUTRAL, 0.8, view.in_state("running", "paused", "interrupted")),
    )
    for name, color, opacity, trials in groups:
        drawn = [trial for trial in trials if trial.curve and trial is not champion]
        if drawn:
            _add_curves(figure, drawn, name, opacity, {"color": color, "width": 1.25})
    if champion is not None and champion.curve:
        name = f"best trial ({champion.number})"
        _add_curves(figure, [champion], name, 1.0, {"color": GREEN, "width": 3.5})
    epochs = max((trial.last_epoch for trial in view.trials), default=1)
    figure.update_xaxes(title_text="epoch", dtick=whole_steps(epochs))
    set_objective_axis(figure, view, [value for trial in view.trials for _, value in trial.curve])
    return style(figure, height=400, **LEGEND_BELOW)


def _choice(view: StudyView, label: str, title: str, places: Places) -> dict[str, Any]:
    traces = _history_traces(view, places)
    return {
        "label": label,
        "title": title,
        "x": [list(trace.x) for trace in traces],
        "y": [list(trace.y) for trace in traces],
    }


def _history_traces(view: StudyView, places: Places) -> list[Any]:
    placed = [trial for trial in view.closed if trial.number in places]
    judged = [trial for trial in placed if trial.objective is not None]
    complete = [trial for trial in judged if trial.state == "complete"]
    pruned = [trial for trial in judged if trial.state == "pruned"]
    failed = [trial for trial in placed if trial.state == "failed"]
    open_marker = {"color": ORANGE, "size": 8, "symbol": "diamond-open"}
    traces = [
        _points(complete, places, "complete", {"color": BLUE, "size": 8}),
        _points(pruned, places, "pruned", open_marker),
        _crosses(failed, places),
        _best_so_far(complete, places),
    ]
    if view.champion is not None and view.champion in complete:
        ring = {"color": GREEN, "size": 17, "symbol": "circle-open", "line": {"width": 3}}
        traces.append(_points([view.champion], places, "best trial", ring))
    return traces


def _points(
    trials: Sequence[TrialRecord], places: Places, name: str, marker: dict[str, Any]
) -> Any:
    return go.Scatter(
        x=[places[trial.number] for trial in trials],
        y=[trial.objective for trial in trials],
        mode="markers",
        marker=marker,
        name=name,
        text=[hover_text(trial) for trial in trials],
        hovertemplate="%{text}<extra></extra>",
        visible=bool(trials),
    )


def _crosses(trials: Sequence[TrialRecord], places: Places) -> Any:
    return go.Scatter(
        x=[places[trial.number] for trial in trials],
        y=[0.97] * len(trials),
        yaxis="y2",
        mode="markers",
        marker={"color": RED, "size": 9, "symbol": "x-thin", "line": {"width": 2, "color": RED}},
        name="failed",
        text=[hover_text(trial) for trial in trials],
        hovertemplate="%{text}<extra></extra>",
        visible=bool(trials),
    )


def _best_so_far(complete: Sequence[TrialRecord], places: Places) -> Any:
    in_order = sorted(complete, key=lambda trial: places[trial.number])
    best: list[float] = []
    for trial in in_order:
        best.append(min([*best[-1:], trial.values[0]]))
    last = max(places.values(), default=0.0)
    return go.Scatter(
        x=[places[trial.number] for trial in in_order] + [last] * bool(best),
        y=best + best[-1:],
        mode="lines",
        line={"color": GREEN, "width": 2.5, "shape": "hv"},
        name="best so far",
        hovertemplate="best so far %{y:.4g}<extra></extra>",
        visible=bool(best),
    )


def _epochs_spent(trials: Sequence[TrialRecord]) -> dict[int, float]:
    """Epochs of all trials that had ended by the end of each."""
    ended = sorted(trials, key=lambda trial: (trial.ended is None, trial.ended, trial.number))
    spent, places = 0, {}
    for trial in ended:
        spent += len(trial.curve)
        places[trial.number] = float(spent)
    return places


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
