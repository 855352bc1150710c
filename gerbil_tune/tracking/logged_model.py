"""A bundle in the form in which MLflow keeps models.

It is MLflow's "model from code": one Python file, the bundle's folder as its artifact and the signature of
its input. Nothing is pickled, and it can be unpacked without importing torch.
"""

import importlib.metadata
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import gerbil_tune
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.tracking.store import default_artifact_location, known_warnings_ignored

if TYPE_CHECKING:
    from mlflow import MlflowClient

_RUNTIME = ("h5py", "json5", "numpy", "pydantic", "pyyaml", "safetensors", "torch")


def create_run(client: "MlflowClient", model_name: str, bundle_dir: Path, tracking_uri: str) -> str:
    """Open and close a run for a bundle whose training was not tracked; returns its id."""
    experiment = client.get_experiment_by_name(model_name)
    experiment_id = (
        client.create_experiment(model_name, default_artifact_location(tracking_uri))
        if experiment is None
        else experiment.experiment_id
    )
    name = f"registered from {bundle_dir.parent.name}/{bundle_dir.name}"
    run = client.create_run(experiment_id, run_name=name)
    client.set_terminated(run.info.run_id)
    return str(run.info.run_id)


def log_model(
    client: "MlflowClient",
    run_id: str,
    model_name: str,
    bundle_dir: Path,
    setup: RecordingSetup,
    pyfunc_file: Path,
) -> tuple[str, str]:
    """Store the model beside its run, as MLflow's own ``log_model`` does but without its global state.

    Returns:
        The id of the logged model and the URI of its files.
    """
    experiment_id = client.get_run(run_id).info.experiment_id
    logged = client.create_logged_model(experiment_id, model_name, source_run_id=run_id)
    try:
        with tempfile.TemporaryDirectory(prefix="gerbil-tune-") as temporary:
            folder = Path(temporary, "model")
            _save_model(folder, run_id, logged.model_id, bundle_dir, setup, pyfunc_file)
            client.log_model_artifacts(logged.model_id, str(folder))
    except BaseException:
        client.finalize_logged_model(logged.model_id, "FAILED")
        raise
    client.finalize_logged_model(logged.model_id, "READY")
    return logged.model_id, logged.artifact_location


def _save_model(
    folder: Path,
    run_id: str,
    model_id: str,
    bundle_dir: Path,
    setup: RecordingSetup,
    pyfunc_file: Path,
) -> None:
    import mlflow.pyfunc
    import numpy as np
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    audio = TensorSpec(np.dtype(np.float32), (-1, -1, setup.num_microphones))
    with known_warnings_ignored():
        mlflow.pyfunc.save_model(
            str(folder),
            python_model=str(pyfunc_file),
            artifacts={"bundle": str(bundle_dir.resolve())},
            signature=ModelSignature(Schema([audio])),
            pip_requirements=_requirements(),
            mlflow_model=Model(run_id=run_id, model_id=model_id),
        )


def _requirements() -> list[str]:
    """What loading needs, as installed here; given, or MLflow would run the model to find out."""
    versions = {name: importlib.metadata.version(name) for name in _RUNTIME}
    # "+cpu" and the like name a build, which package indexes do not know.
    pinned = [f"{name}=={version.split('+')[0]}" for name, version in versions.items()]
    return [f"gerbil_tune=={gerbil_tune.__version__}", *pinned]
