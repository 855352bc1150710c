"""What the report says, section by section."""

import platform
import re
import shlex
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from gerbil_tune import __version__
from gerbil_tune.evaluation.results import COLUMNS, EvaluationResult, format_row
from gerbil_tune.search.report_page import (
    DASH,
    Cell,
    ReportFigure,
    columns,
    commands,
    figure_block,
    key_value_table,
    number_cell,
    paragraph,
    scroll,
    section,
    table,
    text_cell,
    tiles,
)
from gerbil_tune.search.report_study import (
    SearchedParameter,
    State,
    StudyView,
    TrialRecord,
    format_value,
    metric_title,
)

Figures = Mapping[str, ReportFigure]

_NOT_METRICS = frozenset({"epoch", "training_done", "best_value"})
_SHOWN_ELSEWHERE = frozenset({"metric", "champion", "champion_uri", "bundle", "registered_bundle"})
_REGISTRY_URI = re.compile(r"models:/(?P<name>[^/@]+)/(?P<version>\d+)")
_CLOSED: tuple[State, ...] = ("complete", "pruned", "failed")
_STATES: tuple[State, ...] = (*_CLOSED, "running")
_FIGURES = "columns figures"


def overview(view: StudyView) -> str:
    """The study in four numbers."""
    counts = {state: len(view.in_state(state)) for state in _STATES}
    best = view.champion
    seconds = sum(trial.seconds or 0.0 for trial in view.trials)
    return tiles(
        (
            (
                DASH if best is None or best.objective is None else f"{best.objective:.4g}",
                f"best {view.metric_title}",
            ),
            (
                str(sum(counts[state] for state in _CLOSED)),
                "trials: " + ", ".join(f"{n} {state}" for state, n in counts.items() if n),
            ),
            (format_duration(seconds), "of training, all trials together"),
            (
                DASH
                if view.wall_clock is None
                else format_duration(view.wall_clock.total_seconds()),
                "from the first start to the last end",
            ),
        )
    )


def best_model(view: StudyView) -> str:
    """The champion's card."""
    champion = view.champion
    if champion is None:
        return section("best", "Best model", paragraph("No trial has been completed yet."))
    names = {parameter.name: parameter for parameter in view.parameters}
    settings = [
        (names[name].path if name in names else name, format_value(value))
        for name, value in champion.parameters.items()
    ]
    metrics = [
        (metric_title(name), f"{value:.4g}")
        for name, value in champion.metrics.items()
        if name not in _NOT_METRICS and isinstance(value, int | float)
    ]
    uri, bundle = (
        str(view.attributes.get("champion_uri", "")),
        str(view.attributes.get("bundle", "")),
    )
    where = [
        ("trial", str(champion.number)),
        ("registered model", uri or "not registered yet"),
        ("bundle", bundle or "not exported yet"),
    ]
    left = f"<h3>Its settings</h3>{key_value_table(settings)}"
    right = f"<h3>Where it is</h3>{key_value_table(where)}"
    if metrics:
        right += f"<h3>At its last epoch</h3>{key_value_table(metrics)}"
    objective = "" if champion.objective is None else f": {champion.objective:.4g}"
    summary = paragraph(f"Trial {champion.number} has the best {view.metric_title}{objective}.")
    card = scroll(summary + columns(left, right), css="card")
    return section("best", "Best model", card)


