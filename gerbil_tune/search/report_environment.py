"""Where a study ran and with what: its data, machine, versions and runs."""

import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from gerbil_tune import __version__
from gerbil_tune.pages.pieces import (
    DASH,
    columns,
    key_value_table,
    number_cell,
    scroll,
    section,
    table,
    text_cell,
)
from gerbil_tune.pages.writing import written_now
from gerbil_tune.search.report_study import StudyView
from gerbil_tune.units import format_duration

_SHOWN_ELSEWHERE = frozenset(
    {"metric", "champion", "champion_uri", "bundle", "registered_bundle", "is_champion", "spent_s"}
)


def environment(view: StudyView, study_dir: Path) -> str:
    """The section: where from, versions, and the runs of the command."""
    searched = view.attributes.get("environment", {})
    left = "<h3>Study</h3>" + key_value_table(_study_facts(view, study_dir))
    right = f"<h3>Machine of the search</h3>{key_value_table(_flat(searched))}"
    facts = columns(left, right) if searched else left
    return section("environment", "Environment", facts, _runs(view))


def _study_facts(view: StudyView, study_dir: Path) -> list[tuple[str, str]]:
    pairs = [("study", view.name), ("folder", str(study_dir))]
    pairs += [
        (name.replace("_", " "), str(value))
        for name, value in sorted(view.attributes.items())
        if name not in _SHOWN_ELSEWHERE and isinstance(value, str | int | float)
    ]
    return [
        *pairs,
        ("objectives", ", ".join(view.objectives)),
        (
            "page written with",
            f"gerbil_tune {__version__}, optuna {version('optuna')}, python {platform.python_version()}",
        ),
        ("page written", written_now()),
    ]


def _flat(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    pairs = []
    for name, value in facts.items():
        label = name.replace("_", " ")
        if isinstance(value, Mapping):
            pairs += [(f"{label} {inner}", text) for inner, text in _flat(value)]
        elif isinstance(value, list | tuple):
            pairs.append((label, ", ".join(map(str, value))))
        else:
            pairs.append((label, str(value)))
    return pairs


def _runs(view: StudyView) -> str:
    if not view.runs:
        return ""
    rows = []
    for run in view.runs:
        runs_now = run is view.runs[-1] and view.state == "running"
        status = "interrupted" if run.status == "running" and not runs_now else run.status
        length_s = (run.ended - run.started).total_seconds() if run.ended else None
        ended = DASH if run.ended is None or runs_now else f"{run.ended:%Y-%m-%d %H:%M}"
        cells = [
            text_cell(f"{run.started:%Y-%m-%d %H:%M}", css="date"),
            text_cell(ended, css="date"),
            text_cell(status, css=""),
            number_cell(length_s, text=format_duration(length_s or 0.0)),
            number_cell(run.cpus, "g"),
            number_cell(run.gpus, "g"),
            number_cell(run.trials_at_once, "d"),
        ]
        rows.append((cells, False))
    headings = ("started", "ended", "status", "time", "CPUs", "GPUs", "trials at a time")
    heads = dict.fromkeys(range(3, 7), "number")
    return "<h3>Runs of the search</h3>" + scroll(table(headings, rows, classes=heads))
