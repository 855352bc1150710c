"""The Pareto front of a study of several objectives: its trials, figures and table."""

import html
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from gerbil_tune.evaluation.figures import LEGEND_BELOW, NEUTRAL, style
from gerbil_tune.pages.pieces import (
    Cell,
    PageFigure,
    columns,
    commands,
    figure_block,
    number_cell,
    paragraph,
    scroll,
    section,
    table,
)
from gerbil_tune.search.report_figures import BLUE, GREEN, ORANGE, hover_text, wants_log_axis
from gerbil_tune.search.report_study import StudyView, TrialRecord, metric_title

PREFIX = "pareto_"
"""Of the names of its figures."""


def pareto(
    view: StudyView,
    front: Sequence[TrialRecord],
    configs: Mapping[int, Path],
    figures: Mapping[str, PageFigure],
) -> str:
    """The trials that no other beats in everything; nothing where there is one objective."""
    if len(view.objectives) == 1:
        return ""
    title = "Pareto front"
    if not front:
        return section("pareto", title, paragraph("No trial has been completed yet."))
    rows = [(_front_cells(trial), trial is view.champion) for trial in front]
    headings = ("trial", *map(metric_title, view.objectives), "epochs")
    blocks = [figure_block(figure) for name, figure in figures.items() if name.startswith(PREFIX)]
    number = front[0].number
    config = shlex.quote(str(configs[number])) if number in configs else "CONFIG"
    return section(
        "pareto",
        title,
        paragraph(
            f"{len(front)} of {len(view.in_state('complete'))} complete trials are on the front: each other "
            "trial is beaten by one of them in every objective, or equalled.",
            "note",
        ),
        columns(*blocks, css="columns figures"),
        scroll(
            table(headings, rows, sortable=True, classes=_all_numbers(headings)), css="tall short"
        ),
        paragraph(
            "The bundle of a trial comes from training its configuration whole. The files are beside this "
            f"page, one for each trial of the front; for trial {number}:"
        ),
        commands(f"gerbil-tune train --config {config} --data DATA"),
    )


def _front_cells(trial: TrialRecord) -> list[Cell]:
    return [
        number_cell(trial.number, "d"),
        *map(number_cell, trial.values),
        number_cell(trial.last_epoch, "d"),
    ]


def _all_numbers(headings: Sequence[str]) -> dict[int, str]:
    return dict.fromkeys(range(len(headings)), "number")


def pareto_front(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Complete trials that no other beats in one objective without losing in another, by the first one."""
    candidates = sorted(
        (trial for trial in trials if trial.state == "complete"), key=lambda trial: trial.values
    )
    front: list[TrialRecord] = []
    for trial in candidates:
        # In this order only an earlier trial can dominate a later one.
        if not any(_dominates(better.values, trial.values) for better in front):
            front.append(trial)
    return front


def _dominates(better: Sequence[float], worse: Sequence[float]) -> bool:
    return better != worse and all(a <= b for a, b in zip(better, worse, strict=True))


def trade_off(view: StudyView, front: Sequence[TrialRecord], objective: int) -> Any:
    """The first objective against another, for all complete trials.

    Args:
        view: The study.
        front: Its Pareto front.
        objective: Place of the other objective.
    """
    complete = view.in_state("complete")
    numbers = {trial.number for trial in front}
    groups = (
        ("beaten in all", {"color": NEUTRAL, "size": 7, "opacity": 0.7}, "markers", False),
        ("Pareto front", {"color": ORANGE, "size": 9}, _front_mode(view), True),
    )
    figure = go.Figure()
    for name, marker, mode, on_front in groups:
        drawn = front if on_front else [t for t in complete if t.number not in numbers]
        _add_trials(figure, drawn, objective, name, mode=mode, marker=marker)
    if view.champion is not None and view.champion.values:
        ring = {"color": GREEN, "size": 17, "symbol": "circle-open", "line": {"width": 3}}
        _add_trials(figure, [view.champion], objective, "best trial", mode="markers", marker=ring)
    for axis, place in ((figure.update_xaxes, objective), (figure.update_yaxes, 0)):
        log = wants_log_axis([trial.values[place] for trial in complete])
        title = html.escape(metric_title(view.objectives[place]))
        axis(title_text=f"{title}, log scale" if log else title, type="log" if log else "linear")
    return style(figure, height=400, **LEGEND_BELOW)


def _front_mode(view: StudyView) -> str:
    """Joined by a line only where two objectives make the front a line."""
    return "lines+markers" if len(view.objectives) == 2 else "markers"


def _add_trials(
    figure: Any,
    trials: Sequence[TrialRecord],
    objective: int,
    name: str,
    *,
    mode: str,
    marker: dict[str, Any],
) -> None:
    figure.add_scatter(
        x=[trial.values[objective] for trial in trials],
        y=[trial.values[0] for trial in trials],
        name=name,
        mode=mode,
        marker=marker,
        # The edge of what the trials on the front beat.
        line={"color": BLUE, "width": 1.5, "shape": "vh"},
        text=[hover_text(trial) for trial in trials],
        hovertemplate="%{text}<extra></extra>",
        visible=bool(trials),
    )
