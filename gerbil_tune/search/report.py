"""The page about a study: what was tried, what mattered, how good the best model is, what to do next.

``report.html`` holds everything, plotly.js included, and needs no network. ``figures/`` has each figure as
a page of its own, all sharing one ``plotly.min.js``.
"""

import os
from collections.abc import Iterable
from html import escape
from pathlib import Path

import optuna
from plotly.offline import get_plotlyjs

from gerbil_tune.errors import DatasetError
from gerbil_tune.evaluation import figures as evaluation_figures
from gerbil_tune.evaluation.results import EvaluationResult
from gerbil_tune.search import report_figures as study_figures
from gerbil_tune.search import report_sections as sections
from gerbil_tune.search.report_page import ReportFigure, document, figure_block
from gerbil_tune.search.report_study import StudyView, importances, view_study

REPORT_FILE = "report.html"
EVALUATION_FILE = "evaluation.h5"
_PLOTLY_FILE = "plotly.min.js"
_CONTENTS = (
    ("best", "Best model"),
    ("evaluation", "How good it is"),
    ("search", "The search"),
    ("importance", "What mattered"),
    ("space", "What was searched"),
    ("trials", "All trials"),
    ("provenance", "Provenance"),
    ("next", "Next"),
)


def write_report(study_dir: Path, study: optuna.Study) -> Path:
    """Write ``report.html`` and ``figures/`` into a study's folder.

    Args:
        study_dir: The folder; an ``evaluation.h5`` in it is shown too.
        study: The study, in any state: running, empty, without a complete trial.

    Returns:
        Path of ``report.html``.
    """
    study_dir = Path(study_dir)
    view = view_study(study)
    shares, why_not = importances(study)
    result, problem = _load_evaluation(study_dir / EVALUATION_FILE)
    figures = {figure.name: figure for figure in _figures(view, shares, result)}
    links = " ".join(f'<a href="#{name}">{escape(title)}</a>' for name, title in _CONTENTS)
    body = "\n".join(
        (
            f"<header><h1>{escape(view.name)}</h1>",
            f'<p class="lead">{escape(_summary(view))}</p><nav>{links}</nav></header>',
            sections.overview(view),
            sections.best_model(view),
            sections.evaluation(view, study_dir, result, problem, figures),
            sections.search_course(view, figures),
            sections.what_mattered(why_not, figures),
            sections.what_was_searched(view),
            sections.all_trials(view),
            sections.provenance(view, study_dir),
            sections.next_commands(view, study_dir),
        )
    )
    plotly_script = f"<script>{get_plotlyjs()}</script>"
    _write_figures(study_dir / "figures", view.name, figures.values())
    page = document(f"{view.name}: study report", body, plotly_script)
    return _write(study_dir / REPORT_FILE, page)


def _summary(view: StudyView) -> str:
    closed = len(view.in_state("complete", "pruned", "failed"))
    direction = "lowest" if view.minimize else "highest"
    return (
        f"A search over {len(view.parameters)} settings in {closed} finished trials for the {direction} "
        f"{view.metric_title}."
    )


def _load_evaluation(path: Path) -> tuple[EvaluationResult | None, str]:
    """The evaluation, or None and what to tell the reader: the rest of the page is worth having."""
    if not path.exists():
        return None, ""
    try:
        return EvaluationResult.load(path), ""
    except DatasetError as error:
        return None, f"The evaluation cannot be shown: {error}."


def _figures(
    view: StudyView, shares: dict[str, float], result: EvaluationResult | None
) -> Iterable[ReportFigure]:
    if any(trial.objective is not None for trial in view.trials):
        yield ReportFigure("history", "Result of each trial", _HISTORY, study_figures.history(view))
    if any(trial.curve for trial in view.trials):
        figure = study_figures.learning_curves(view)
        yield ReportFigure("learning_curves", "Learning curves", _CURVES, figure)
    if shares:
        figure = study_figures.importance_bars(view, shares)
        yield ReportFigure("importance", "Importance of each setting", _IMPORTANCE, figure)
    if len(view.in_state("complete")) > 1:
        figure = study_figures.parallel_coordinates(view, tuple(shares))
        order = ", the most important first" if shares else ""
        width_px = 150 * (1 + len(view.parameters))
        title = "All complete trials at a glance"
        yield ReportFigure(
            "parallel_coordinates",
            title,
            _PARALLEL.format(order=order),
            figure,
            width_px,
            on_paper=False,
        )
    if result is not None:
        yield from _evaluation_figures(result)


def _evaluation_figures(result: EvaluationResult) -> Iterable[ReportFigure]:
    name = result.methods[-1].name
    yield ReportFigure(
        "error_map",
        f"Error over the arena: {name}",
        _ERROR_MAP,
        evaluation_figures.error_map(result),
    )
    yield ReportFigure(
        "error_cdf", "Distribution of errors", _ERROR_CDF, evaluation_figures.error_cdf(result)
    )
    yield ReportFigure(
        "calibration_curve",
        "Is the stated uncertainty true?",
        _CALIBRATION,
        evaluation_figures.calibration_curve(result),
    )
    yield ReportFigure(
        "predicted_vs_true",
        f"Predicted against true location: {name}",
        _PREDICTED,
        evaluation_figures.predicted_vs_true(result),
        500,
    )


def _write_figures(folder: Path, study_name: str, figures: Iterable[ReportFigure]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / _PLOTLY_FILE, get_plotlyjs())
    for figure in figures:
        title = f"{study_name}: {figure.title}"
        script = f'<script src="{_PLOTLY_FILE}"></script>'
        _write(folder / f"{figure.name}.html", document(title, figure_block(figure), script))


def _write(path: Path, text: str) -> Path:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


_HISTORY = (
    "Each point is one trial. The line is the best result so far; where it has become flat, more trials no "
    "longer helped. Open diamonds were stopped early (pruned) and stand at their best epoch; crosses at the "
    "upper edge failed. Point at a trial to see its settings."
)
_CURVES = (
    "The objective on the validation events after each epoch, one line a trial. The thick line is the best "
    "trial: if it still improves at its end, longer training may help."
)
_IMPORTANCE = (
    "How much each setting decided whether a trial came among the best, as shares of 100 % (PED-ANOVA). "
    "A setting with a name in brackets exists only in that branch; shares below half a percent are left out. "
    "With few trials this is a hint, not a proof."
)
_PARALLEL = (
    "One line a complete trial, through the value of each of its settings{order}. Orange "
    "lines are the best trials. Drag along an axis to keep only the lines that pass there; click the axis "
    "to undo. A trial that does not have a setting passes through “not used”."
)
_ERROR_MAP = (
    "Median error by where the animal truly was; yellow cells are where the model is worst. The frame is "
    "the arena. Cells with fewer than 3 events are empty."
)
_ERROR_CDF = (
    "How many events were located within a distance of the truth. The farther up and left, the better; "
    "at 50 % stands the median error."
)
_CALIBRATION = (
    "Each prediction comes with regions that state how likely they hold the animal. On the diagonal that is "
    "true: of the regions that state 50 %, half hold it. Below the diagonal the model is too sure, above too "
    "cautious. A calibrated method stays within the grey band, but for chance."
)
_PREDICTED = (
    "One point a prediction. On the dashed line it is exact; a cloud that is flatter than the line means "
    "predictions drawn to the middle of the arena."
)
