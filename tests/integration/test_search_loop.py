"""The whole loop by the real command line: simulate, search, continue, register, predict, evaluate."""

import json
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from gerbil_tune.tracking.store import connect, known_warnings_ignored
from tests.integration.command_line import SPACE, clean_environment, command, run

pytestmark = [pytest.mark.ray, pytest.mark.slow]

EPOCHS = 60
SEARCH = ("search", "space.yaml", "--max-concurrent", "1", "--set", f"training/epochs={EPOCHS}")
"""The first trial lasts some seconds: long enough to be stopped in it."""


@dataclass(frozen=True)
class Searched:
    """A search of three trials that was stopped by Ctrl-C in the first, and ended by the same command.

    Attributes:
        folder: Where it ran.
        stopped: What it printed until it was stopped.
        code: Exit code then.
        state: Of the first trial then.
        epochs: That the first trial had told of then.
        printed: What the second command printed.
    """

    folder: Path
    stopped: str
    code: int
    state: TrialState
    epochs: int
    printed: str


@pytest.fixture
def quiet_mlflow() -> Iterator[None]:
    """MLflow's own use of what SQLAlchemy deprecates is no news here."""
    with known_warnings_ignored():
        yield


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small simulated data set and a space file."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "space.yaml").write_text(SPACE)
    for name, events, seed in (("train_set", 96, 1), ("val_set", 32, 2), ("test_set", 24, 3)):
        (folder / "data").mkdir(exist_ok=True)
        run(
            folder,
            *("simulate", f"data/{name}.h5", "--events", str(events), "--seed", str(seed)),
            *("--duration-ms", "20", "40", "--processes", "1"),
        )
    return folder


