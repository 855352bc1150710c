import json
import math
import re
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import yaml
from optuna.trial import TrialState

from gerbil_tune.evaluation.results import EvaluationResult, MethodResult
from gerbil_tune.search.report import write_report
from gerbil_tune.search.report_history import history, learning_curves
from gerbil_tune.search.report_importance import importances
from gerbil_tune.search.report_parallel import parallel_coordinates
from gerbil_tune.search.report_slices import sliced_parameters, value_slice
from gerbil_tune.search.report_study import metric_title, view_study
from gerbil_tune.search.storage import stored_study, study_lock
from tests.unit.evaluation.methods import gaussian_method

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


def save_evaluation(path: Path) -> None:
    rng = np.random.default_rng(0)
    truth = rng.uniform(-150, 150, (200, 1, 2))
    predicted = truth + rng.normal(scale=20, size=truth.shape)
    covariance = np.broadcast_to(400 * np.eye(2), (200, 1, 2, 2))
    methods = (
        gaussian_method(f"net {HOSTILE}", predicted, covariance, truth),
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
def study(plain_folder: Path) -> optuna.Study:
    return stored_study(plain_folder)


@pytest.fixture(scope="module")
def folder(plain_folder: Path, study: optuna.Study) -> Path:
    save_evaluation(plain_folder / "evaluation.h5")
    assert write_report(plain_folder, study) == plain_folder / "report.html"
    return plain_folder


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return read(folder / "report.html")


def figure_names(page: Page) -> set[str]:
    return {name.removeprefix("figure-") for name in page.figures}


def rows_of_trials(folder: Path) -> list[str]:
    table = (folder / "report.html").read_text().partition('id="trials"')[2]
    return re.findall(r"<tr.*?</tr>", table.partition("</table>")[0], flags=re.S)[1:]


def test_page_holds_everything_and_fetches_nothing(folder: Path, page: Page) -> None:
    text = (folder / "report.html").read_text()

    assert text.count("plotly.js v") == 1
    assert page.links
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)


def test_every_figure_has_its_place_and_valid_data(page: Page) -> None:
    expected = {"history", "learning_curves", "importance", "parallel_coordinates", "error_map"}
    expected |= {"error_cdf", "calibration_curve", "predicted_vs_true", "slice_model_kind"}
    expected |= {"slice_optimizer_learning_rate", "slice_model_growth_densenet"}

    assert figure_names(page) == expected | {"slice_model_lags_hidden_gcc_net"}
    assert set(page.figures) <= page.ids
    for text in page.figures.values():
        spec = json.loads(text)
        assert spec["data"]
        assert spec["layout"]["paper_bgcolor"] == "rgba(0,0,0,0)"


def test_champion_card_says_what_and_where(page: Page, study: optuna.Study) -> None:
    best = study.trials[study.user_attrs["champion"]]

    assert (
        f"Trial {best.number} has the best median validation error (mm): {best.value:.4g}."
        in page.shown
    )
    assert "models:/locator/3" in page.shown
    assert "/m/locator/00003" in page.shown
    assert "At its best epoch" in page.shown
    assert f"validation NLL (nats){best.user_attrs['best_metrics']['val_nll']:.4g}" in page.shown


def test_commands_use_what_was_registered(page: Page, folder: Path) -> None:
    assert "gerbil-tune predict --model models:/locator/3 --data RECORDING.h5" in page.shown
    assert "gerbil-tune promote locator 3" in page.shown
    assert f"gerbil-tune report {folder}" in page.shown


def test_text_of_the_user_stays_text(page: Page) -> None:
    assert f"night {HOSTILE}" in page.shown
    assert f"the loss became NaN {HOSTILE}" in page.shown
    assert f"net {HOSTILE}" in page.shown


def test_the_page_says_when_it_was_written(page: Page) -> None:
    assert re.search(r"Written at 2\d{3}-\d\d-\d\d \d\d:\d\d:\d\d UTC\.", page.shown)
    assert "The search is running" not in page.shown


def test_environment_shows_versions_runs_and_simple_attributes(page: Page) -> None:
    assert "data fingerprint9f2c1e77ab0de441" in page.shown
    assert "torch2.11.0" in page.shown
    assert "{'base'" not in page.shown
    assert re.search(r"startedendedstatus.*2026-03-01 \d\d:\d\d.*complete", page.shown)


