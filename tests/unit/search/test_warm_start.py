"""Known trials from real studies on disk; those of MLflow through what the tracking layer returns."""

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from gerbil_tune.config.load import compose, flatten
from gerbil_tune.config.space import SpaceFile
from gerbil_tune.errors import ConfigError
from gerbil_tune.search.space import sample
from gerbil_tune.search.storage import open_study, storage_url, write_study_file
from gerbil_tune.search.warm_start import add_earlier_trials

RATE = {"type": "float", "low": 1e-4, "high": 1e-2, "log": True}
PARAMETERS: dict[str, Any] = {
    "optimizer/learning_rate": RATE,
    "model/kind": {
        "type": "branch",
        "branches": {
            "gcc-net": {
                "model/lags/hidden": {"type": "int", "low": 8, "high": 32},
                "features/gcc/envelope": {"type": "categorical", "choices": [False, True]},
            },
            "densenet": {"model/growth": {"type": "int", "low": 4, "high": 8}},
        },
    },
}


def make_space(parameters: dict[str, Any] | None = None, **study: object) -> SpaceFile:
    return SpaceFile.model_validate(
        {"name": "s", "study": study, "parameters": parameters or PARAMETERS}
    )


def keep_study(folder: Path, space: SpaceFile, number: int) -> optuna.Study:
    """A finished study on disk; every third trial was stopped."""
    folder.mkdir(parents=True)
    study = open_study(storage_url(folder), folder.name, space)
    study.sampler = optuna.samplers.RandomSampler(seed=1)
    for _ in range(number):
        trial = study.ask()
        values = sample(trial, space.parameters)
        trial.set_user_attr("config", flatten(compose(space.base, values, "t")))
        if trial.number % 3 == 2:
            study.tell(trial, state=TrialState.PRUNED)
            continue
        trial.set_user_attr("best_metrics", {"val_calibration_error": 0.1 * trial.number})
        study.tell(trial, 10.0 + trial.number)
    write_study_file(folder, folder.name, storage_url(folder), space)
    return study


def test_complete_trials_are_taken_once(tmp_path: Path) -> None:
    earlier = keep_study(tmp_path / "old", make_space(), 9)
    reference = str(tmp_path / "old")
    storage = f"sqlite:///{tmp_path}/new.db"
    complete = [trial for trial in earlier.trials if trial.state is TrialState.COMPLETE]
    for _ in range(2):
        study = open_study(storage, "new", make_space())
        told = add_earlier_trials(study, make_space(), [reference])
        assert told == [
            f"warm start: 6 of 6 complete trials of {reference} lie within the space and know all "
            "objectives"
        ]
        assert [t.params for t in study.trials] == [t.params for t in complete]
        assert [t.value for t in study.trials] == [t.value for t in complete]
        assert {t.user_attrs["warm_start"] for t in study.trials} == {reference}
        assert [t.user_attrs["config"] for t in study.trials] == [
            t.user_attrs["config"] for t in complete
        ]
        assert {t.state for t in study.trials} == {TrialState.COMPLETE}


def test_a_name_under_studies_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_study(tmp_path / "studies" / "old", make_space(), 2)
    monkeypatch.chdir(tmp_path)
    study = optuna.create_study()
    add_earlier_trials(study, make_space(), ["old"])
    assert len(study.trials) == 2


def test_a_study_is_taken_once_whatever_it_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_study(tmp_path / "studies" / "old", make_space(), 2)
    monkeypatch.chdir(tmp_path)
    study = optuna.create_study()
    for reference in ("old", "studies/old", str(tmp_path / "studies" / "old")):
        told = add_earlier_trials(study, make_space(), [reference])
        assert told[0].startswith("warm start: 2 of 2 complete trials")
        assert len(study.trials) == 2


def test_of_studies_without_an_id_the_name_counts(tmp_path: Path) -> None:
    earlier = keep_study(tmp_path / "old", make_space(), 2)
    earlier.set_user_attr("study_id", None)
    study = optuna.create_study()
    for _ in range(2):
        add_earlier_trials(study, make_space(), [str(tmp_path / "old")])
        assert len(study.trials) == 2
    earlier.set_user_attr("study_id", "given since")
    add_earlier_trials(study, make_space(), [str(tmp_path / "old")])
    assert len(study.trials) == 2


def test_equal_trials_of_two_studies_are_both_taken(tmp_path: Path) -> None:
    for name in ("old", "older"):
        keep_study(tmp_path / name, make_space(), 1)
    study = optuna.create_study()
    add_earlier_trials(study, make_space(), [str(tmp_path / name) for name in ("old", "older")])
    assert len(study.trials) == 2


