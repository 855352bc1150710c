"""The record follows the study: what is said while it runs, and what is put right afterwards."""

import json
import logging
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.errors import LaunchError
from gerbil_tune.search.recorder import StudyRecorder
from gerbil_tune.search.tasks import TrialTask
from gerbil_tune.tracking.memory_tracker import MemoryRun, MemoryTracker
from gerbil_tune.tracking.mlflow_tracker import MlflowTracker
from gerbil_tune.tracking.store import connect
from gerbil_tune.tracking.tracker import Tracker

CONFIG = ExperimentConfig()
FLAT = {"model/kind": "gcc-net", "training/epochs": 3}


class Driver:
    """A study, its trials and its recorder, as the search uses them."""

    def __init__(self, folder: Path, tracker: Tracker, name: str = "s") -> None:
        self.folder = folder
        self.tracker = tracker
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.study = optuna.create_study(
            storage=f"sqlite:///{folder}/optuna.db", study_name=name, load_if_exists=True
        )
        if not self.study.user_attrs:
            self.study.set_user_attr("study_id", f"{name} in {folder}")
            self.study.set_user_attr("metric", "val_nll")
            self.study.set_user_attr("objectives", ["val_nll"])
        self.recorder = StudyRecorder(tracker, folder)
        self.trials: dict[int, optuna.Trial] = {}

    def begin(self) -> str | None:
        run_id = self.recorder.begin(self.study, {"trials": 2}, {"user": "lab"})
        self.recorder.reconcile(self.study)
        return run_id

    def frozen(self, number: int) -> FrozenTrial:
        return self.study.get_trials(deepcopy=False)[number]

    def start(self, **attributes: Any) -> int:
        trial = self.study.ask()
        self.trials[trial.number] = trial
        for name, value in {"config": FLAT, **attributes}.items():
            trial.set_user_attr(name, value)
        self.go_on(trial.number)
        return trial.number

    def go_on(self, number: int) -> None:
        done = max(self.frozen(number).intermediate_values, default=0)
        self.recorder.on_start(TrialTask(number, CONFIG, done), self.frozen(number))

    def epoch(self, number: int, epoch: int, value: float, *, told: bool = True) -> None:
        metrics = {"epoch": epoch, "val_nll": value, "train_loss": value + 1, "epoch_s": 2.0}
        history = self.folder / "trials" / f"{number:05d}" / "metrics.jsonl"
        history.parent.mkdir(parents=True, exist_ok=True)
        with history.open("a") as file:
            file.write(json.dumps(metrics) + "\n")
        self.trials[number].report(value, epoch)
        self.trials[number].set_user_attr("metrics", metrics)
        if told:
            self.recorder.on_epoch(number, metrics)

    def end(
        self,
        number: int,
        state: TrialState,
        reason: str = "",
        *,
        told: bool = True,
        **attributes: Any,
    ) -> None:
        reasons = {"reason": reason} if reason else {}
        for name, value in {**attributes, **reasons}.items():
            self.trials[number].set_user_attr(name, value)
        done = state == TrialState.COMPLETE
        best = min(self.frozen(number).intermediate_values.values(), default=0.0)
        self.study.tell(number, best if done else None, state=state)
        if told:
            self.recorder.on_end(self.frozen(number), reason)


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Driver]:
    driver = Driver(tmp_path, MemoryTracker())
    yield driver
    driver.recorder._delivery.close()


def run_of(driver: Driver, number: int) -> MemoryRun:
    assert isinstance(driver.tracker, MemoryTracker)
    driver.recorder._delivery.drain(5.0)
    return driver.tracker.runs[driver.tracker.recorded()[number].run_id]


def states(driver: Driver) -> dict[int, str]:
    return {number: run.state for number, run in driver.tracker.recorded().items()}


def test_a_trial_is_told_from_its_beginning_to_its_end(driver):
    assert driver.begin() == driver.recorder.parent_run_id
    number = driver.start(parent=3, root=1)
    driver.epoch(number, 1, 5.0)
    driver.epoch(number, 2, 4.0)
    driver.end(
        number,
        TrialState.COMPLETE,
        seconds=12.0,
        best_metrics={"epoch": 2, "val_nll": 4.0, "val_error_median_mm": 30.0},
        mishaps=["its process died", "out of memory"],
        accumulate_steps=2,
    )
    run = run_of(driver, number)
    assert run.parent_id == driver.recorder.parent_run_id
    assert run.parameters["model/kind"] == CONFIG.model.kind
    assert run.epochs == {
        1: {"val_nll": 5.0, "train_loss": 6.0, "epoch_s": 2.0},
        2: {"val_nll": 4.0, "train_loss": 5.0, "epoch_s": 2.0},
    }
    assert run.summary == {
        "objective": 4.0,
        "objective/val_nll": 4.0,
        "best_val_nll": 4.0,
        "best_val_error_median_mm": 30.0,
        "seconds": 12.0,
    }
    assert {name.removeprefix("gerbil_tune."): text for name, text in run.tags.items()} == {
        "trial": "0",
        "state": "complete",
        "parent_trial": "3",
        "root_trial": "1",
        "mishaps": "its process died; out of memory",
        "accumulate_steps": "2",
    }