def test_all_trials_are_in_the_table(folder: Path, page: Page, study: optuna.Study) -> None:
    rows = rows_of_trials(folder)

    assert len(rows) == len(study.trials)
    assert f'data-value="{study.trials[0].value}"' in rows[0]
    assert ">from an earlier study<" in rows[0]
    pruned = sum(
        t.state == TrialState.PRUNED and t.user_attrs["reason_kind"] != "infeasible"
        for t in study.trials
    )
    assert sum("<td>pruned</td>" in row for row in rows) == pruned


def test_stops_are_counted_by_reason_and_rung(page: Page, study: optuna.Study) -> None:
    early = [t for t in study.trials if t.user_attrs.get("reason_kind") == "early stop"]
    at_three = sum(max(t.intermediate_values) == 3 for t in early)

    assert f"early stopnot among the best at a comparison{len(early)}" in page.shown
    assert "infeasiblebeyond a constraint, so not run1" in page.shown
    assert re.search(rf"stopped thereshare\s*3\d\d{at_three}\d\d%", page.shown)
    assert "out of memory at a batch of 64; the process was killed by signal 9" in page.shown


def test_cost_tells_the_share_that_was_stopped(page: Page) -> None:
    assert re.search(r"\d\d% of the training time went to trials that were stopped", page.shown)
    assert re.search(r"2 trials ran at a time, and those places were busy (9\d|100)%", page.shown)
    assert "CPU hours" in page.shown
    assert "GPU hours" not in page.shown


def test_single_figures_share_one_plotly(folder: Path) -> None:
    pages = sorted((folder / "figures").glob("*.html"))

    assert len(pages) == 12
    assert (folder / "figures" / "plotly.min.js").stat().st_size > 1e6
    for path in pages:
        assert read(path).links == ["plotly.min.js"]
        assert path.stat().st_size < 200_000


def test_no_temporary_file_is_left(folder: Path) -> None:
    assert not list(folder.rglob("*.tmp"))


def test_without_evaluation_the_page_says_how_to_get_one(
    study: optuna.Study, tmp_path: Path
) -> None:
    shown = read(write_report(tmp_path, study)).shown

    assert "Not evaluated yet." in shown
    assert f"evaluate --model models:/locator/3 --data TEST.h5 -o {tmp_path}/evaluation.h5" in shown


def test_the_page_of_the_evaluation_is_linked_where_it_is_there(
    study: optuna.Study, tmp_path: Path
) -> None:
    save_evaluation(tmp_path / "evaluation.h5")
    assert "evaluation.html" not in read(write_report(tmp_path, study)).links
    (tmp_path / "evaluation.html").touch()
    assert "evaluation.html" in read(write_report(tmp_path, study)).links


def test_a_broken_evaluation_costs_only_its_section(study: optuna.Study, tmp_path: Path) -> None:
    (tmp_path / "evaluation.h5").write_text("no")
    page = read(write_report(tmp_path, study))

    assert "The evaluation cannot be shown:" in page.shown
    assert "figure-history" in page.figures


@pytest.mark.parametrize("trials", [0, 1, 2, 12])
def test_young_studies_have_a_page_too(trials: int, make_study: Callable[..., Any]) -> None:
    writer = make_study()
    for _ in range(trials):
        writer.add(TrialState.COMPLETE, 4)
    shown = read(write_report(writer.folder, writer.study)).shown

    assert ("No trial is complete yet" in shown) == (trials == 0)
    if trials < 12:
        assert f"at least 10 complete or pruned trials, but the study has {trials}." in shown


def test_while_the_search_runs_the_page_says_so_and_follows(make_study: Callable[..., Any]) -> None:
    writer = make_study()
    writer.add(TrialState.FAIL, 2, reason="x", reason_kind="error")
    writer.add(TrialState.RUNNING, 3, paused_at=3)
    writer.add(TrialState.RUNNING, 1)
    writer.add_run("running", None)
    with study_lock(writer.folder):
        path = write_report(writer.folder, writer.study, reload_s=5)
        running = read(path)
        assert "location.reload(), 5000)" in path.read_text()
    path = write_report(writer.folder, writer.study, reload_s=5)

    assert "The search is running; this page loads itself anew every 5 s." in running.shown
    assert "No trial is complete yet" in running.shown
    assert "trials are over: 1 failed; besides: 1 running, 1 paused" in running.shown
    assert "figure-learning_curves" in running.figures
    assert "location.reload" not in path.read_text()
    assert "The search was interrupted; the same command continues it." in read(path).shown
    assert "trials are over: 1 failed; besides: 2 interrupted" in read(path).shown


