"""Registering, listing, promoting and resolving, with a real bundle in a real store."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import gerbil_tune
from gerbil_tune.errors import ConfigError, LaunchError, ModelNotFoundError
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.bundle import load_bundle
from gerbil_tune.tracking.mlflow_tracker import MlflowTracker
from gerbil_tune.tracking.model_registry import (
    list_models,
    register_bundle,
    resolve_model,
    set_alias,
)
from gerbil_tune.tracking.store import connect
from gerbil_tune.tracking.tracker import RunUpdate

NAME = "registry-test"
SETUP = RecordingSetup(4, 125_000.0, (572.0, 356.0))
PYFUNC_FILE = Path(gerbil_tune.__file__).with_name("pyfunc.py")


@pytest.fixture(scope="module")
def bundle(make_bundle: Callable[..., Path]) -> Path:
    return make_bundle(SETUP, temperature=1.5)


@pytest.fixture(scope="module")
def tracker(mlflow_store: str) -> MlflowTracker:
    return MlflowTracker(mlflow_store)


@pytest.fixture(scope="module")
def run_id(tracker: MlflowTracker, bundle: Path) -> str:
    """A trial's run whose bundle is version 1, champion, and also version 2."""
    tracker.open_study("s", "s", {}, {})
    tracker.write(0, RunUpdate(state="running"))
    trial = tracker.recorded()[0].run_id
    for version in (1, 2):
        assert version == register_bundle(
            bundle,
            model_name=NAME,
            run_id=trial,
            setup=SETUP,
            pyfunc_file=PYFUNC_FILE,
            tags={"study": "s"},
            tracking_uri=tracker.uri,
            metrics={"validation/error_mm": 12.5},
        )
    set_alias(NAME, "champion", 1, tracker.uri)
    return trial


def test_versions_are_listed_newest_first(tracker, run_id):
    newer, older = [row for row in list_models(tracker.uri) if row.name == NAME]
    assert (newer.version, newer.aliases) == (2, ())
    assert (older.version, older.aliases) == (1, ("champion",))
    assert older.run_id == run_id
    assert older.metrics == {"validation/error_mm": 12.5}
    assert older.tags == {"study": "s"}
    assert older.created.tzinfo is not None


@pytest.mark.parametrize(
    ("reference", "version"),
    [
        (f"models:/{NAME}@champion", "1"),
        (f"models:/{NAME}/2", "2"),
        (f"models:/{NAME}/latest", "2"),
    ],
)
def test_a_reference_leads_to_a_copy_of_the_bundle(tracker, run_id, bundle, reference, version):
    model = resolve_model(reference, tracker.uri)
    assert (model.uri, model.version) == (f"models:/{NAME}/{version}", version)
    assert model.path != bundle
    copied = {file.name: file.read_bytes() for file in model.path.iterdir()}
    assert copied == {file.name: file.read_bytes() for file in bundle.iterdir()}


def test_a_folder_or_its_config_is_a_reference_too(tracker, bundle):
    for reference in (bundle, bundle / "config.json"):
        model = resolve_model(str(reference), tracker.uri)
        assert (model.path, model.uri, model.version) == (bundle, str(bundle), None)


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        (f"models:/{NAME}@challenger", rf"models:/{NAME} \(versions 2, 1; @champion = 1\)"),
        (f"models:/{NAME}/9", "versions 2, 1"),
        (f"models:/{NAME}", "the forms are models:/NAME@ALIAS"),
        ("models:/other@champion", "@champion = 1"),
        ("no/such/folder", rf"neither an existing bundle folder nor .*models:/{NAME}"),
    ],
)
def test_a_reference_that_leads_nowhere_says_what_there_is(tracker, run_id, reference, says):
    with pytest.raises(ModelNotFoundError, match=says):
        resolve_model(reference, tracker.uri)


def test_a_folder_of_bundles_names_them(tracker, bundle, tmp_path):
    with pytest.raises(ModelNotFoundError, match="choose one of its bundles: 00001"):
        resolve_model(str(bundle.parent), tracker.uri)
    with pytest.raises(ModelNotFoundError, match="it holds no bundle"):
        resolve_model(str(tmp_path), tracker.uri)


