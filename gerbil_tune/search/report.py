"""The page about a study: what was tried, what mattered, how good the best model is, what to do next.

``report.html`` holds everything, plotly.js included, and needs no network. ``figures/`` has each figure as
a page of its own, all sharing one ``plotly.min.js``.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from html import escape
from pathlib import Path

import optuna
import yaml
from plotly.offline import get_plotlyjs

from gerbil_tune.config.load import set_paths
from gerbil_tune.errors import DatasetError
from gerbil_tune.evaluation.page_figures import comparing_figures, maps_of
from gerbil_tune.evaluation.results import EvaluationResult
from gerbil_tune.pages.pieces import PageFigure, document, figure_block, paragraph, plotly_inside
from gerbil_tune.pages.writing import write_text, written_now
from gerbil_tune.search import report_pareto
from gerbil_tune.search import report_sections as sections
from gerbil_tune.search.report_cost import cost
from gerbil_tune.search.report_environment import environment
from gerbil_tune.search.report_figures import importance_bars
from gerbil_tune.search.report_history import history, learning_curves
from gerbil_tune.search.report_importance import importances
from gerbil_tune.search.report_parallel import parallel_coordinates
from gerbil_tune.search.report_slices import sliced_parameters, value_slice
from gerbil_tune.search.report_stops import stops
from gerbil_tune.search.report_study import StudyView, TrialRecord, metric_title, view_study
from gerbil_tune.search.report_trials import all_trials
from gerbil_tune.search.storage import is_running

REPORT_FILE = "report.html"
PARETO_FOLDER = "pareto"
_PLOTLY_FILE = "plotly.min.js"
_CONTENTS = (
    ("best", "Best model"),
    ("evaluation", "How good it is"),
    ("search", "The search"),
    ("importance", "What mattered"),
    ("pareto", "Pareto front"),
    ("space", "What was searched"),
    ("stops", "What was stopped"),
    ("cost", "Cost"),
    ("trials", "All trials"),
    ("environment", "Environment"),
    ("next", "Next"),
)


def write_report(study_dir: Path, study: optuna.Study, *, reload_s: float | None = None) -> Path:
    """Write ``report.html`` and ``figures/`` into a study's folder.

    Args:
        study_dir: The folder; an ``evaluation.h5`` in it is shown too.
        study: The study, in any state: running, empty, without a complete trial.
        reload_s: After so long the page loads itself anew, until the search is over.

    Returns:
        Path of ``report.html``.
    """
    study_dir = Path(study_dir)
    view = view_study(study, locked=is_running(study_dir))
    if view.state != "running":
        reload_s = None
    shares, why_not = importances(study)
    result, problem = _load_evaluation(study_dir / sections.EVALUATION_FILE)
    front = report_pareto.pareto_front(view.trials)
    figures = {figure.name: figure for figure in _figures(view, shares, front, result)}
    configs = _write_configs(study_dir / PARETO_FOLDER, view, front)
    parts = (
        sections.overview(view),
        sections.best_model(view),
        sections.evaluation(view, study_dir, result, problem, figures),
        sections.search_course(view, figures),
        sections.what_mattered(view, why_not, figures),
        report_pareto.pareto(view, front, configs, figures),
        sections.what_was_searched(view),
        stops(view),
        cost(view),
        all_trials(view),
        environment(view, study_dir),
        sections.next_commands(view, study_dir),
    )
    body = "\n".join((_header(view, reload_s), *parts))
    _write_figures(study_dir / "figures", view.name, figures.values())
    page = document(f"{view.name}: study report", body, plotly_inside(), reload_s)
    return write_text(study_dir / REPORT_FILE, page)


def _header(view: StudyView, reload_s: float | None) -> str:
    links = " ".join(
        f'<a href="#{name}">{escape(title)}</a>'
        for name, title in _CONTENTS
        if name != "pareto" or len(view.objectives) > 1
    )
    lead = (
        f"A search over {len(view.parameters)} settings in {len(view.closed)} finished trials for the lowest "
        f"{view.metric_title}."
    )
    return (
        f"<header><h1>{escape(view.name)}</h1>{paragraph(lead, 'lead')}"
        f"{paragraph(_standing(view, reload_s), 'notice')}<nav>{links}</nav></header>"
    )


def _standing(view: StudyView, reload_s: float | None) -> str:
    """How the study stood when this page was written."""
    sentences = [f"Written at {written_now()}."]
    if view.state == "running":
        follows = (
            f"this page loads itself anew every {reload_s:g} s"
            if reload_s is not None
            else "gerbil-tune report with --watch 30 keeps this page up to date"
        )
        sentences.append(f"The search is running; {follows}.")
    elif view.state == "interrupted":
        sentences.append("The search was interrupted; the same command continues it.")
    elif view.state == "failed":
        sentences.append("The last run of the search ended with an error.")
    if not view.in_state("complete"):
        sentences.append("No trial is complete yet, so there is no best model.")
    return " ".join(sentences)


def _load_evaluation(path: Path) -> tuple[EvaluationResult | None, str]:
    """The evaluation, or None and what to tell the reader: the rest of the page is worth having."""
    if not path.exists():
        return None, ""
    try:
        return EvaluationResult.load(path), ""
    except DatasetError as error:
        return None, f"The evaluation cannot be shown: {error}."


def _figures(
    view: StudyView,
    shares: Mapping[str, float],
    front: Sequence[TrialRecord],
    result: EvaluationResult | None,
) -> Iterable[PageFigure]:
    if any(trial.objective is not None for trial in view.closed):
        yield PageFigure("history", "Result of each trial", _HISTORY, history(view))
    if any(trial.curve for trial in view.trials):
        yield PageFigure("learning_curves", "Learning curves", _CURVES, learning_curves(view))
    if shares:
        bars = importance_bars(view, shares)
        yield PageFigure("importance", "Importance of each setting", _IMPORTANCE, bars)
    if len(view.in_state("complete")) > 1:
        yield _parallel_figure(view, tuple(shares))
        for parameter in sliced_parameters(view, tuple(shares)):
            name = sections.SLICE + re.sub(r"\W+", "_", parameter.name)
            yield PageFigure(name, parameter.label, "", value_slice(view, parameter))
    if len(view.objectives) > 1 and front:
        for place, objective in enumerate(view.objectives[1:], start=1):
            figure = report_pareto.trade_off(view, front, place)
            title = f"Against the {metric_title(objective)}"
            yield PageFigure(f"{report_pareto.PREFIX}{objective}", title, _PARETO, figure)
    if result is not None:
        yield from (*maps_of(result, -1), *comparing_figures(result))


def _parallel_figure(view: StudyView, order: Sequence[str]) -> PageFigure:
    caption = _PARALLEL.format(order=", the most important first" if order else "")
    return PageFigure(
        "parallel_coordinates",
        "All complete trials at a glance",
        caption,
        parallel_coordinates(view, order),
        min_width_px=150 * (1 + len(view.parameters)),
        on_paper=False,
    )


def _write_configs(folder: Path, view: StudyView, front: Sequence[TrialRecord]) -> dict[int, Path]:
    """Write the configuration of each trial of a front of several objectives; return the files."""
    if len(view.objectives) == 1 or not front:
        return {}
    folder.mkdir(parents=True, exist_ok=True)
    base = view.attributes.get("space", {}).get("base", {})
    configs = {}
    for trial in front:
        tree = deepcopy(base)
        values = {name.partition("@")[0]: value for name, value in trial.parameters.items()}
        set_paths(tree, values, f"trial {trial.number}")
        path = folder / f"trial-{trial.number:05d}.yaml"
        configs[trial.number] = write_text(path, yaml.safe_dump(tree, sort_keys=False))
    for stale in set(folder.glob("trial-*.yaml")) - set(configs.values()):
        stale.unlink()
    return configs


def _write_figures(folder: Path, study_name: str, figures: Iterable[PageFigure]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / _PLOTLY_FILE).exists():
        write_text(folder / _PLOTLY_FILE, get_plotlyjs())
    for figure in figures:
        title = f"{study_name}: {figure.title}"
        script = f'<script src="{_PLOTLY_FILE}"></script>'
        write_text(folder / f"{figure.name}.html", document(title, figure_block(figure), script))


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
_PARETO = (
    "One point a complete trial; the nearer to the lower left corner, the better. No trial beats those on "
    "the front in one objective without losing in another: which of them to take is a choice."
)
_PARALLEL = (
    "One line a complete trial, through the value of each of its settings{order}. Orange "
    "lines are the best trials. Drag along an axis to keep only the lines that pass there; click the axis "
    "to undo. A trial that does not have a setting passes through “not used”."
)