@pytest.fixture(scope="module")
def searched(site: Path) -> Searched:
    """The one search that most tests look at, for each takes a minute."""
    process = subprocess.Popen(
        command(*SEARCH, "--data", "data"),
        cwd=site,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    history = history_of_first(site)
    deadline = time.monotonic() + 120
    while not (history.exists() and history.read_text().count("\n") >= 3):
        assert time.monotonic() < deadline, "no epoch within two minutes"
        assert process.poll() is None, process.stdout and process.stdout.read()
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    stopped, _ = process.communicate(timeout=120)
    state = stored(site).trials[0].state
    epochs = len(history.read_text().splitlines())
    done = run(site, *SEARCH, "--data", "data")
    return Searched(site, stopped, process.returncode, state, epochs, done.stdout)


def history_of_first(folder: Path) -> Path:
    return folder / "studies/tiny/trials/00000/metrics.jsonl"


def stored(folder: Path, name: str = "tiny") -> optuna.Study:
    return optuna.load_study(
        study_name=name, storage=f"sqlite:///{folder}/studies/{name}/optuna.db"
    )


def test_ctrl_c_and_the_same_command_again(searched: Searched) -> None:
    assert searched.code == 75, searched.stopped
    assert "run the same command again" in searched.stopped
    assert "Traceback" not in searched.stopped
    assert searched.state is TrialState.RUNNING
    assert 3 <= searched.epochs < EPOCHS
    # The search may have been stopped before it heard of the last epoch that the trial had finished.
    heard = re.search(r"trial 0 starts, on from epoch (\d+)", searched.printed)
    assert heard is not None
    assert int(heard[1]) in (searched.epochs - 1, searched.epochs)
    lines = history_of_first(searched.folder).read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == list(range(1, EPOCHS + 1))


def test_search_leaves_what_the_design_promises(searched: Searched) -> None:
    folder, printed = searched.folder, searched.printed
    study = stored(folder)
    assert [trial.state.is_finished() for trial in study.trials] == [True] * 3
    assert TrialState.COMPLETE in {trial.state for trial in study.trials}
    assert (folder / "studies/tiny/report.html").stat().st_size > 10_000
    bundle = folder / "trained_models/gerbil-locator/00001"
    present = {path.name for path in bundle.iterdir()}
    assert present == {
        *("config.json", "metrics.json", "calibration.json", "provenance.json"),
        "test_events.npy",
        *(f"{which}_weights.safetensors" for which in ("init", "best", "final")),
    }
    provenance = json.loads((bundle / "provenance.json").read_text())
    assert provenance["study"] == "tiny"
    assert provenance["workers"] == 2
    assert provenance["validation_intervals"]["val_error_median_mm"][1] > 0
    assert "SRP-PHAT" in printed
    assert "models:/gerbil-locator@champion" in printed


@pytest.mark.usefixtures("quiet_mlflow")
def test_mlflow_holds_one_parent_and_a_nested_run_for_each_trial(
    searched: Searched,
) -> None:
    folder = searched.folder
    client = connect(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("tiny")
    runs = client.search_runs([experiment.experiment_id])
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    assert len(parents) == 1
    assert len(children) == 3
    assert {child.data.tags["mlflow.parentRunId"] for child in children} == {parents[0].info.run_id}
    assert "optimizer/learning_rate" in children[0].data.params
    history = client.get_metric_history(children[0].info.run_id, "val_error_median_mm")
    assert [metric.step for metric in history] == sorted({metric.step for metric in history})
    artifacts = {file.path for file in client.list_artifacts(parents[0].info.run_id)}
    assert {"report.html", "figures"} <= artifacts
    version = client.get_model_version_by_alias("gerbil-locator", "champion")
    assert version.run_id == parents[0].info.run_id


def test_the_champion_predicts_and_is_evaluated(searched: Searched) -> None:
    folder = searched.folder
    reference = "models:/gerbil-locator@champion"
    run(folder, "predict", "--model", reference, "--data", "data/test_set.h5", "-o", "out.h5")
    with h5py.File(folder / "out.h5") as file:
        assert file["predictions"].shape == (24, 2)
        assert file["covariance"].shape == (24, 2, 2)
        assert np.isfinite(file["predictions"][:]).all()
        assert np.linalg.eigvalsh(file["covariance"][:]).min() > 0
        assert file.attrs["units"] == "mm"
        assert file.attrs["model_uri"] == "models:/gerbil-locator/1"
    done = run(folder, "evaluate", "--model", reference, "--data", "data/test_set.h5")
    for row in ("chance", "SRP-PHAT", "gerbil-locator@champion"):
        assert row in done.stdout


def test_more_trials_continue_the_study_and_repeat_nothing(searched: Searched) -> None:
    folder = searched.folder
    before = [(trial.number, trial.params, trial.value) for trial in stored(folder).trials]
    done = run(folder, *SEARCH, "--data", "data", "--trials", "4")
    after = stored(folder).trials
    assert [(trial.number, trial.params, trial.value) for trial in after[:3]] == before
    assert len(after) == 4
    assert "3 done before" in done.stdout
    assert "trial 0 starts" not in done.stdout
    again = run(folder, *SEARCH, "--data", "data", "--trials", "4")
    assert "starts" not in again.stdout
    assert "training it for" not in again.stdout
    assert "models:/gerbil-locator@champion" in again.stdout
    assert len(stored(folder).trials) == 4


def test_the_two_best_are_compared_and_a_budget_of_epochs_ends_a_study(site: Path) -> None:
    arguments = ("search", "space.yaml", "--data", "data", "--name", "budget", "--trials", "50")
    arguments += ("--max-concurrent", "1", "--epochs", "9", "--refit-top", "2")
    done = run(site, *arguments, "--set", "study/trial_scheduler/kind=none")
    assert "no more trials: the budget of 9 epochs is spent" in done.stdout
    trials = stored(site, "budget").trials
    states = [trial.state for trial in trials]
    assert states[:2] == [TrialState.COMPLETE] * 2
    assert set(states[2:]) <= {TrialState.PRUNED}
    assert all(trial.user_attrs["reason_kind"] == "budget" for trial in trials[2:])
    assert "ensemble" in done.stdout
    assert len(stored(site, "budget").user_attrs["refits"]) == 2
    listed = run(site, "studies", "--json").stdout
    (summary,) = (row for row in json.loads(listed) if row["name"] == "budget")
    assert summary["state"] == "complete"


def test_other_data_under_the_same_study_are_refused(searched: Searched) -> None:
    folder = searched.folder
    other = folder / "other"
    shutil.copytree(folder / "data", other)
    shutil.copy(folder / "data/val_set.h5", other / "train_set.h5")
    done = run(folder, *SEARCH, "--data", "other", code=2)
    assert "begun on other data" in done.stderr
