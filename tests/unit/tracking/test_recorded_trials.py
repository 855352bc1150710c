import pytest

from gerbil_tune.errors import ConfigError
from gerbil_tune.tracking.mlflow_tracker import MlflowTracker
from gerbil_tune.tracking.recorded_trials import RecordedTrial, recorded_trials
from gerbil_tune.tracking.store import connect
from gerbil_tune.tracking.tracker import EpochMetrics, RunUpdate


def test_trials_come_back_as_they_were_recorded(mlflow_store):
    tracker = MlflowTracker(mlflow_store)
    tracker.open_study("earlier", "earlier", {"trials": 2}, {})
    tracker.write(
        0,
        RunUpdate(
            {"features/gcc/envelope": True, "model/channels": [16, 32], "model/kind": "gcc-net"},
            epochs={
                1: EpochMetrics(1000, {"val_nll": 3.0}),
                2: EpochMetrics(2000, {"val_nll": 4.0}),
            },
            summary={"objective/val_nll": 3.0, "seconds": 5.0},
            state="complete",
            started_ms=1000,
        ),
    )
    tracker.write(1, RunUpdate(state="pruned", started_ms=2000))
    done, pruned = recorded_trials("earlier", mlflow_store)
    assert done.parameters == {
        "features/gcc/envelope": "true",
        "model/channels": "[16, 32]",
        "model/kind": "gcc-net",
    }
    assert done.status == "complete"
    assert done.metrics["val_nll"] == 4.0
    assert done.value("val_nll") == 3.0
    assert pruned == RecordedTrial({}, {}, "pruned")
    assert pruned.value("val_nll") is None


def test_runs_of_other_programs_count_too(mlflow_store, monkeypatch):
    client = connect(mlflow_store)
    run = client.create_run(client.create_experiment("foreign"))
    client.log_param(run.info.run_id, "optimizer/learning_rate", 0.01)
    client.log_metric(run.info.run_id, "val_nll", 2.0)
    client.set_terminated(run.info.run_id)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_store)
    (trial,) = recorded_trials("foreign")
    assert trial == RecordedTrial({"optimizer/learning_rate": "0.01"}, {"val_nll": 2.0}, "complete")
    assert trial.value("val_nll") == 2.0


def test_an_experiment_that_is_not_there_is_told_with_those_that_are(mlflow_store):
    MlflowTracker(mlflow_store).open_study("there", "there", {}, {})
    with pytest.raises(ConfigError, match=r"no MLflow experiment 'nowhere' in .*it has .*there"):
        recorded_trials("nowhere", mlflow_store)