def evaluation(
    view: StudyView,
    study_dir: Path,
    result: EvaluationResult | None,
    problem: str,
    figures: Figures,
) -> str:
    """How good the champion is on events that nothing has seen, beside the baselines."""
    if result is None:
        missing = problem or (
            "Not evaluated yet. These commands compare the best model with the baselines (a constant, and "
            "SRP-PHAT beamforming) on test events, and add the error map, predicted against true "
            "locations, the calibration curve and the distribution of errors here:"
        )
        return section(
            "evaluation",
            "How good it is",
            paragraph(missing),
            commands(*_evaluate_commands(view, study_dir)),
        )
    count = len(result.locations_mm_NKD)
    about = (
        f"{count} events of {result.data_path}. The maps below are of {result.methods[-1].name}."
    )
    reading = (
        "NLL: negative log-likelihood of the true location, lower is better. Calibration error: mean "
        "distance of the calibration curve from the diagonal, 0 is perfect. 95 % coverage: how many true "
        "locations lie in the regions that state 95 %. A dash: the method states no uncertainty."
    )
    return section(
        "evaluation",
        "How good it is",
        paragraph(about),
        scroll(_methods_table(result)),
        paragraph(reading, "note"),
        columns(
            figure_block(figures["error_map"]), figure_block(figures["error_cdf"]), css=_FIGURES
        ),
        columns(
            figure_block(figures["calibration_curve"]),
            figure_block(figures["predicted_vs_true"]),
            css=_FIGURES,
        ),
    )


def _methods_table(result: EvaluationResult) -> str:
    headings = ("method", *(title for title, _ in COLUMNS))
    rows = [
        (
            [text_cell(row.name)]
            + [Cell(DASH if text == "-" else text, css="number") for text in format_row(row)],
            row.name == result.methods[-1].name,
        )
        for row in result.rows()
    ]
    return table(headings, rows, classes=dict.fromkeys(range(1, len(headings)), "number"))


def search_course(view: StudyView, figures: Figures) -> str:
    """What happened, trial by trial and epoch by epoch."""
    if "history" not in figures:
        return section("search", "The search", paragraph("No trial has reported a result yet."))
    blocks = [
        figure_block(figures[name]) for name in ("history", "learning_curves") if name in figures
    ]
    return section("search", "The search", columns(*blocks, css=_FIGURES), _time_spent(view))


def what_mattered(why_not: str, figures: Figures) -> str:
    """Importance of the parameters, and all trials at a glance."""
    content = [paragraph(why_not)] if why_not else []
    names = ("importance", "parallel_coordinates")
    content += [figure_block(figures[name]) for name in names if name in figures]
    if "parallel_coordinates" not in figures:
        content.append(paragraph("Parallel coordinates need at least two complete trials."))
    return section("importance", "What mattered", *content)


def what_was_searched(view: StudyView) -> str:
    """The space as the trials met it."""
    best = view.champion.parameters if view.champion is not None else {}
    rows = [
        (
            [
                text_cell(parameter.path),
                text_cell(", ".join(parameter.branches) or "always", css=""),
                text_cell(_range_text(parameter), css=""),
                text_cell(
                    format_value(best[parameter.name]) if parameter.name in best else DASH, css=""
                ),
                number_cell(parameter.num_trials, "d"),
            ],
            False,
        )
        for parameter in view.parameters
    ]
    headings = ("setting", "exists in", "values", "best trial", "trials")
    return section(
        "space",
        "What was searched",
        scroll(table(headings, rows, classes={4: "number"})),
        paragraph(
            "All other settings were the same in all trials; the study.yaml beside this page has them."
        ),
    )


def all_trials(view: StudyView) -> str:
    """The sortable table."""
    paths = list(dict.fromkeys(parameter.path for parameter in view.parameters))
    headings = ("trial", "state", view.metric_title, "epochs", "time", *paths, "note")
    rows = [(_trial_cells(trial, paths), trial is view.champion) for trial in view.trials]
    classes = dict.fromkeys((0, 2, 3, 4), "number") | dict.fromkeys(
        range(5, 5 + len(paths)), "setting"
    )
    return section(
        "trials",
        "All trials",
        paragraph(
            "Click a heading to sort. A pruned trial shows its best epoch. Paper leaves the settings out.",
            "note",
        ),
        scroll(table(headings, rows, sortable=True, classes=classes), css="tall"),
    )


def provenance(view: StudyView, study_dir: Path) -> str:
    """From what this page and the study were made."""
    pairs = [("study", view.name), ("folder", str(study_dir))]
    pairs += [
        (name.replace("_", " "), str(value))
        for name, value in sorted(view.attributes.items())
        if name not in _SHOWN_ELSEWHERE and isinstance(value, str | int | float)
    ]
    pairs += [
        ("gerbil_tune", __version__),
        ("optuna", version("optuna")),
        ("python", platform.python_version()),
        ("page written", time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())),
    ]
    return section("provenance", "Provenance", key_value_table(pairs))


