"""What the report says, section by section; those with sums of their own are modules of their own."""

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from gerbil_tune.evaluation.results import COLUMNS, EvaluationResult, TableRow, format_row
from gerbil_tune.pages.pieces import (
    DASH,
    Cell,
    PageFigure,
    columns,
    commands,
    figure_block,
    gradient,
    key_value_table,
    link,
    number_cell,
    paragraph,
    scroll,
    section,
    table,
    text_cell,
    tiles,
)
from gerbil_tune.search.report_slices import TRIAL_COLOURS
from gerbil_tune.search.report_study import (
    CLOSED,
    STATE_WORDS,
    SearchedParameter,
    StudyView,
    TrialRecord,
    format_value,
    metric_title,
)
from gerbil_tune.units import format_duration

Figures = Mapping[str, PageFigure]

_NOT_METRICS = frozenset({"epoch", "training_done", "best_value"})
_REGISTRY_URI = re.compile(r"models:/(?P<name>[^/@]+)/(?P<version>\d+)")
_FIGURES = "columns figures"
_NOT_EVALUATED = (
    "Not evaluated yet. These commands compare the best model with the baselines (a constant, and SRP-PHAT "
    "beamforming) on test events, and add the error map, predicted against true locations, the calibration "
    "curve and the distribution of errors here:"
)
_EVALUATION_PAGE = (
    "The page of this evaluation: with intervals, by session, call length, signal-to-noise ratio and place, "
    "and the worst events"
)
EVALUATION_FILE = "evaluation.h5"
"""In the study's folder; a page of the same name may be beside it."""
SLICE = "slice_"


def overview(view: StudyView) -> str:
    """The study in four numbers."""
    best = view.champion
    seconds = sum(trial.seconds or 0.0 for trial in view.trials)
    return tiles(
        (
            (
                DASH if best is None or best.objective is None else f"{best.objective:.4g}",
                f"best {view.metric_title}",
            ),
            (str(len(view.closed)), f"trials are over: {_states(view)}"),
            (format_duration(seconds), "of training, all trials together"),
            (
                format_duration(view.searched_s) if view.searched_s else DASH,
                f"of searching, in {len(view.runs)} runs" if len(view.runs) > 1 else "of searching",
            ),
        )
    )


def _states(view: StudyView) -> str:
    """How many trials ended how, and apart from them those that have not ended or were not run."""
    counts = view.count()
    over, rest = (
        ", ".join(
            f"{number} {STATE_WORDS.get(state, state)}"
            for state, number in counts.items()
            if (state in CLOSED) == are_over
        )
        for are_over in (True, False)
    )
    return (over or "none yet") + (f"; besides: {rest}" if rest else "")


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
    where = [
        ("trial", str(champion.number)),
        ("registered model", str(view.attributes.get("champion_uri") or "not registered yet")),
        ("bundle", str(view.attributes.get("bundle") or "not exported yet")),
    ]
    left = f"<h3>Its settings</h3>{key_value_table(settings)}"
    right = f"<h3>Where it is</h3>{key_value_table(where)}{_metrics(champion)}"
    objective = "" if champion.objective is None else f": {champion.objective:.4g}"
    summary = paragraph(f"Trial {champion.number} has the best {view.metric_title}{objective}.")
    card = scroll(summary + columns(left, right), css="card")
    return section("best", "Best model", card, _trained_whole(view))


def _metrics(champion: TrialRecord) -> str:
    metrics, title = champion.best_metrics, "At its best epoch"
    if not metrics:
        metrics, title = champion.metrics, "At its last epoch"
    pairs = [
        (metric_title(name), f"{value:.4g}")
        for name, value in metrics.items()
        if name not in _NOT_METRICS and isinstance(value, int | float)
    ]
    return f"<h3>{title}</h3>{key_value_table(pairs)}" if pairs else ""