def test_asking_makes_no_store(tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    with pytest.raises(ModelNotFoundError, match="no model is registered there"):
        resolve_model("models:/a@b", uri)
    assert list_models(uri) == []
    assert not list(tmp_path.iterdir())


def test_an_alias_moves_only_to_versions_that_exist(tracker, run_id):
    set_alias(NAME, "trial-run", 1, tracker.uri)
    set_alias(NAME, "trial-run", 2, tracker.uri)
    assert resolve_model(f"models:/{NAME}@trial-run", tracker.uri).version == "2"
    with pytest.raises(ModelNotFoundError, match="has no version 7"):
        set_alias(NAME, "champion", 7, tracker.uri)
    with pytest.raises(ConfigError, match="'latest' cannot be set"):
        set_alias(NAME, "latest", 1, tracker.uri)
    connect(tracker.uri).delete_registered_model_alias(NAME, "trial-run")


def test_a_bundle_without_a_run_gets_one(tracker, bundle):
    register_bundle(
        bundle,
        model_name="imported",
        run_id=None,
        setup=SETUP,
        pyfunc_file=PYFUNC_FILE,
        tags={},
        tracking_uri=tracker.uri,
    )
    (row,) = [row for row in list_models(tracker.uri) if row.name == "imported"]
    run = connect(tracker.uri).get_run(row.run_id)
    assert run.info.run_name == "registered from gerbil-locator/00001"
    assert run.info.status == "FINISHED"


def test_what_is_no_bundle_is_not_registered(tracker, tmp_path):
    with pytest.raises(ModelNotFoundError, match=r"it has no config\.json"):
        register_bundle(
            tmp_path,
            model_name="none",
            run_id=None,
            setup=SETUP,
            pyfunc_file=PYFUNC_FILE,
            tags={},
            tracking_uri=tracker.uri,
        )


def test_files_that_were_deleted_are_missed(tracker, run_id, tmp_path):
    client = connect(tracker.uri)
    client.create_registered_model("lost")
    client.create_model_version("lost", source=(tmp_path / "gone").as_uri(), run_id=run_id)
    with pytest.raises(ModelNotFoundError, match="its files are not in"):
        resolve_model("models:/lost/1", tracker.uri)


def test_a_broken_store_is_one_sentence(tmp_path):
    (tmp_path / "mlflow.db").write_text("no database")
    with pytest.raises(LaunchError, match="cannot be opened"):
        list_models(f"sqlite:///{tmp_path}/mlflow.db")


def test_a_version_loads_in_a_fresh_process_without_a_word(tracker, run_id, bundle, tmp_path):
    """As a user of MLflow would load it, with wrong input refused by the signature."""
    rng = np.random.default_rng(0)
    audio = rng.standard_normal((3, 3000, 4)).astype(np.float32)
    audio[1, 2000:] = 0
    np.save(tmp_path / "audio.npy", audio)
    program = (
        "import json, sys, mlflow, numpy as np\n"
        f"model = mlflow.pyfunc.load_model('models:/{NAME}@champion')\n"
        "audio = np.load('audio.npy')\n"
        "answer = model.predict(audio)\n"
        "ragged = [audio[0], audio[1, :2000], audio[2]]\n"
        "lengths = {'lengths': [3000, 2000, 3000], 'sample_rate_hz': 125000.0}\n"
        "others = [model.predict(audio, params=lengths), model.predict(model.input_example)]\n"
        "others.append(model.unwrap_python_model().predict(None, ragged))\n"
        "refused = 0\n"
        "for wrong in (audio[..., :3], audio.astype(np.float64), audio[0]):\n"
        "    try:\n"
        "        model.predict(wrong)\n"
        "    except mlflow.exceptions.MlflowException:\n"
        "        refused += 1\n"
        "try:\n"
        "    model.predict(audio, params={'sample_rate_hz': 250000.0})\n"
        "except Exception as error:\n"
        "    said = str(error)\n"
        "print(json.dumps({'refused': refused, 'said': said,\n"
        "    'given': others[0]['predictions'].tolist(), 'ragged': others[2]['predictions'].tolist(),\n"
        "    'example': others[1]['covariance'].shape, 'slow': 'mlflow.pytorch' in sys.modules,\n"
        "    **{name: value.tolist() for name, value in answer.items()}}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "MLFLOW_TRACKING_URI": tracker.uri, "MLFLOW_DISABLE_TELEMETRY": "true"},
        capture_output=True,
        text=True,
        check=True,
    )
    answer = json.loads(done.stdout)
    assert done.stderr == ""
    assert answer["refused"] == 3
    assert not answer["slow"]
    assert "sample_rate_hz is 250000, but the model is for 125000" in answer["said"]
    assert answer["given"] == answer["ragged"] == answer["predictions"]
    assert answer["example"] == [2, 2, 2]

    import torch

    density = load_bundle(bundle).predict_batch(
        torch.from_numpy(audio), torch.tensor([3000, 2000, 3000])
    )
    np.testing.assert_allclose(answer["predictions"], density.mean_mm_BKD[:, 0], atol=1e-3)
    np.testing.assert_allclose(answer["covariance"], density.covariance_mm2_BKDD[:, 0], rtol=1e-4)


def test_resolving_and_registering_import_no_torch(tracker, run_id, bundle, tmp_path):
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from gerbil_tune.geometry import RecordingSetup\n"
        "from gerbil_tune.tracking import model_registry\n"
        f"uri = {tracker.uri!r}\n"
        f"model_registry.resolve_model('models:/{NAME}@champion', uri)\n"
        f"model_registry.register_bundle(Path({str(bundle)!r}), model_name='quick', run_id=None,\n"
        "    setup=RecordingSetup(4, 125e3, (572.0, 356.0)), tags={}, tracking_uri=uri,\n"
        f"    pyfunc_file=Path({str(PYFUNC_FILE)!r}))\n"
        "sys.exit(bool({'mlflow.pytorch', 'torch', 'ray'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