def test_what_the_new_space_would_not_propose_is_left(tmp_path: Path) -> None:
    earlier = keep_study(tmp_path / "old", make_space(), 15)
    narrow = {
        "optimizer/learning_rate": {**RATE, "high": 1e-3},
        "model/kind": {"type": "categorical", "choices": ["gcc-net"]},
        "training/global_batch_size": {"type": "categorical", "choices": [32, 64]},
    }
    study = optuna.create_study()
    add_earlier_trials(study, make_space(narrow), [str(tmp_path / "old")])
    expected = [
        trial.params["optimizer/learning_rate"]
        for trial in earlier.trials
        if trial.state is TrialState.COMPLETE
        and trial.params["optimizer/learning_rate"] <= 1e-3
        and trial.params["model/kind"] == "gcc-net"
    ]
    assert [t.params["optimizer/learning_rate"] for t in study.trials] == expected
    assert expected
    # The old study did not search it, but its configs tell what it was.
    assert {t.params["training/global_batch_size"] for t in study.trials} == {64}
    missing = {**narrow, "training/global_batch_size": {"type": "int", "low": 65, "high": 70}}
    empty = optuna.create_study()
    add_earlier_trials(empty, make_space(missing), [str(tmp_path / "old")])
    assert empty.trials == []


def test_several_objectives_need_to_be_known(tmp_path: Path) -> None:
    keep_study(tmp_path / "old", make_space(), 4)
    calibrated = make_space(further_objectives=["val_calibration_error"])
    study = optuna.create_study(directions=["minimize"] * 2)
    add_earlier_trials(study, calibrated, [str(tmp_path / "old")])
    assert [t.values for t in study.trials] == [
        [10.0, 0.0],
        [11.0, 0.1],
        [13.0, pytest.approx(0.3)],
    ]
    timed = make_space(further_objectives=["predict_ms_per_event"])
    study = optuna.create_study(directions=["minimize"] * 2)
    told = add_earlier_trials(study, timed, [str(tmp_path / "old")])
    assert told[0].startswith("warm start: 0 of 3 complete trials")


def test_another_metric_is_refused(tmp_path: Path) -> None:
    keep_study(tmp_path / "old", make_space(), 1)
    study = optuna.create_study()
    with pytest.raises(ConfigError, match="old minimized val_error_median_mm, but this study"):
        add_earlier_trials(study, make_space(metric="val_nll"), [str(tmp_path / "old")])


def test_a_reference_that_leads_nowhere_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"study/warm_start: nowhere is neither the folder"):
        add_earlier_trials(optuna.create_study(), make_space(), ["nowhere"])


def test_an_mlflow_experiment(mlflow_store: str) -> None:
    from gerbil_tune.tracking.store import connect

    client = connect(mlflow_store)
    experiment = client.create_experiment("warm start")
    base = {
        "optimizer/learning_rate": "0.001",
        "model/kind": "gcc-net",
        "model/lags/hidden": "16",
        "features/gcc/envelope": "true",
        "features/gcc/band_high_hz": "null",
    }
    runs: list[tuple[dict[str, str], str]] = [
        (base, "FINISHED"),
        ({**base, "features/gcc/envelope": "False"}, "FINISHED"),
        ({**base, "model/lags/hidden": "16.5"}, "FINISHED"),
        ({**base, "optimizer/learning_rate": "1.0"}, "FINISHED"),
        ({**base, "model/kind": "simplenet"}, "FINISHED"),
        (base, "FAILED"),
    ]
    for number, (parameters, status) in enumerate(runs):
        run_id = client.create_run(experiment).info.run_id
        for name, value in parameters.items():
            client.log_param(run_id, name, value)
        client.log_metric(run_id, "val_error_median_mm", 90.0)
        client.log_metric(run_id, "best_val_error_median_mm", 50.0 + number)
        client.set_terminated(run_id, status)
    parameters_with_null = {
        **PARAMETERS,
        "features/gcc/band_high_hz": {"type": "categorical", "choices": [None, 20000.0]},
    }
    space = make_space(parameters_with_null)
    study = optuna.create_study()
    for _ in range(2):
        told = add_earlier_trials(study, space, ["mlflow:warm start"], mlflow_store)
    assert told[0].startswith("warm start: 2 of 5 complete trials of mlflow:warm start lie within")
    expected = {
        "optimizer/learning_rate": 0.001,
        "model/kind": "gcc-net",
        "model/lags/hidden@gcc-net": 16,
        "features/gcc/envelope@gcc-net": True,
        "features/gcc/band_high_hz": None,
    }
    assert [t.params for t in study.trials] == [
        expected,
        {**expected, "features/gcc/envelope@gcc-net": False},
    ]
    assert [t.value for t in study.trials] == [50.0, 51.0]


def test_an_experiment_that_does_not_exist_is_refused(mlflow_store: str) -> None:
    with pytest.raises(ConfigError, match="there is no MLflow experiment 'nothing here'"):
        add_earlier_trials(
            optuna.create_study(), make_space(), ["mlflow:nothing here"], mlflow_store
        )