def next_commands(view: StudyView, study_dir: Path) -> str:
    """What to do now."""
    uri = str(view.attributes.get("champion_uri", ""))
    match = _REGISTRY_URI.fullmatch(uri)
    model = shlex.quote(uri or str(view.attributes.get("bundle", "")) or "MODEL")
    content = []
    if view.champion is not None:
        content += [
            paragraph("Locate the calls of new recordings:"),
            commands(f"gerbil-tune predict --model {model} --data RECORDING.h5 -o predictions.h5"),
            paragraph("Compare it with the baselines on test events, then write this page anew:"),
            commands(*_evaluate_commands(view, study_dir)),
        ]
    if match is not None:
        name = shlex.quote(match["name"])
        content += [
            paragraph(
                "Make it the lab's champion, so that models:/NAME@champion means this version:"
            ),
            commands(f"gerbil-tune promote {name} {match['version']}"),
        ]
    content += [
        paragraph(
            "Search on: the same gerbil-tune search command, with a larger --trials, continues this study."
        )
    ]
    return section("next", "Next", *content)


def format_duration(seconds: float) -> str:
    """A duration in its two largest units."""
    total = round(seconds)
    if total < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{total} s"
    minutes, rest = divmod(total, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def _evaluate_commands(view: StudyView, study_dir: Path) -> tuple[str, str]:
    model = str(view.attributes.get("champion_uri") or view.attributes.get("bundle") or "MODEL")
    output = shlex.quote(str(study_dir / "evaluation.h5"))
    return (
        f"gerbil-tune evaluate --model {shlex.quote(model)} --data TEST.h5 -o {output}",
        f"gerbil-tune report {shlex.quote(str(study_dir))}",
    )


def _time_spent(view: StudyView) -> str:
    rows = []
    for state in _CLOSED:
        trials = view.in_state(state)
        if trials:
            rows.append((_time_cells(state, trials), False))
    headings = ("trials that ended", "number", "epochs", "time", "mean time")
    return "<h3>Time spent</h3>" + scroll(
        table(headings, rows, classes=dict.fromkeys((1, 2, 3, 4), "number"))
    )


def _time_cells(state: str, trials: Sequence[TrialRecord]) -> list[Cell]:
    seconds = sum(trial.seconds or 0.0 for trial in trials)
    epochs = sum(len(trial.curve) for trial in trials)
    return [
        text_cell(state),
        number_cell(len(trials), "d"),
        number_cell(epochs, "d"),
        number_cell(seconds, text=format_duration(seconds)),
        number_cell(seconds / len(trials), text=format_duration(seconds / len(trials))),
    ]


def _range_text(parameter: SearchedParameter) -> str:
    if parameter.kind == "categorical":
        return ", ".join(format_value(choice) for choice in parameter.ends)
    low, high = (format_value(end) for end in parameter.ends)
    return f"{low} to {high}{', log scale' if parameter.log else ''}"


def _trial_cells(trial: TrialRecord, paths: Sequence[str]) -> list[Cell]:
    settings = {name.partition("@")[0]: value for name, value in trial.parameters.items()}
    seconds = trial.seconds
    duration = "" if seconds is None else format_duration(seconds)
    cells = [
        number_cell(trial.number, "d"),
        text_cell(trial.state, css="failed" if trial.state == "failed" else ""),
        number_cell(trial.objective),
        number_cell(len(trial.curve), "d"),
        number_cell(seconds, text=duration),
    ]
    for path in paths:
        if path not in settings:
            cells.append(Cell("", "", "setting"))
            continue
        value = settings[path]
        plain = isinstance(value, int | float) and not isinstance(value, bool)
        text = format_value(value)
        cells.append(Cell(text, value if plain else text, "setting"))
    cells.append(text_cell(trial.reason, css="reason"))
    return cells
