"""A bundle in the form in which MLflow keeps models.

It is MLflow's "model from code": one Python file, the bundle's folder as its artifact and the signature of
its input. Nothing is pickled, and it can be unpacked without importing torch.
"""

import importlib.metadata
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gerbil_tune
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.tracking.model_card import CARD_FILE
from gerbil_tune.tracking.store import default_artifact_location, known_warnings_ignored

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.models import ModelSignature

_EXAMPLE_SAMPLES = 256
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
    card: str,
) -> tuple[str, str]:
    """Store the model beside its run, as MLflow's own ``log_model`` does but without its global state.

    Args:
        client: Of the store.
        run_id: The run.
        model_name: Name of the logged model.
        bundle_dir: The bundle.
        setup: The recording site, for the signature.
        pyfunc_file: The file that MLflow runs to load the model.
        card: The model's card, kept beside it.

    Returns:
        The id of the logged model and the URI of its files.
    """
    experiment_id = client.get_run(run_id).info.experiment_id
    logged = client.create_logged_model(experiment_id, model_name, source_run_id=run_id)
    try:
        with tempfile.TemporaryDirectory(prefix="gerbil-tune-") as temporary:
            folder = Path(temporary, "model")
            _save_model(folder, run_id, logged.model_id, bundle_dir, setup, pyfunc_file)
            (folder / CARD_FILE).write_text(card)
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
    from mlflow.models import Model

    with known_warnings_ignored():
        mlflow.pyfunc.save_model(
            str(folder),
            python_model=str(pyfunc_file),
            artifacts={"bundle": str(bundle_dir.resolve())},
            signature=_signature(setup),
            # With a signature it is kept as it is: the model is not loaded to try it.
            input_example=_example(setup),
            pip_requirements=_requirements(),
            mlflow_model=Model(run_id=run_id, model_id=model_id),
        )


def _signature(setup: RecordingSetup) -> "ModelSignature":
    """What goes in and comes out; see ``gerbil_tune/pyfunc.py``."""
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import DataType, ParamSchema, ParamSpec, Schema, TensorSpec

    float32 = np.dtype(np.float32)
    num_keypoints, num_axes = len(setup.keypoints), setup.num_axes
    is_plain = (num_keypoints, num_axes) == (1, 2)
    location = (2,) if is_plain else (num_keypoints, num_axes)
    sizes = () if is_plain else (num_keypoints,)
    return ModelSignature(
        inputs=Schema([TensorSpec(float32, (-1, -1, setup.num_microphones))]),
        outputs=Schema(
            [
                TensorSpec(float32, (-1, *location), "predictions"),
                TensorSpec(float32, (-1, *location, num_axes), "covariance"),
                TensorSpec(float32, (-1, *sizes), "confidence"),
                TensorSpec(np.dtype(np.uint8), (-1,), "flags"),
            ]
        ),
        params=ParamSchema(
            [
                ParamSpec("sample_rate_hz", DataType.double, setup.sample_rate_hz),
                ParamSpec("lengths", DataType.long, [], (-1,)),
            ]
        ),
    )


def _example(setup: RecordingSetup) -> Any:
    """Two short events of noise."""
    import numpy as np

    shape = 2, _EXAMPLE_SAMPLES, setup.num_microphones
    return np.random.default_rng(0).normal(0.0, 0.1, shape).astype(np.float32)


def _requirements() -> list[str]:
    """What loading needs, as installed here; given, or MLflow would run the model to find out."""
    versions = {name: importlib.metadata.version(name) for name in _RUNTIME}
    # "+cpu" and the like name a build, which package indexes do not know.
    pinned = [f"{name}=={version.split('+')[0]}" for name, version in versions.items()]
    return [f"gerbil_tune=={gerbil_tune.__version__}", *pinned]