def test_several_objectives_are_told_by_name(tmp_path):
    driver = Driver(tmp_path, MemoryTracker())
    driver.study = optuna.create_study(directions=["minimize", "minimize"])
    for name, value in {"study_id": "m", "objectives": ["val_nll", "predict_ms_per_event"]}.items():
        driver.study.set_user_attr(name, value)
    driver.begin()
    trial = driver.study.ask()
    driver.study.tell(trial, [2.0, 0.5])
    driver.recorder.on_end(driver.frozen(0), "")
    expected = {"objective": 2.0, "objective/val_nll": 2.0, "objective/predict_ms_per_event": 0.5}
    assert run_of(driver, 0).summary == expected
    driver.recorder.end(driver.study, "complete")


def test_reasons_are_told_and_forgotten_when_a_trial_goes_on(driver):
    driver.begin()
    number = driver.start()
    driver.epoch(number, 1, 5.0)
    for name, value in {"seconds": 3.0, "paused_at": 1}.items():
        driver.trials[number].set_user_attr(name, value)
    driver.recorder.on_pause(driver.frozen(number), "waits after 1 epochs")
    tags = run_of(driver, number).tags
    assert (tags["gerbil_tune.state"], tags["gerbil_tune.reason"]) == (
        "paused",
        "waits after 1 epochs",
    )

    driver.trials[number].set_user_attr("paused_at", 0)
    driver.go_on(number)
    tags = run_of(driver, number).tags
    assert (tags["gerbil_tune.state"], tags["gerbil_tune.reason"]) == ("running", "")
    driver.recorder.on_pause(driver.frozen(number), "stopped on request")
    assert run_of(driver, number).tags["gerbil_tune.state"] == "interrupted"

    driver.go_on(number)
    driver.end(number, TrialState.FAIL, "the loss became nan", reason_kind="diverged")
    tags = run_of(driver, number).tags
    assert tags["gerbil_tune.state"] == "failed"
    assert tags["gerbil_tune.reason"] == "the loss became nan"
    assert tags["gerbil_tune.reason_kind"] == "diverged"


def test_what_the_record_lacks_is_written_from_the_study(driver):
    complete, pruned, failed, interrupted, paused = (driver.start() for _ in range(5))
    for number in (complete, pruned, interrupted, paused):
        driver.epoch(number, 1, 5.0, told=False)
        driver.epoch(number, 2, 4.0, told=False)
    driver.end(complete, TrialState.COMPLETE, told=False, seconds=9.0)
    driver.end(pruned, TrialState.PRUNED, told=False, reason="not among the best")
    driver.end(failed, TrialState.FAIL, told=False, reason="nan", reason_kind="diverged")
    driver.trials[paused].set_user_attr("paused_at", 2)
    # The history knows an epoch more, one line of it is none, and its last line was cut.
    history = driver.folder / "trials" / f"{interrupted:05d}" / "metrics.jsonl"
    more = '\0\0\n{"epoch": "2"}\n{"epoch": 3, "val_nll": 3.0}\n{"epoch": 4, "va'
    history.write_text(history.read_text() + more)
    driver.study.enqueue_trial({})
    taken = optuna.trial.create_trial(value=1.0, user_attrs={"warm_start": "earlier/3"})
    driver.study.add_trial(taken)

    later = Driver(driver.folder, driver.tracker)
    later.begin()
    later.recorder.end(later.study, "interrupted")
    expected = ["complete", "pruned", "failed", "interrupted", "paused"]
    assert states(later) == dict(enumerate(expected))
    epochs = {
        1: {"val_nll": 5.0, "train_loss": 6.0, "epoch_s": 2.0},
        2: {"val_nll": 4.0, "train_loss": 5.0, "epoch_s": 2.0},
    }
    for number in (complete, pruned, interrupted, paused):
        assert run_of(later, number).epochs == epochs
    assert run_of(later, complete).parameters == FLAT
    assert run_of(later, complete).summary["objective"] == 4.0
    assert run_of(later, pruned).tags["gerbil_tune.reason"] == "not among the best"
    assert run_of(later, failed).tags["gerbil_tune.reason_kind"] == "diverged"
    parent = later.tracker.runs[later.recorder.parent_run_id]
    assert parent.tags["gerbil_tune.state"] == "interrupted"


