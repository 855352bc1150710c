"""An ensemble goes everywhere that a bundle goes."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from gerbil_tune.cli.evaluate import evaluate_models, print_comparison
from gerbil_tune.cli.registry import register_bundle_folder
from gerbil_tune.config.schema import DataConfig
from gerbil_tune.data.events import open_events
from gerbil_tune.errors import ModelNotFoundError
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.inference.arrays import predict_arrays
from gerbil_tune.inference.job import predict_files
from gerbil_tune.inference.predict import predict_events, predict_with_bundle
from gerbil_tune.models.bundle import load_bundle
from gerbil_tune.models.calibrated import Calibration
from gerbil_tune.models.ensemble import save_ensemble
from gerbil_tune.tracking.model_registry import list_models, resolve_model
from gerbil_tune.tracking.store import known_warnings_ignored

SETUP = RecordingSetup(4, 125_000.0, (572.0, 356.0))
CROPS = (500, 700)


@pytest.fixture(scope="module")
def members(make_bundle) -> list[Path]:
    return [
        make_bundle(SETUP, seed=seed, data=DataConfig(evaluation_crop_length=crop))
        for seed, crop in enumerate(CROPS)
    ]


@pytest.fixture(scope="module")
def ensemble(members, tmp_path_factory) -> Path:
    return save_ensemble(
        tmp_path_factory.mktemp("models") / "gerbil-locator",
        members,
        metrics={"val_error_median_mm": 9.0},
        calibration=Calibration(1.5),
        provenance={"data_fingerprint": "d", "mean_location_mm": [[1.0, 2.0]], "study": "s"},
    )


@pytest.fixture
def recording(make_event_file) -> Path:
    return make_event_file(lengths=[900, 300, 650, 20, 700, 1501])


def no_ray() -> None:
    raise AssertionError("a small job starts no Ray")


def test_events_are_predicted_as_by_the_members_alone(ensemble, members, recording):
    """Up to a sample, by which the middle of the longer crop may be beside that of the event."""
    events = open_events(recording)
    mean = predict_with_bundle(ensemble, events).mean_mm_NKD
    answers = [
        predict_events(load_bundle(path), events, per_worker_batch_size=4) for path in members
    ]
    expected = np.mean([answer.mean_mm_NKD for answer in answers], axis=0)
    np.testing.assert_allclose(mean, expected, atol=0.5)
    even = [1, 2, 3, 4]  # events of which both crops have the same middle
    np.testing.assert_allclose(mean[even], expected[even], atol=1e-2)


def test_padded_arrays_are_predicted_as_files_are(ensemble, recording):
    events = open_events(recording)
    padded = np.zeros((6, 1600, 4), np.float32)
    for i in range(6):
        padded[i, : events.lengths[i]] = events.read(i)
    bundle = load_bundle(ensemble)
    received, wanted = predict_arrays(bundle, padded), predict_with_bundle(ensemble, events)
    for field in ("mean_mm_NKD", "covariance_mm2_NKDD"):
        np.testing.assert_allclose(
            getattr(received, field), getattr(wanted, field), rtol=1e-3, atol=1e-2
        )


def test_predict_writes_its_file_and_knows_it_again(ensemble, recording, tmp_path):
    model = resolve_model(str(ensemble / "ensemble.json"), "sqlite:///none.db")
    assert model.path == ensemble
    output = tmp_path / "out.h5"
    first = predict_files(model, [recording], output, start_ray=no_ray)
    assert (first.num_events, first.num_failed_events) == (6, 0)
    with h5py.File(output) as file:
        assert file.attrs["model_fingerprint"] == load_bundle(ensemble).fingerprint
        mean = predict_with_bundle(ensemble, open_events(recording)).mean_mm_NKD
        np.testing.assert_allclose(file["predictions"][()], mean[:, 0], rtol=1e-5)
    again = predict_files(model, [recording], output, start_ray=no_ray)
    assert again.reused == (output,)


def test_evaluate_compares_it_with_its_members(ensemble, members, make_event_file, capsys):
    events = open_events(make_event_file(num_events=20, groups=np.arange(20) // 2))
    models = {"both": ensemble, "one": members[0]}
    result = evaluate_models(models, events)
    assert [row.name for row in result.rows()] == ["chance (training mean)", "both", "one"]
    print_comparison(result, models, events)
    printed = capsys.readouterr().out
    assert "paired bootstrap" in printed
    assert "on 20 events, drawn by 10 groups (with 95% intervals" in printed


def test_it_is_registered_listed_and_loaded_by_mlflow(ensemble, recording, mlflow_store):
    model, version = register_bundle_folder(ensemble, mlflow_store, name="together")
    (row,) = [row for row in list_models(mlflow_store) if row.name == model]
    assert row.tags["architecture"] == "ensemble of gcc-net"
    assert row.metrics == {"val_error_median_mm": 9.0}
    found = resolve_model(f"models:/together/{version}", mlflow_store)
    assert load_bundle(found.path).fingerprint == load_bundle(ensemble).fingerprint
    audio = np.array(open_events(recording).read(1))[None]
    with known_warnings_ignored():
        import mlflow.pyfunc

        served = mlflow.pyfunc.load_model(str(found.path.parents[1])).predict(audio)
    mean = predict_arrays(load_bundle(ensemble), audio).mean_mm_NKD
    np.testing.assert_allclose(served["predictions"], mean[:, 0], rtol=1e-5)


def test_a_folder_of_models_names_ensembles_too(ensemble, mlflow_store):
    with pytest.raises(ModelNotFoundError, match="choose one of its bundles: 00001"):
        resolve_model(str(ensemble.parent), mlflow_store)
