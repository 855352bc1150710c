"""The table of all trials."""

from collections.abc import Mapping, Sequence

from gerbil_tune.pages.pieces import (
    Cell,
    number_cell,
    paragraph,
    scroll,
    section,
    table,
    text_cell,
)
from gerbil_tune.search.report_study import (
    STATE_WORDS,
    Scalar,
    StudyView,
    TrialRecord,
    format_value,
    metric_title,
)
from gerbil_tune.units import format_duration

_NO_SETTING = Cell("", "", "setting")


def all_trials(view: StudyView) -> str:
    """The sortable table."""
    paths = list(dict.fromkeys(parameter.path for parameter in view.parameters))
    lines = family_lines(view.trials)
    further = view.objectives[1:]
    fixed = ["trial", "state", view.metric_title, *map(metric_title, further), "epochs", "time"]
    if lines:
        fixed.append("line")
    rows = [
        (_trial_cells(trial, paths, len(further), lines), trial is view.champion)
        for trial in view.trials
    ]
    numbers = [column for column in range(len(fixed)) if fixed[column] not in ("state", "line")]
    settings = range(len(fixed), len(fixed) + len(paths))
    about = "Click a heading to sort. A trial that is not complete shows its best epoch."
    if lines:
        about += " Line: the trials whose copies led to this one, the first member first."
    return section(
        "trials",
        "All trials",
        paragraph(f"{about} Paper leaves the settings out.", "note"),
        scroll(
            table(
                (*fixed, *paths, "note"),
                rows,
                sortable=True,
                classes=dict.fromkeys(numbers, "number") | dict.fromkeys(settings, "setting"),
            ),
            css="tall",
        ),
    )


def family_lines(trials: Sequence[TrialRecord]) -> dict[int, str]:
    """The trials that each copy descends from, as ``0 > 4 > 9``; empty where none is a copy."""
    parents = {trial.number: trial.parent for trial in trials}
    lines = {}
    for trial in trials:
        line, parent = [trial.number], trial.parent
        while parent is not None and parent not in line:
            line.append(parent)
            parent = parents.get(parent)
        if len(line) > 1:
            lines[trial.number] = " > ".join(map(str, reversed(line)))
    return lines


def _trial_cells(
    trial: TrialRecord, paths: Sequence[str], num_further: int, lines: Mapping[int, str]
) -> list[Cell]:
    seconds = trial.seconds
    further = trial.values[1:] or (None,) * num_further
    cells = [
        number_cell(trial.number, "d"),
        text_cell(
            STATE_WORDS.get(trial.state, trial.state),
            css="failed" if trial.state == "failed" else "",
        ),
        number_cell(trial.objective),
        *map(number_cell, further),
        number_cell(trial.last_epoch, "d"),
        number_cell(seconds, text="" if seconds is None else format_duration(seconds)),
    ]
    if lines:
        cells.append(text_cell(lines.get(trial.number, ""), css=""))
    settings = {name.partition("@")[0]: value for name, value in trial.parameters.items()}
    cells += [_setting_cell(settings[path]) if path in settings else _NO_SETTING for path in paths]
    return [*cells, text_cell(trial.reason, css="reason")]


def _setting_cell(value: Scalar) -> Cell:
    text = format_value(value)
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return Cell(text, value if plain else text, "setting")