def test_without_a_history_the_record_gets_what_the_study_knows(driver):
    number = driver.start()
    driver.epoch(number, 1, 5.0, told=False)
    driver.epoch(number, 2, 4.0, told=False)
    (driver.folder / "trials" / f"{number:05d}" / "metrics.jsonl").unlink()
    driver.begin()
    driver.recorder.end(driver.study, "interrupted")
    assert run_of(driver, number).epochs == {
        1: {"val_nll": 5.0},
        2: {"val_nll": 4.0, "train_loss": 5.0, "epoch_s": 2.0},
    }


def test_a_copy_does_not_tell_the_epochs_of_its_parent(driver):
    driver.begin()
    number = driver.start(parent=0)
    for epoch in (5, 6):
        driver.epoch(number, epoch, 1.0, told=False)
    history = driver.folder / "trials" / f"{number:05d}" / "metrics.jsonl"
    history.write_text('{"epoch": 4, "val_nll": 9.0}\n' + history.read_text())
    driver.recorder.end(driver.study, "interrupted")
    assert set(run_of(driver, number).epochs) == {5, 6}


def test_a_killed_driver_leaves_nothing_running(driver):
    driver.begin()
    over, alive = driver.start(), driver.start()
    driver.epoch(over, 1, 5.0)
    driver.recorder._delivery.drain(5.0)
    driver.recorder._delivery.close()  # from here on the process says nothing more
    driver.end(over, TrialState.PRUNED, told=False)
    assert states(driver) == {over: "running", alive: "running"}

    later = Driver(driver.folder, driver.tracker)
    later.begin()
    later.go_on(alive)
    later.recorder._delivery.drain(5.0)
    assert states(later) == {over: "pruned", alive: "running"}
    later.recorder.end(later.study, "interrupted")
    assert states(later) == {over: "pruned", alive: "interrupted"}
    assert len(later.tracker.runs) == 3


def test_a_record_that_is_right_is_left_alone(driver, monkeypatch):
    driver.begin()
    number = driver.start()
    driver.epoch(number, 1, 5.0)
    driver.end(number, TrialState.COMPLETE)
    driver.recorder._delivery.drain(5.0)
    assert list(driver.recorder._lacking(driver.tracker.recorded())) == []


def test_files_and_figures_of_merit_go_to_the_study(driver, tmp_path):
    page = tmp_path / "report.html"
    page.touch()
    driver.begin()
    driver.recorder.log_artifact(page, "pages")
    driver.recorder.log_summary({"best_val_nll": 1.0}, {"champion": "models:/g/1"})
    driver.recorder.end(driver.study, "complete")
    run = driver.tracker.runs[driver.recorder.parent_run_id]
    assert set(run.artifacts) == {"pages/report.html"}
    assert run.summary == {"best_val_nll": 1.0}
    assert run.tags["champion"] == "models:/g/1"
    assert run.tags["gerbil_tune.state"] == "complete"


def test_a_store_that_is_wrong_in_itself_stops_the_search_at_once(tmp_path):
    (tmp_path / "mlflow.db").write_text("this is no database")
    driver = Driver(tmp_path, MlflowTracker(f"sqlite:///{tmp_path}/mlflow.db"))
    with pytest.raises(LaunchError, match="cannot be opened"):
        driver.begin()
    started = time.perf_counter()
    driver.recorder.end(driver.study, "failed")
    assert time.perf_counter() - started < 5


# With real stores that fail


def run_trials(driver: Driver, during: Callable[[], None]) -> None:
    """Two trials, of which one ends; ``during`` is called in their midst."""
    first, second = driver.start(), driver.start()
    driver.epoch(first, 1, 5.0)
    during()
    started = time.perf_counter()
    driver.epoch(first, 2, 4.0)
    driver.epoch(second, 1, 3.0)
    driver.end(first, TrialState.COMPLETE, seconds=4.0)
    driver.epoch(second, 2, 2.0)
    assert time.perf_counter() - started < 2.0  # the study itself has a storage to write to


