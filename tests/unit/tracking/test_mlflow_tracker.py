"""What holds for MLflow only: limits, statuses, runs that a kill left behind, stores that fail."""

import sqlite3
from pathlib import Path

import pytest

from gerbil_tune.errors import LaunchError
from gerbil_tune.tracking.mlflow_tracker import MlflowTracker
from gerbil_tune.tracking.store import connect, mlflow_error
from gerbil_tune.tracking.tracker import EpochMetrics, RunUpdate, StoreAwayError


@pytest.fixture
def tracker(mlflow_store: str) -> MlflowTracker:
    return MlflowTracker(mlflow_store)


@pytest.fixture
def database(mlflow_store: str) -> Path:
    return Path(mlflow_store.removeprefix("sqlite:///"))


def epochs(last: int) -> RunUpdate:
    return RunUpdate(epochs={n: EpochMetrics(1000 + n, {"a": float(n)}) for n in range(last + 1)})


def test_parameters_are_written_as_in_a_config_and_cut_to_the_limit(tracker):
    tracker.open_study("parameters", "parameters", {}, {})
    parameters = {
        "a/bool": True,
        "a/null": None,
        "a/float": 1e-3,
        "a/list": (16, 32),
        "a/text": "gcc-net",
        "a/long": "x" * 7000,
        **{f"many/{i}": i for i in range(150)},
    }
    tracker.write(0, RunUpdate(parameters))
    run = connect(tracker.uri).get_run(tracker.recorded()[0].run_id)
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
    study_run = tracker.open_study("statuses", "statuses", {}, {})
    states = ("complete", "pruned", "failed", "paused", "interrupted", "running")
    for number, state in enumerate(states):
        tracker.write(number, RunUpdate(state=state, started_ms=5000, at_ms=7000))
    infos = [client.get_run(tracker.recorded()[n].run_id).info for n in range(len(states))]
    found = [info.status for info in infos]
    assert found == ["FINISHED", "FINISHED", "FAILED", "KILLED", "KILLED", "RUNNING"]
    assert {(info.start_time, info.end_time) for info in infos[:-1]} == {(5000, 7000)}
    tracker.write(None, RunUpdate(state="interrupted"))
    assert client.get_run(study_run).info.status == "KILLED"

    tracker.open_study("statuses", "statuses", {}, {})
    tracker.write(3, RunUpdate(state="running"))
    assert client.get_run(study_run).info.status == "RUNNING"
    assert client.get_run(infos[3].run_id).info.status == "RUNNING"


def test_a_run_that_was_closed_by_half_has_no_state(tracker):
    tracker.open_study("half", "half", {}, {})
    tracker.write(0, RunUpdate(state="running"))
    run_id = tracker.recorded()[0].run_id
    connect(tracker.uri).set_tag(run_id, "gerbil_tune.state", "complete")
    assert tracker.recorded()[0].state == ""
    later = MlflowTracker(tracker.uri)
    later.open_study("half", "half", {}, {})
    later.write(0, RunUpdate(state="complete"))
    assert later.recorded()[0] == (run_id, "complete", -1)


def test_a_kill_right_after_a_run_was_created_leaves_no_second_one(tracker):
    client = connect(tracker.uri)
    experiment = client.create_experiment("killed", artifact_location=tracker.artifact_location)
    study_tags = {"gerbil_tune.study": "killed", "gerbil_tune.study_id": "k"}
    parent = client.create_run(experiment, tags=study_tags).info.run_id
    trial_tags = {"mlflow.parentRunId": parent, "gerbil_tune.trial": "0"}
    child = client.create_run(experiment, tags=trial_tags).info.run_id

    assert tracker.open_study("killed", "k", {}, {}) == parent
    tracker.write(0, RunUpdate({"a": 1}, state="complete"))
    assert tracker.recorded() == {0: (child, "complete", -1)}
    assert client.get_run(child).data.params == {"a": "1"}
    assert len(client.search_runs([experiment])) == 2


def test_an_answer_that_was_lost_leaves_no_second_run(tracker, monkeypatch):
    tracker.open_study("answers", "answers", {}, {})
    client = tracker._connection()
    create_run = client.create_run

    def create_and_lose_the_answer(*args, **options):
        create_run(*args, **options)
        raise mlflow_error()("API request failed with exception: connection reset")

    monkeypatch.setattr(client, "create_run", create_and_lose_the_answer)
    with pytest.raises(StoreAwayError, match="connection reset"):
        tracker.write(3, epochs(2))
    monkeypatch.setattr(client, "create_run", create_run)
    created = tracker.recorded()[3].run_id
    tracker._runs.pop(3)
    tracker.write(3, epochs(2))
    assert tracker.recorded() == {3: (created, "running", 2)}
    assert len(list(tracker._search_trials())) == 1