def test_several_objectives_have_a_front_with_configs(make_study: Callable[..., Any]) -> None:
    writer = make_study("val_error_median_mm", "predict_ms_per_event")
    writer.add_searched(40)
    stale = writer.folder / "pareto" / "trial-00999.yaml"
    stale.parent.mkdir()
    stale.touch()
    page = read(write_report(writer.folder, writer.study))
    front = {trial.number: trial for trial in writer.study.best_trials}
    files = sorted((writer.folder / "pareto").iterdir())

    assert figure_names(page) >= {"pareto_predict_ms_per_event"}
    assert [path.name for path in files] == [f"trial-{number:05d}.yaml" for number in sorted(front)]
    first = yaml.safe_load(files[0].read_text())
    assert first["training"]["epochs"] == 27
    rate = front[min(front)].params["optimizer/learning_rate"]
    assert first["optimizer"]["learning_rate"] == rate
    assert f"gerbil-tune train --config {writer.folder}/pareto/trial-" in page.shown


def test_copies_of_a_population_show_their_line(make_study: Callable[..., Any]) -> None:
    writer = make_study()
    writer.add(TrialState.COMPLETE, 12)
    writer.add(TrialState.PRUNED, 8, start=4, parent=0, reason_kind="replaced", reason="x")
    writer.add(TrialState.COMPLETE, 12, start=8, parent=1)
    write_report(writer.folder, writer.study)
    rows = rows_of_trials(writer.folder)

    assert ">0 &gt; 1 &gt; 2</td>" in rows[2]
    assert "&gt;" not in rows[0]


def test_final_trainings_are_compared(make_study: Callable[..., Any]) -> None:
    writer = make_study()
    writer.add(TrialState.COMPLETE)
    refit = {"epochs": 50, "run_dir": "r", "reason": ""}
    writer.attribute("bundle", "/m/1")
    writer.attribute(
        "refits",
        [
            {**refit, "trial": 0, "bundle": "/m/1"},
            {**refit, "trial": 4, "bundle": None, "reason": "the loss became NaN"},
        ],
    )
    scores = dict.fromkeys(("nll", "calibration_error", "coverage_95"))
    row = {"name": "trial 0", "mean_mm": 30.04, "median_mm": 21.0, "p90_mm": 50.0, **scores}
    selection = {"rows": [row], "sentences": ["Trial 0 wins."], "events": 90, "compared_on": "test"}
    writer.attribute("selection", selection)
    shown = read(write_report(writer.folder, writer.study)).shown

    assert "failed: the loss became NaN" in shown
    assert "Compared on 90 test events:" in shown
    assert "trial 030.021.050.0" in shown
    assert "Trial 0 wins." in shown


def test_two_thousand_trials_are_a_page_within_seconds(tmp_path: Path) -> None:
    study = optuna.create_study(study_name="large")
    uniform = optuna.distributions.FloatDistribution(0, 1)
    study.add_trials(
        [
            optuna.trial.create_trial(
                params={"x": number / 2000},
                distributions={"x": uniform},
                value=1.0 + number % 7,
                intermediate_values=dict.fromkeys(range(1, 6), 2.0),
            )
            for number in range(2000)
        ]
    )
    started = time.monotonic()
    write_report(tmp_path, study)
    assert time.monotonic() - started < 20


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
    for number in range(40):
        trial = study.ask()
        x, idle = trial.suggest_float("x", 0, 1), trial.suggest_float("idle", 0, 1)
        if number % 20:
            trial.report(x, 1)
            trial.report(x + 9 * idle, 2)
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, x)
    shares, why_not = importances(study)
    assert why_not == ""
    assert shares["x"] > 0.8


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
    pruned = view.in_state("pruned")[0]

    assert view.state == "complete"
    assert set(view.count()) == {"complete", "pruned", "failed", "infeasible", "known"}
    assert sum(view.count().values()) == len(study.trials)
    assert pruned.objective == min(value for _, value in pruned.curve)
    assert by_name["model/lags/hidden@gcc-net"].label == "model/lags/hidden (gcc-net)"
    assert by_name["model/lags/hidden@gcc-net"].ends == (32, 256)
    assert by_name["optimizer/learning_rate"].log


def test_without_a_chosen_champion_the_best_own_trial_is_shown(
    make_study: Callable[..., Any],
) -> None:
    writer = make_study()
    known = writer.add(TrialState.COMPLETE, 27, warm_start="studies/evening")
    for epochs in (5, 9, 7):
        writer.add(TrialState.COMPLETE, epochs, known.params)
    champion = view_study(writer.study).champion

    assert champion is not None
    assert champion.number == 2


