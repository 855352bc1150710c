import json
import math
import re
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from gerbil_tune.evaluation.results import EvaluationResult, MethodResult
from gerbil_tune.search import report_figures
from gerbil_tune.search.report import write_report
from gerbil_tune.search.report_sections import format_duration
from gerbil_tune.search.report_study import importances, metric_title, view_study

HOSTILE = '</script><b>"&'
VOID = {"meta", "wbr", "br", "link"}


class Page(HTMLParser):
    """Checks that elements nest, and collects what the tests look at."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.figures: dict[str, str] = {}
        self._figure: str | None = None
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.links += [values[name] for name in ("src", "href") if name in values]
        self.ids |= {values["id"]} if "id" in values else set()
        self._figure = values.get("data-figure")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            if self._figure is not None:
                self.figures[self._figure] = self.figures.get(self._figure, "") + data
        elif self.open and self.open[-1] != "style":
            self.text.append(data)

    @property
    def shown(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.text))


def objective(trial: optuna.Trial) -> float:
    """A conditional space in which corrnet with a rate of 0.003 is best; some trials stop or fail."""
    rate = trial.suggest_float("optimizer/learning_rate", 1e-4, 1e-1, log=True)
    kind = trial.suggest_categorical("model/kind", ["corrnet", "densenet", HOSTILE])
    value = 20 + 10 * (math.log10(rate) + 2.5) ** 2
    if kind == "corrnet":
        value += trial.suggest_int("model/hidden@corrnet", 8, 64) / 8
    else:
        value += 30 + 5 * trial.suggest_categorical("model/skip@densenet", [True, False])
    trial.set_user_attr("seconds", 12.5)
    if trial.number % 10 == 7:
        trial.set_user_attr("reason", f"NonFiniteLossError: {HOSTILE}")
        raise FloatingPointError
    for epoch in range(1, 6):
        trial.report(value + 50 / epoch, epoch)
        trial.set_user_attr("metrics", {"epoch": epoch, "val_nll": 8.25, "training_done": 0.0})
        if epoch == 2 and trial.number % 10 in (3, 5):
            trial.set_user_attr("reason", "not among the best after 2 epochs")
            raise optuna.TrialPruned
    return value + 10


def make_study(trials: int, name: str = "overnight", direction: str = "minimize") -> optuna.Study:
    sampler = optuna.samplers.RandomSampler(seed=0)
    study = optuna.create_study(study_name=name, direction=direction, sampler=sampler)
    study.set_user_attr("metric", "val_error_median_mm")
    study.optimize(objective, n_trials=trials, catch=(FloatingPointError,))
    return study


@pytest.fixture(scope="module")
def study() -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    study = make_study(40, name=f"night {HOSTILE}")
    best = study.best_trial.number
    attributes = {
        "champion": best,
        "champion_uri": "models:/locator/3",
        "bundle": "/m/locator/00003",
    }
    for key, value in {**attributes, "data_fingerprint": "abc123", "space": {"a": 1}}.items():
        study.set_user_attr(key, value)
    return study


def save_evaluation(path: Path) -> None:
    rng = np.random.default_rng(0)
    truth = rng.uniform(-150, 150, (200, 1, 2))
    predicted = truth + rng.normal(scale=20, size=truth.shape)
    covariance = np.broadcast_to(400 * np.eye(2), (200, 1, 2, 2))
    methods = (
        MethodResult(f"net {HOSTILE}", predicted, covariance),
        MethodResult("chance", 0 * truth),
    )
    EvaluationResult("/data/test.h5", (572.0, 366.0), ("nose",), truth, methods).save(path)


def read(path: Path) -> Page:
    # Parsing 5 MB of plotly.js proves nothing.
    return Page(
        re.sub(
            r"(<script>)[^<]{0,40}/\*\*.*?(</script>)",
            r"\1\2",
            path.read_text(),
            count=1,
            flags=re.S,
        )
    )


@pytest.fixture(scope="module")
def folder(study: optuna.Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    save_evaluation(folder / "evaluation.h5")
    assert write_report(folder, study) == folder / "report.html"
    return folder


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return read(folder / "report.html")


def test_page_holds_everything_and_fetches_nothing(folder: Path, page: Page) -> None:
    text = (folder / "report.html").read_text()

    assert text.count("plotly.js v") == 1
    assert page.links
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)


def test_every_figure_has_its_place_and_valid_data(page: Page) -> None:
    expected = {"history", "learning_curves", "importance", "parallel_coordinates", "error_map"}
    expected |= {"error_cdf", "calibration_curve", "predicted_vs_true"}

    assert set(page.figures) == {f"figure-{name}" for name in expected}
    assert set(page.figures) <= page.ids
    for text in page.figures.values():
        spec = json.loads(text)
        assert spec["data"]
        assert spec["layout"]["paper_bgcolor"] == "rgba(0,0,0,0)"


def test_champion_card_says_what_and_where(page: Page, study: optuna.Study) -> None:
    best = study.best_trial

    assert (
        f"Trial {best.number} has the best median validation error (mm): {best.value:.4g}."
        in page.shown
    )
    assert "models:/locator/3" in page.shown
    assert "/m/locator/00003" in page.shown
    assert "validation NLL (nats)8.25" in page.shown


def test_commands_use_what_was_registered(page: Page, folder: Path) -> None:
    assert "gerbil-tune predict --model models:/locator/3 --data RECORDING.h5" in page.shown
    assert "gerbil-tune promote locator 3" in page.shown
    assert f"gerbil-tune report {folder}" in page.shown


def test_text_of_the_user_stays_text(page: Page) -> None:
    assert f"night {HOSTILE}" in page.shown
    assert f"NonFiniteLossError: {HOSTILE}" in page.shown
    assert f"net {HOSTILE}" in page.shown


def test_provenance_shows_simple_attributes(page: Page) -> None:
    assert "data fingerprintabc123" in page.shown
    assert "{'a': 1}" not in page.shown


def test_all_trials_are_in_the_table(folder: Path, study: optuna.Study) -> None:
    table = (folder / "report.html").read_text().partition('<table class="sortable">')[2]
    rows = re.findall(r"<tr.*?</tr>", table.partition("</table>")[0], flags=re.S)[1:]

    assert len(rows) == len(study.trials)
    assert f'data-value="{study.trials[0].value}"' in rows[0]
    assert sum("<td>pruned</td>" in row for row in rows) == 8


def test_single_figures_share_one_plotly(folder: Path) -> None:
    pages = sorted((folder / "figures").glob("*.html"))

    assert len(pages) == 8
    assert (folder / "figures" / "plotly.min.js").stat().st_size > 1e6
    for path in pages:
        assert read(path).links == ["plotly.min.js"]
        assert path.stat().st_size < 200_000


def test_no_temporary_file_is_left(folder: Path) -> None:
    assert not [path for path in folder.rglob("*") if path.name.startswith(".")]


def test_without_evaluation_the_page_says_how_to_get_one(
    study: optuna.Study, tmp_path: Path
) -> None:
    shown = read(write_report(tmp_path, study)).shown

    assert "Not evaluated yet." in shown
    assert f"evaluate --model models:/locator/3 --data TEST.h5 -o {tmp_path}/evaluation.h5" in shown


def test_a_broken_evaluation_costs_only_its_section(study: optuna.Study, tmp_path: Path) -> None:
    (tmp_path / "evaluation.h5").write_text("no")
    page = read(write_report(tmp_path, study))

    assert "The evaluation cannot be shown:" in page.shown
    assert "figure-history" in page.figures


@pytest.mark.parametrize("trials", [0, 1, 2, 12])
def test_young_studies_have_a_page_too(trials: int, tmp_path: Path) -> None:
    shown = read(write_report(tmp_path, make_study(trials))).shown

    assert ("No trial has been completed yet." in shown) == (trials == 0)
    if trials < 12:
        assert f"at least 10 complete or pruned trials, but the study has {trials}." in shown


def test_a_study_of_failed_and_running_trials_has_a_page(tmp_path: Path) -> None:
    study = optuna.create_study(study_name="bad")
    study.tell(study.ask(), state=TrialState.FAIL)
    study.ask().report(3.0, 1)
    page = read(write_report(tmp_path, study))

    assert "1 failed, 1 running" in page.shown
    assert "figure-learning_curves" in page.figures


def test_importance_finds_the_parameter_that_decides() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))

    def deciding(trial: optuna.Trial) -> float:
        trial.suggest_float("idle", 0, 1)
        kind = trial.suggest_categorical("kind", ["a", "b"])
        return trial.suggest_float("inner@a", 0, 1) if kind == "a" else 9.0

    study.optimize(deciding, n_trials=80)
    shares, why_not = importances(study)

    assert why_not == ""
    assert sum(shares.values()) == pytest.approx(1.0)
    assert shares["idle"] < 0.2
    assert next(iter(shares)) == "inner@a"


def test_a_pruned_trial_counts_with_its_best_epoch() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    for number in range(14):
        trial = study.ask()
        x = trial.suggest_float("x", 0, 1)
        trial.suggest_float("idle", 0, 1)
        if number % 2:
            trial.report(x + 9, 1)
            trial.report(x, 2)
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, x)
    shares, why_not = importances(study)
    assert why_not == ""
    assert next(iter(shares)) == "x"


def test_importance_of_equal_values_is_a_sentence() -> None:
    study = optuna.create_study()
    study.optimize(lambda trial: 0.0 * trial.suggest_float("x", 0, 1), n_trials=12)

    assert importances(study) == (
        {},
        "Importance cannot be computed: all trials have the same value.",
    )


def test_view_reads_states_parameters_and_branches(study: optuna.Study) -> None:
    view = view_study(study)
    by_name = {parameter.name: parameter for parameter in view.parameters}
    pruned, failed = view.in_state("pruned")[0], view.in_state("failed")[0]

    assert (
        len(view.in_state("complete")),
        len(view.in_state("pruned")),
        len(view.in_state("failed")),
    ) == (
        28,
        8,
        4,
    )
    assert pruned.objective == min(value for _, value in pruned.curve)
    assert (failed.objective, failed.seconds) == (None, 12.5)
    assert by_name["model/hidden@corrnet"].label == "model/hidden (corrnet)"
    assert by_name["model/hidden@corrnet"].ends == (8, 64)
    assert by_name["optimizer/learning_rate"].log
    assert isinstance(view.wall_clock, timedelta)


def test_without_a_chosen_champion_the_best_of_the_direction_is_shown() -> None:
    for direction, pick in (("minimize", min), ("maximize", max)):
        study = make_study(12, direction=direction)
        champion = view_study(study).champion

        assert champion is not None
        assert champion.objective == pick(
            t.value for t in study.trials if t.state == TrialState.COMPLETE
        )


def test_history_separates_the_states(study: optuna.Study) -> None:
    traces = {trace.name: trace for trace in report_figures.history(view_study(study)).data}
    best = np.asarray(traces["best so far"].y)

    assert len(traces["complete"].x) == len(best) - 1 == 28
    assert traces["best so far"].x[-1] == 39
    assert np.all(np.diff(best) <= 0)
    assert best[-1] == study.best_value
    assert len(traces["pruned"].x) == 8
    assert "&lt;/script&gt;" in traces["failed"].text[0]
    assert "learning_rate" in traces["complete"].text[0]


def test_learning_curves_do_not_join_trials(study: optuna.Study) -> None:
    traces = report_figures.learning_curves(view_study(study)).data

    assert [trace.name for trace in traces[:2]] == ["complete", "pruned"]
    assert list(traces[1].x[:6]) == [1, 2, None, 1, 2, None]
    assert list(traces[-1].x[:5]) == [1, 2, 3, 4, 5]


def test_parallel_coordinates_mark_parameters_that_are_not_used(study: optuna.Study) -> None:
    view = view_study(study)
    figure = report_figures.parallel_coordinates(view, ["model/hidden@corrnet"])
    objective, hidden, *others = figure.data[0].dimensions
    used = ["model/hidden@corrnet" in trial.parameters for trial in view.in_state("complete")]
    kind = next(dimension for dimension in others if dimension.label == "model/<br>kind")

    assert objective.label == "median validation error<br>(mm)"
    assert hidden.ticktext[0] == "not used"
    assert [value >= 8 for value in hidden.values] == used
    assert min(hidden.values) == hidden.range[0] == hidden.tickvals[0]
    assert list(kind.ticktext) == ["corrnet", "densenet", "&lt;/script&gt;&lt;b&gt;&quot;&amp;"]
    assert all(math.isfinite(value) for dimension in others for value in dimension.values)


def test_log_parameters_have_decades_as_ticks(study: optuna.Study) -> None:
    dimensions = report_figures.parallel_coordinates(view_study(study)).data[0].dimensions
    rate = next(dimension for dimension in dimensions if "learning_rate" in dimension.label)

    assert list(rate.ticktext) == ["0.0001", "0.001", "0.01", "0.1"]


def test_axis_is_logarithmic_only_where_it_helps_and_can() -> None:
    def axis(*values: float) -> str | None:
        study = optuna.create_study()
        for value in values:
            study.tell(study.ask(), value)
        kind = report_figures.history(view_study(study)).layout.yaxis.type
        return None if kind is None else str(kind)

    assert axis(20.0, 21.0, 30.0) is None
    assert axis(20.0, 21.0, 3000.0) == "log"
    assert axis(-2.0, 0.5, 3000.0) is None


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("val_error_median_mm", "median validation error (mm)"),
        ("val_coverage_95", "validation coverage 95"),
        ("train_nll", "training NLL"),
        ("epoch_s", "epoch (s)"),
        ("objective", "objective"),
    ],
)
def test_metric_titles(name: str, title: str) -> None:
    assert metric_title(name) == title


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.0 s"),
        (9.94, "9.9 s"),
        (59.6, "1 min 0 s"),
        (3599, "59 min 59 s"),
        (36_120, "10 h 2 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