def check_mlflow(driver: Driver, uri: str) -> None:
    client = connect(uri)
    experiment = client.get_experiment_by_name(driver.study.study_name)
    runs = {
        run.data.tags.get("gerbil_tune.trial"): run
        for run in client.search_runs([experiment.experiment_id])
    }
    found = {trial: run.info.status for trial, run in runs.items()}
    assert found == {None: "KILLED", "0": "FINISHED", "1": "KILLED"}
    assert len(client.search_runs([experiment.experiment_id])) == 3
    for trial, values in {"0": [(1, 5.0), (2, 4.0)], "1": [(1, 3.0), (2, 2.0)]}.items():
        history = client.get_metric_history(runs[trial].info.run_id, "val_nll")
        assert [(metric.step, metric.value) for metric in history] == values
    assert runs["0"].data.metrics["objective"] == 4.0
    assert runs["0"].data.params["model/kind"] == CONFIG.model.kind


def locked(uri: str) -> sqlite3.Connection:
    connection = sqlite3.connect(uri.removeprefix("sqlite:///"), isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    return connection


def test_a_locked_store_delays_nothing_and_loses_nothing(tmp_path, mlflow_store):
    driver = Driver(tmp_path, MlflowTracker(mlflow_store), "locked")
    driver.begin()
    locks = []
    run_trials(driver, lambda: locks.append(locked(mlflow_store)))
    time.sleep(1.0)
    locks[0].close()
    driver.recorder.end(driver.study, "interrupted")
    check_mlflow(driver, mlflow_store)


@pytest.mark.slow
def test_a_store_that_is_locked_for_30_s_from_the_beginning(tmp_path, caplog):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    connect(uri)
    driver = Driver(tmp_path, MlflowTracker(uri))
    with closing(locked(uri)):
        started = time.perf_counter()
        assert driver.begin() is None
        assert "the study goes on" in caplog.text
        run_trials(driver, lambda: None)
        time.sleep(max(0.0, 30.0 - (time.perf_counter() - started)))
    driver.recorder.end(driver.study, "interrupted")
    assert driver.recorder.parent_run_id is not None
    check_mlflow(driver, uri)


class MlflowServer:
    """A real server on a local port, which can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        with closing(socket.socket()) as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.folder = folder

    def start(self) -> None:
        arguments = {
            "--backend-store-uri": f"sqlite:///{self.folder}/server.db",
            "--artifacts-destination": str(self.folder / "artifacts"),
            "--host": "127.0.0.1",
            "--port": str(self.port),
            "--workers": "1",
        }
        command = [sys.executable, "-m", "mlflow", "server"]
        with (self.folder / "server.log").open("a") as log:
            self.process = subprocess.Popen(
                [*command, *(word for pair in arguments.items() for word in pair)],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            with closing(socket.socket()) as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.2)
        raise TimeoutError((self.folder / "server.log").read_text())

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MlflowServer]:
    server = MlflowServer(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.mark.slow
def test_a_server_that_is_killed_and_comes_back(tmp_path, server, caplog):
    driver = Driver(tmp_path, MlflowTracker(server.uri))
    with caplog.at_level(logging.INFO, "gerbil_tune"):
        assert driver.begin() is not None
        run_trials(driver, server.kill)
        page = tmp_path / "report.html"
        page.touch()
        driver.recorder.log_artifact(page)
        assert driver.recorder._delivery.drain(5.0) > 0
        server.start()
        assert driver.recorder._delivery.drain(120.0) == 0
        driver.recorder.end(driver.study, "interrupted")
    check_mlflow(driver, server.uri)
    assert "can be used again" in caplog.text
    assert [file.name for file in (tmp_path / "artifacts").rglob("*.html")] == ["report.html"]


@pytest.mark.slow
def test_a_server_that_is_away_to_the_end_gets_all_with_the_next_run(
    tmp_path, server, caplog, monkeypatch
):
    monkeypatch.setitem(sys.modules["gerbil_tune.search.recorder"]._DRAIN_S, "interrupted", 1.0)
    driver = Driver(tmp_path, MlflowTracker(server.uri))
    driver.begin()
    run_trials(driver, server.kill)
    driver.recorder.end(driver.study, "interrupted")
    assert "did not take all of the record" in caplog.text
    server.start()
    later = Driver(tmp_path, MlflowTracker(server.uri))
    later.begin()
    monkeypatch.undo()
    later.recorder.end(later.study, "interrupted")
    check_mlflow(later, server.uri)