def test_history_separates_the_states(study: optuna.Study) -> None:
    view = view_study(study)
    traces = {trace.name: trace for trace in history(view).data}
    best = np.asarray(traces["best so far"].y)

    assert len(traces["complete"].x) == len(best) - 1 == len(view.in_state("complete"))
    assert traces["best so far"].x[-1] == view.closed[-1].number
    assert np.all(np.diff(best) <= 0)
    assert view.champion is not None
    assert best[-1] == view.champion.objective
    assert len(traces["pruned"].x) == len(view.in_state("pruned"))
    assert "&lt;/script&gt;" in traces["failed"].text[0]
    assert "learning_rate" in traces["complete"].text[0]


def test_history_can_be_read_by_epochs_and_by_time(study: optuna.Study) -> None:
    view = view_study(study)
    trials, epochs, hours = history(view).layout.meta["choices"]
    closed = sum(len(trial.curve) for trial in view.closed)

    assert [choice["label"] for choice in (trials, epochs, hours)] == ["trials", "epochs", "time"]
    assert max(max(x) for x in epochs["x"] if x) == closed
    assert max(max(x) for x in hours["x"] if x) == pytest.approx(view.searched_s / 3600, rel=0.1)
    for choice in (trials, epochs, hours):
        best = choice["y"][3]
        assert best == sorted(best, reverse=True)
        assert choice["x"][3] == sorted(choice["x"][3])


def test_learning_curves_do_not_join_trials(study: optuna.Study) -> None:
    traces = learning_curves(view_study(study)).data

    assert [trace.name for trace in traces[:2]] == ["complete", "pruned"]
    assert list(traces[0].x[:3]) == [1, 2, 3]
    assert traces[0].x[27] is None
    assert list(traces[-1].x) == [*range(1, 28), None]


def test_parallel_coordinates_mark_parameters_that_are_not_used(study: optuna.Study) -> None:
    view = view_study(study)
    name = "model/growth@densenet"
    objective, growth, *others = parallel_coordinates(view, [name]).data[0].dimensions
    used = [name in trial.parameters for trial in view.in_state("complete")]
    kind = next(dimension for dimension in others if dimension.label == "model/<br>kind")

    assert objective.label == "median validation error<br>(mm)"
    assert growth.ticktext[0] == "not used"
    assert [value >= 8 for value in growth.values] == used
    assert min(growth.values) == growth.range[0] == growth.tickvals[0]
    assert list(kind.ticktext) == ["gcc-net", "densenet", "&lt;/script&gt;&lt;b&gt;&quot;&amp;"]
    assert all(math.isfinite(value) for dimension in others for value in dimension.values)


def test_log_parameters_have_round_ticks(study: optuna.Study) -> None:
    view = view_study(study)
    dimensions = parallel_coordinates(view).data[0].dimensions
    rate = next(dimension for dimension in dimensions if "learning_rate" in dimension.label)
    parameter = next(p for p in view.parameters if p.path == "optimizer/learning_rate")

    assert list(rate.ticktext) == ["0.0001", "0.001", "0.01"]
    assert list(value_slice(view, parameter).layout.xaxis.ticktext) == ["0.0001", "0.001", "0.01"]


def test_slices_show_the_most_important_parameters_by_trial_order(study: optuna.Study) -> None:
    view = view_study(study)
    shown = sliced_parameters(view, ["model/growth@densenet"])
    figure = value_slice(view, shown[0])
    pruned, complete = figure.data[:2]

    assert shown[0].name == "model/growth@densenet"
    assert len(shown) == 4
    assert len(pruned.x) + len(complete.x) == sum(
        shown[0].name in trial.parameters for trial in view.in_state("complete", "pruned")
    )
    assert list(pruned.marker.color) == sorted(pruned.marker.color)


def test_axis_is_logarithmic_only_where_it_helps_and_can() -> None:
    def axis(*values: float) -> str | None:
        study = optuna.create_study()
        for value in values:
            study.tell(study.ask(), value)
        kind = history(view_study(study)).layout.yaxis.type
        return None if kind is None else str(kind)

    assert axis(20.0, 21.0, 30.0) is None
    assert axis(20.0, 21.0, 3000.0) == "log"
    assert axis(-2.0, 0.5, 3000.0) is None


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("val_error_median_mm", "median validation error (mm)"),
        ("val_coverage_95", "validation events inside their 95 % regions"),
        ("val_hits_95", "validation hits 95"),
        ("train_loss", "training loss"),
        ("epoch_s", "epoch (s)"),
        ("objective", "objective"),
    ],
)
def test_metric_titles(name: str, title: str) -> None:
    assert metric_title(name) == title
