"""The page of an evaluation and its numbers, of made-up predictions of real files."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from gerbil_tune.data.events import open_events
from gerbil_tune.evaluation.page import is_page, page
from gerbil_tune.evaluation.results import EvaluationResult, MethodResult
from gerbil_tune.evaluation.summary import Evaluation, ModelFacts, OtherWeights, summarize
from gerbil_tune.evaluation.summary_json import is_summary, summary_json
from gerbil_tune.evaluation.worst_cards import half_axes
from gerbil_tune.geometry import RecordingSetup
from tests.conftest import write_event_file
from tests.unit.evaluation.methods import gaussian_method

HOSTILE = "net </script><b>\"&'\u2028"
SETUP = RecordingSetup(4, 125_000.0, (572.0, 356.0), keypoints=("nose",))
VOID = {"meta", "wbr", "img", "br"}


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.open, self.links, self.ids, self.shown = [], [], set(), []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.links += [values[name] for name in ("src", "href") if name in values]
        self.ids |= {values["id"]} if "id" in values else set()
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.shown.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", "".join(self.shown))


def evaluation(path, *, groups=None, unscored=()):
    events = open_events(path)
    truth = events.locations_mm
    rng = np.random.default_rng(0)
    covariance = np.broadcast_to(400 * np.eye(2), (*truth.shape, 2))
    near = gaussian_method(
        HOSTILE, truth + rng.normal(scale=20, size=truth.shape), covariance, truth
    )
    sizes_NK = rng.gamma(2, 3000, truth.shape[:2])
    near = MethodResult(
        near.name, near.predictions_mm_NKD, covariance, near.nll_NK, near.level_NK, sizes_NK
    )
    methods = (MethodResult("chance", 0 * truth), near)
    result = EvaluationResult(str(path), SETUP.arena_mm, ("nose",), truth, methods)
    facts = ModelFacts(HOSTILE, "models:/net/3", "3", "gcc-net", 1234, "f" * 64, None)
    others = (
        OtherWeights(HOSTILE, "init", MethodResult("init", 0 * truth)),
        OtherWeights(HOSTILE, "final", None, "there are no final weights <i>"),
    )
    return Evaluation(result, events, SETUP, (facts,), others, unscored)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = write_event_file(
        tmp_path_factory.mktemp("data") / "it's <calls> & more.h5",
        num_events=60,
        lengths=(500, 4000),
        groups=np.repeat(np.arange(30), 2),
        microphones_mm=[[x, y, 300.0] for x in (-286, 286) for y in (-178, 178)],
    )
    one = evaluation(path, unscored=("event 3 of <b> (net)",))
    summary = summarize(one)
    return one, summary, page(one, summary), summary_json(one, summary)


@pytest.fixture(scope="module")
def parsed(made):
    # Parsing 5 MB of plotly.js proves nothing.
    return Page(re.sub(r"<script>[^<]{0,40}/\*\*.*?</script>", "", made[2], count=1, flags=re.S))


def test_the_page_nests_and_fetches_nothing(made, parsed):
    assert made[2].count("plotly.js v") == 1
    assert all(link[0] == "#" or link.startswith("data:image/png;base64,") for link in parsed.links)
    assert {link[1:] for link in parsed.links if link[0] == "#"} <= parsed.ids


def test_hostile_names_are_text(made, parsed):
    assert "<b>" not in made[2].replace("<b>20", "").partition("<noscript>")[0].replace(
        '<div class="tile"><b>', ""
    )
    assert 'net </script><b>"&' in parsed.text
    assert "there are no final weights <i>" in parsed.text
    assert "event 3 of <b> (net)" in parsed.text


def test_the_page_has_every_figure_once(made):
    names = re.findall(r'data-figure="figure-(\w+)"', made[2])
    assert len(set(names)) == len(names)
    expected = {"error_cdf", "calibration_curve", "weights", "error_map_1", "predicted_vs_true_1"}
    expected |= {"region_errors", "by_zone", "by_call_length", "by_snr", "by_session"}
    assert set(names) == expected


def test_the_numbers_are_strict_json_and_those_of_the_table(made):
    one, _, text, numbers = made
    again = json.loads(json.dumps(numbers, allow_nan=False))
    assert again == numbers
    rows = {row.name: row for row in one.result.rows()}
    for method in numbers["methods"]:
        figures, row = method["figures"], rows[method["name"]]
        assert figures["error_median_mm"]["value"] == pytest.approx(row.median_mm)
        assert figures["error_mean_mm"]["value"] == pytest.approx(row.mean_mm)
        assert figures["error_p90_mm"]["value"] == pytest.approx(row.p90_mm)
        if row.nll is not None:
            assert figures["nll"]["value"] == pytest.approx(row.nll)
            assert figures["coverage_95"]["value"] == pytest.approx(row.coverage_95)
        low, high = (figures["error_median_mm"][end] for end in ("low", "high"))
        assert f"{row.median_mm:.1f}\n{low:.1f} to {high:.1f}" in text
    assert numbers["intervals"]["num_groups_drawn"] == 30
    assert numbers["data"]["num_events"] == 60
    assert numbers["data"]["unscored"] == ["event 3 of <b> (net)"]


def test_breakdowns_add_up(made):
    numbers = made[3]
    assert set(numbers["breakdowns"]) == {"zone", "call_length", "snr", "session"}
    for found in numbers["breakdowns"].values():
        assert sum(found["num_events"]) == 60
        assert [method["name"] for method in found["methods"]] == ["chance", HOSTILE]
    # Two events of a session have a median and no interval.
    (of_net,) = numbers["breakdowns"]["session"]["methods"][1:]
    assert set(of_net["error_median_low_mm"]) == {None}
    assert None not in of_net["error_median_mm"]


def test_of_many_sessions_the_worst_are_shown(made, parsed):
    found = next(found for found in made[1].breakdowns if found.name == "session")
    order = np.argsort(-found.methods[HOSTILE].median_mm_G)
    assert "Shown are the 20 of 30" in parsed.text
    assert f"{found.labels[order[0]]} (2)" in parsed.text
    assert f"{found.labels[order[-1]]} (2)" not in parsed.text


def test_initial_weights_are_compared_and_missing_ones_are_told(made):
    rows = {row["weights"]: row["figures"] for row in made[3]["weights"]}
    assert set(rows) == {"initial", "best"}
    chance = made[3]["methods"][0]["figures"]["error_median_mm"]
    assert rows["initial"]["error_median_mm"] == chance
    assert made[3]["weights_left_out"][0]["weights"] == "final"


def test_the_worst_events_come_first_with_their_commands(made, parsed):
    one, _, _, numbers = made
    worst = numbers["worst_events"]
    assert len(worst) == 12
    distances = np.linalg.norm(
        one.result.methods[1].predictions_mm_NKD - one.result.locations_mm_NKD, axis=-1
    )[:, 0]
    expected = np.argsort(-distances)[:12]
    assert [event["name"] for event in worst] == [one.events.describe(i) for i in expected]
    assert worst[0]["command"].endswith(f"more.h5' --event {expected[0]}")
    assert worst[0]["command"] in parsed.text
    assert len([link for link in parsed.links if link.startswith("data:image")]) == 12


def test_the_region_drawn_has_the_area_that_is_stated(made):
    one, summary, *_ = made
    event = summary.worst[0]
    short, long, _ = half_axes(event.ellipse_mm2_K22[0])
    assert np.pi * short * long == pytest.approx(
        one.result.methods[1].region_size_95_NK[event.place, 0]
    )


def test_an_ellipse_lies_as_its_covariance():
    turn = np.array([[np.cos(0.5), -np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]])
    short, long, degrees = half_axes(turn @ np.diag([25.0, 4.0]) @ turn.T)
    assert (short, long) == pytest.approx((2, 5))
    assert np.rad2deg(0.5) == pytest.approx(degrees % 180)


def test_comparisons_are_of_the_last_method(made):
    (found,) = made[3]["comparisons"]
    assert (found["a"], found["b"]) == (HOSTILE, "chance")
    assert found["a_minus_b"]["error_median_mm"]["high"] < 0
    assert found["better"] == ["median error", "mean error"]


def test_pages_and_numbers_know_themselves_again(made, tmp_path):
    (tmp_path / "a.html").write_text(made[2], encoding="utf-8")
    (tmp_path / "a.json").write_text(json.dumps(made[3]))
    (tmp_path / "other").write_text("<html>my notes</html>")
    assert is_page(tmp_path / "a.html")
    assert not is_page(tmp_path / "other")
    assert is_summary(tmp_path / "a.json")
    assert not is_summary(tmp_path / "other")


def test_one_event_without_regions_has_a_page(make_event_file):
    path = make_event_file(num_events=1, lengths=[300])
    events = open_events(path)
    truth = events.locations_mm
    result = EvaluationResult("d", SETUP.arena_mm, ("nose",), truth, (MethodResult("p", truth),))
    facts = ModelFacts("p", "folder", None, "gcc-net", 1, "f", None)
    one = Evaluation(result, events, SETUP, (facts,))
    summary = summarize(one)
    json.dumps(summary_json(one, summary), allow_nan=False)
    assert "there is nothing to compare" in page(one, summary)