def test_of_two_runs_of_a_trial_the_longer_one_stays(tracker):
    client = connect(tracker.uri)
    parent = tracker.open_study("twice", "twice", {}, {})
    experiment = client.get_experiment_by_name("twice").experiment_id
    tags = {"mlflow.parentRunId": parent, "gerbil_tune.trial": "0"}
    before = client.create_run(experiment, tags=tags, start_time=1).info.run_id
    tracker.write(0, epochs(4))
    longer = tracker._runs[0].run_id
    client.create_run(experiment, tags=tags)
    assert before != longer
    assert tracker.recorded()[0].run_id == longer
    assert {run.info.run_id for run in client.search_runs([experiment])} == {parent, longer}


def test_an_epoch_is_there_whole_or_not_at_all(tracker, database):
    tracker.open_study("whole", "whole", {}, {})
    tracker.write(0, epochs(0))
    with sqlite3.connect(database) as other:
        # Of epoch 1 the metric "a" comes first, and what says that the epoch is there comes last.
        other.execute(
            "CREATE TRIGGER full BEFORE INSERT ON metrics WHEN NEW.key = 'epoch' "
            "BEGIN SELECT RAISE(ABORT, 'disk full'); END"
        )
    other.close()
    later = MlflowTracker(tracker.uri)
    try:
        with pytest.raises(LaunchError, match="disk full"):
            tracker.write(0, epochs(1))
        later.open_study("whole", "whole", {}, {})
        assert later.recorded()[0].last_epoch == 0
    finally:
        with sqlite3.connect(database) as other:
            other.execute("DROP TRIGGER full")
        other.close()
    later.write(0, epochs(1))
    history = connect(tracker.uri).get_metric_history(later.recorded()[0].run_id, "a")
    assert [(metric.step, metric.value) for metric in history] == [(0, 0.0), (1, 1.0)]


def test_artifacts_lie_beside_the_database(tracker, database):
    run_id = tracker.open_study("artifacts", "artifacts", {}, {})
    (database.parent / "note.txt").write_text("note")
    tracker.log_artifact(database.parent / "note.txt")
    stored = database.parent / "mlartifacts" / run_id / "artifacts" / "note.txt"
    assert stored.read_text() == "note"


def test_a_table_that_is_away_for_now_is_told_as_such(tracker, database):
    tracker.open_study("outage", "outage", {}, {})
    with sqlite3.connect(database) as other:
        other.execute("ALTER TABLE metrics RENAME TO metrics_away")
    other.close()
    try:
        with pytest.raises(StoreAwayError, match="cannot be used"):
            tracker.write(0, epochs(1))
    finally:
        with sqlite3.connect(database) as other:
            other.execute("ALTER TABLE metrics_away RENAME TO metrics")
        other.close()
    tracker.write(0, epochs(1))
    assert tracker.recorded()[0].last_epoch == 1


def test_a_call_that_will_never_do_is_told_as_such(tracker):
    tracker.open_study("wrong", "wrong", {}, {})
    with pytest.raises(LaunchError, match="Names may only contain") as caught:
        tracker.write(0, RunUpdate(summary={"loss?": 1.0}))
    assert not isinstance(caught.value, StoreAwayError)


def test_a_deleted_experiment_is_not_revived(tracker):
    tracker.open_study("deleted", "deleted", {}, {})
    client = connect(tracker.uri)
    client.delete_experiment(client.get_experiment_by_name("deleted").experiment_id)
    with pytest.raises(LaunchError, match="was deleted; restore it with `mlflow experiments"):
        tracker.open_study("deleted", "deleted", {}, {})


def test_a_run_that_was_deleted_is_written_anew(tracker):
    tracker.open_study("anew", "anew", {}, {})
    tracker.write(0, epochs(1))
    deleted = tracker.recorded()[0].run_id
    connect(tracker.uri).delete_run(deleted)
    assert tracker.recorded() == {}
    tracker.write(0, epochs(1))
    assert tracker.recorded()[0].run_id != deleted


def test_a_store_that_cannot_be_opened_is_one_sentence(tmp_path):
    (tmp_path / "mlflow.db").write_text("this is no database")
    with pytest.raises(
        LaunchError, match=r"the MLflow store .*mlflow.db cannot be opened"
    ) as caught:
        MlflowTracker(f"sqlite:///{tmp_path}/mlflow.db").open_study("s", "s", {}, {})
    assert not isinstance(caught.value, StoreAwayError)


def test_a_server_that_is_away_is_told_without_its_password(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(StoreAwayError, match=r"http://lab:\*\*\*@127.0.0.1:9 cannot") as caught:
        MlflowTracker("http://lab:s3cret@127.0.0.1:9").open_study("s", "s", {}, {})
    assert "s3cret" not in str(caught.value)
