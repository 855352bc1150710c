"""What holds for MLflow only: limits, statuses, stores that fail."""

import logging
import sqlite3
from pathlib import Path

import pytest

from gerbil_tune.errors import ConfigError, LaunchError
from gerbil_tune.tracking.mlflow_tracker import MlflowTracker
from gerbil_tune.tracking.store import connect


@pytest.fixture
def tracker(mlflow_store: str) -> MlflowTracker:
    return MlflowTracker(mlflow_store)


@pytest.fixture
def database(mlflow_store: str) -> Path:
    return Path(mlflow_store.removeprefix("sqlite:///"))


def test_parameters_are_written_as_in_a_config_and_cut_to_the_limit(tracker):
    tracker.start_study("parameters", {}, {})
    parameters = {
        "a/bool": True,
        "a/null": None,
        "a/float": 1e-3,
        "a/list": (16, 32),
        "a/text": "gcc-net",
        "a/long": "x" * 7000,
        **{f"many/{i}": i for i in range(150)},
    }
    run = connect(tracker.uri).get_run(tracker.start_trial(0, parameters))
    stored = run.data.params
    assert len(stored) == len(parameters)
    assert [stored[f"a/{k}"] for k in ("bool", "null", "float", "list", "text")] == [
        "true",
        "null",
        "0.001",
        "[16, 32]",
        "gcc-net",
    ]
    assert stored["a/long"] == "x" * 5997 + "..."


def test_states_become_statuses_of_mlflow(tracker):
    client = connect(tracker.uri)
    study_id = tracker.start_study("statuses", {}, {})
    runs = [tracker.start_trial(number, {}) for number in range(4)]
    for run_id, status in zip(runs, ("complete", "pruned", "failed"), strict=False):
        tracker.end_trial(run_id, status)
    assert client.get_run(runs[3]).info.status == "RUNNING"
    tracker.end_study("complete")
    found = [client.get_run(run_id).info.status for run_id in [*runs, study_id]]
    assert found == ["FINISHED", "FINISHED", "FAILED", "KILLED", "FINISHED"]
    tracker.start_study("statuses", {}, {})
    tracker.start_trial(3, {}, runs[3])
    assert client.get_run(study_id).info.status == "RUNNING"
    assert client.get_run(runs[3]).info.status == "RUNNING"


def test_artifacts_lie_beside_the_database(tracker, database):
    run_id = tracker.start_study("artifacts", {}, {})
    (database.parent / "note.txt").write_text("note")
    tracker.log_artifact(run_id, database.parent / "note.txt")
    stored = database.parent / "mlartifacts" / run_id / "artifacts" / "note.txt"
    assert stored.read_text() == "note"


def test_what_cannot_be_written_now_is_written_later(tracker, database, caplog):
    tracker.start_study("outage", {}, {})
    run_id = tracker.start_trial(0, {})
    with sqlite3.connect(database) as other:
        other.execute("ALTER TABLE metrics RENAME TO metrics_away")
    other.close()
    with caplog.at_level(logging.WARNING, "gerbil_tune"):
        tracker.log_epoch(run_id, 0, {"a": 1.0})
        tracker.log_epoch(run_id, 1, {"a": 2.0})
    assert len(caplog.records) == 1
    assert "cannot be written" in caplog.text
    with sqlite3.connect(database) as other:
        other.execute("ALTER TABLE metrics_away RENAME TO metrics")
    other.close()
    tracker.end_trial(run_id, "complete")
    tracker.end_study("complete")
    history = connect(tracker.uri).get_metric_history(run_id, "a")
    assert [(metric.step, metric.value) for metric in history] == [(0, 1.0), (1, 2.0)]


def test_a_call_that_will_never_do_is_raised_at_once(tracker):
    tracker.start_study("wrong", {}, {})
    with pytest.raises(Exception, match="Names may only contain"):
        tracker.log_summary(tracker.start_trial(0, {}), {"loss?": 1.0})


def test_a_deleted_experiment_is_not_revived(tracker):
    tracker.start_study("deleted", {}, {})
    client = connect(tracker.uri)
    client.delete_experiment(client.get_experiment_by_name("deleted").experiment_id)
    with pytest.raises(ConfigError, match="was deleted; restore it with `mlflow experiments"):
        tracker.start_study("deleted", {}, {})


def test_a_store_that_cannot_be_opened_is_one_sentence(tmp_path):
    (tmp_path / "mlflow.db").write_text("this is no database")
    with pytest.raises(LaunchError, match=r"the MLflow store .*mlflow.db cannot be opened"):
        MlflowTracker(f"sqlite:///{tmp_path}/mlflow.db").start_study("s", {}, {})
