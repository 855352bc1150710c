import pytest

from gerbil_tune.errors import LaunchError
from gerbil_tune.tracking.evaluations import (
    EXPERIMENT,
    EvaluationRecord,
    has_store,
    log_evaluation,
)
from gerbil_tune.tracking.store import connect, known_warnings_ignored


@pytest.fixture(autouse=True)
def _quiet():
    with known_warnings_ignored():
        yield


def test_an_evaluation_is_a_run_with_its_files(mlflow_store, tmp_path):
    page = tmp_path / "out.html"
    page.write_text("<html></html>")
    record = EvaluationRecord(
        name="net on calls.h5",
        parameters={"net@champion, new/model": "models:/net/3", "data": "d" * 9000},
        metrics={
            "SRP-PHAT, weighted": {"error_median_mm": 7.0},
            "SRP-PHAT; weighted": {"error_median_mm": 8.0, "nll": float("inf")},
        },
        tags={"gerbil_tune.model": "models:/net/3"},
        files=[page],
    )
    run_id = log_evaluation(record, mlflow_store)
    client = connect(mlflow_store)
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert client.get_experiment(run.info.experiment_id).name == EXPERIMENT
    assert run.data.metrics == {
        "SRP-PHAT_ weighted/error_median_mm": 7.0,
        "SRP-PHAT_ weighted 2/error_median_mm": 8.0,
    }
    assert run.data.params["net_champion_ new/model"] == "models:/net/3"
    assert run.data.tags["gerbil_tune.kind"] == "evaluation"
    assert [file.path for file in client.list_artifacts(run_id)] == ["out.html"]


def test_a_run_whose_files_cannot_be_kept_has_failed(mlflow_store, tmp_path):
    record = EvaluationRecord("lost files", {}, {}, {}, [tmp_path / "none.html"])
    with pytest.raises(LaunchError, match="cannot be used to log the evaluation"):
        log_evaluation(record, mlflow_store)
    client = connect(mlflow_store)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    runs = client.search_runs([experiment.experiment_id], "attributes.run_name = 'lost files'")
    assert [run.info.status for run in runs] == ["FAILED"]


def test_a_store_is_there_or_may_be(tmp_path):
    assert not has_store(f"sqlite:///{tmp_path}/mlflow.db")
    (tmp_path / "mlflow.db").touch()
    assert has_store(f"sqlite:///{tmp_path}/mlflow.db")
    assert has_store("http://127.0.0.1:5000")
