"""``gerbil-tune evaluate`` with a small model on a small file."""

import json
import re

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from gerbil_tune.cli.app import app
from gerbil_tune.errors import ConfigError, DatasetError
from gerbil_tune.models.bundle import weights_name
from gerbil_tune.tracking.evaluations import EXPERIMENT
from gerbil_tune.tracking.store import connect, known_warnings_ignored


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def run(*arguments):
    with known_warnings_ignored():
        return CliRunner().invoke(app, ["evaluate", *map(str, arguments)], catch_exceptions=False)


def test_without_output_only_the_table_is_printed(folder, make_event_file, make_bundle):
    done = run("--model", f"net={make_bundle()}", "--data", make_event_file())
    assert "12 events of " in done.stdout
    assert done.stdout.splitlines()[-1].startswith("-o OUT.h5 writes a page about it")
    assert [path.name for path in folder.iterdir()] == ["events.h5"]


def test_it_leaves_predictions_page_and_numbers(folder, make_event_file, make_bundle):
    path = make_event_file(num_events=20, groups=np.arange(20) // 4)
    first, second = make_bundle(), make_bundle(seed=1)
    (second / weights_name("final")).unlink()
    models = ("--model", f"old={first}", "--model", f"new={second}")
    done = run(*models, "--data", path, "-o", "found/out.h5")
    assert [line for line in done.stdout.splitlines() if line.startswith("wrote")] == [
        f"wrote found/out{ending}" for ending in (".h5", ".html", ".json")
    ]
    assert "not logged to MLflow, for there is no mlflow.db here" in done.stdout
    assert sorted(path.name for path in folder.iterdir()) == ["events.h5", "found"]
    assert sorted(path.name for path in (folder / "found").iterdir()) == [
        "out.h5",
        "out.html",
        "out.json",
    ]
    numbers = json.loads((folder / "found/out.json").read_text())
    assert [method["name"] for method in numbers["methods"]] == ["old", "new"]
    for method in numbers["methods"]:
        median = method["figures"]["error_median_mm"]["value"]
        assert re.search(rf"{method['name']} .* {median:.1f} ", done.stdout)
    # The initial and the final weights of the first are those of the best: the model is not trained.
    weights = [(row["model"], row["weights"]) for row in numbers["weights"]]
    stages = ("initial", "best", "final")
    assert weights == [
        *(("old", stage) for stage in stages),
        *(("new", stage) for stage in stages[:2]),
    ]
    (left_out,) = numbers["weights_left_out"]
    assert (left_out["model"], left_out["weights"]) == ("new", "final")
    assert "has no final_weights.safetensors" in left_out["reason"]


def test_events_without_a_prediction_are_named_and_left_out(folder, make_event_file, make_bundle):
    audio = np.random.default_rng(0).standard_normal((200 * 300, 4)) * 1000
    audio[300 + 7, 1] = np.nan  # the quick checks look at some events only
    audio[2 * 300 : 3 * 300] = 0
    path = make_event_file(lengths=[300] * 200, audio=audio)
    done = run("--model", f"net={make_bundle()}", "--data", path, "-o", "out.h5")
    assert "2 of 200 events cannot be scored" in done.stderr
    assert "event 1 of events.h5 (net); event 2 of events.h5 (net)" in done.stderr
    assert "198 events of " in done.stdout
    numbers = json.loads((folder / "out.json").read_text())
    assert numbers["data"]["num_events"] == 198
    assert len(numbers["data"]["unscored"]) == 2
    assert numbers["methods"][0]["figures"]["error_mean_mm"]["value"] > 0
    with h5py.File("out.h5") as file:
        assert np.isfinite(file["methods/000/predictions"][()]).all()


def test_a_file_of_silence_cannot_be_evaluated(make_event_file, make_bundle):
    path = make_event_file(lengths=[400] * 3, audio=np.zeros((1200, 4)))
    with pytest.raises(DatasetError, match=r"3 of 3 events cannot be scored|silent|no sound"):
        run("--model", f"net={make_bundle()}", "--data", path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("out.html", r"out\.html is there already and holds no page of an evaluation"),
        ("out.json", r"out\.json is there already and holds no numbers of an evaluation"),
    ],
)
def test_what_is_not_ours_is_not_replaced(folder, make_event_file, make_bundle, name, message):
    (folder / name).write_text('{"mine": true}')
    with pytest.raises(ConfigError, match=message):
        run("--model", make_bundle(), "--data", make_event_file(), "-o", "out.h5")
    assert (folder / name).read_text() == '{"mine": true}'
    assert not (folder / "out.h5").exists()


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("page.html", r"-o page\.html names the file of all predictions.*-o page\.h5"),
        (".", r"-o \. is a folder; name the file of all predictions"),
        ("events.h5/out.h5", r"the folder events\.h5 cannot be made"),
    ],
)
def test_a_wrong_output_is_told_first(make_event_file, make_bundle, output, message):
    with pytest.raises(ConfigError, match=message):
        run("--model", make_bundle(), "--data", make_event_file(), "-o", output)


def test_an_evaluation_of_an_earlier_version_is_replaced(folder, make_event_file, make_bundle):
    with h5py.File("out.h5", "w") as file:
        file.attrs["format"] = "gerbil_tune evaluation 2"
    assert run("--model", make_bundle(), "--data", make_event_file(), "-o", "out.h5").exit_code == 0


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (("a={}", "a={}"), "a model is given twice; give each a name of its own"),
        (("={}",), "a model has no name"),
    ],
)
def test_models_have_names_of_their_own(make_event_file, make_bundle, models, message):
    bundle = make_bundle()
    words = [word for model in models for word in ("--model", model.format(bundle))]
    with pytest.raises(ConfigError, match=message):
        run(*words, "--data", make_event_file())


def test_it_is_logged_where_there_is_a_store(
    folder, make_event_file, make_bundle, mlflow_store, monkeypatch
):
    connect(mlflow_store)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_store)
    bundle = make_bundle()
    done = run("--model", f"net={bundle}", "--data", make_event_file(), "-o", "out.h5")
    (run_id,) = re.findall(
        rf"logged to MLflow as run (\w+) of the experiment {EXPERIMENT}", done.stdout
    )
    client = connect(mlflow_store)
    logged = client.get_run(run_id)
    assert logged.data.params["net/model"] == str(bundle)
    assert logged.data.params["events"] == "12"
    numbers = json.loads((folder / "out.json").read_text())
    assert logged.data.params["data_fingerprint"] == numbers["data"]["fingerprint"]
    median = numbers["methods"][-1]["figures"]["error_median_mm"]["value"]
    assert logged.data.metrics["net/error_median_mm"] == pytest.approx(median)
    kept = {file.path for file in client.list_artifacts(run_id)}
    assert kept == {"out.html", "out.json"}


def test_a_store_that_does_not_answer_costs_only_the_log(
    folder, make_event_file, make_bundle, monkeypatch
):
    (folder / "mlflow.db").write_text("no database")
    done = run("--model", f"net={make_bundle()}", "--data", make_event_file(), "-o", "out.h5")
    assert done.exit_code == 0
    assert "warning: the evaluation is not logged to MLflow: the MLflow store" in done.stderr
    assert (folder / "out.html").is_file()