def _trained_whole(view: StudyView) -> str:
    """The final trainings of the best trials, and how they compare."""
    refits = view.attributes.get("refits", [])
    if not refits:
        return ""
    rows = [
        (
            [
                number_cell(refit["trial"], "d"),
                number_cell(refit["epochs"], "d"),
                text_cell(refit["bundle"] or f"failed: {refit['reason']}"),
            ],
            refit["bundle"] == view.attributes.get("bundle"),
        )
        for refit in refits
    ]
    headings = ("trial", "epochs", "bundle")
    content = [scroll(table(headings, rows, classes=dict.fromkeys((0, 1), "number")))]
    selection = view.attributes.get("selection", {})
    compared = [TableRow(**row) for row in selection.get("rows", [])]
    if compared:
        about = f"Compared on {selection['events']} {selection['compared_on']} events:"
        content += [paragraph(about), scroll(_methods_table(compared, ""))]
    content += map(paragraph, selection.get("sentences", []))
    return "<h3>Trained whole</h3>" + "".join(content)


def evaluation(
    view: StudyView,
    study_dir: Path,
    result: EvaluationResult | None,
    problem: str,
    figures: Figures,
) -> str:
    """How good the champion is on events that nothing has seen, beside the baselines."""
    if result is None:
        missing = problem or _NOT_EVALUATED
        return section(
            "evaluation",
            "How good it is",
            paragraph(missing),
            commands(*_evaluate_commands(view, study_dir)),
        )
    page = (study_dir / EVALUATION_FILE).with_suffix(".html")
    more = [link(page.name, _EVALUATION_PAGE)] if page.is_file() else []
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
        *more,
        scroll(_methods_table(result.rows(), result.methods[-1].name)),
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


def _methods_table(rows: Sequence[TableRow], best: str) -> str:
    headings = ("method", *(title for title, _ in COLUMNS))
    cells = [
        (
            [text_cell(row.name)]
            + [Cell(DASH if text == "-" else text, css="number") for text in format_row(row)],
            row.name == best,
        )
        for row in rows
    ]
    return table(headings, cells, classes=dict.fromkeys(range(1, len(headings)), "number"))


def search_course(view: StudyView, figures: Figures) -> str:
    """What happened, trial by trial and epoch by epoch."""
    names = [name for name in ("history", "learning_curves") if name in figures]
    if not names:
        return section("search", "The search", paragraph("No trial has reported a result yet."))
    blocks = [figure_block(figures[name]) for name in names]
    return section("search", "The search", columns(*blocks, css=_FIGURES))


def what_mattered(view: StudyView, why_not: str, figures: Figures) -> str:
    """Importance of the parameters, all trials at a glance, and the objective against each parameter."""
    content = [paragraph(why_not)] if why_not else []
    names = ("importance", "parallel_coordinates")
    content += [figure_block(figures[name]) for name in names if name in figures]
    if "parallel_coordinates" not in figures:
        content.append(paragraph("Parallel coordinates need at least two complete trials."))
    slices = [figure_block(figures[name]) for name in figures if name.startswith(SLICE)]
    if slices:
        content += [
            "<h3>Slices</h3>",
            paragraph(
                f"The {view.metric_title} against each setting{_left_out(view, len(slices))}. Filled: "
                "complete; open: stopped early, at its best epoch; ring: the best trial. A cloud that "
                "sinks to one side says where to search on; late trials show where the search went.",
                "note",
            ),
            gradient("first trial", TRIAL_COLOURS, "last trial"),
            f'<div class="slices">{"".join(slices)}</div>',
        ]
    return section("importance", "What mattered", *content)


def _left_out(view: StudyView, shown: int) -> str:
    total = len(view.parameters)
    return "" if shown == total else f", the {shown} most important of {total}"


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


def _evaluate_commands(view: StudyView, study_dir: Path) -> tuple[str, str]:
    model = str(view.attributes.get("champion_uri") or view.attributes.get("bundle") or "MODEL")
    output = shlex.quote(str(study_dir / EVALUATION_FILE))
    return (
        f"gerbil-tune evaluate --model {shlex.quote(model)} --data TEST.h5 -o {output}",
        f"gerbil-tune report {shlex.quote(str(study_dir))}",
    )


def _range_text(parameter: SearchedParameter) -> str:
    if parameter.kind == "categorical":
        return ", ".join(format_value(choice) for choice in parameter.ends)
    low, high = (format_value(end) for end in parameter.ends)
    return f"{low} to {high}{', log scale' if parameter.log else ''}"
