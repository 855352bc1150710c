"""The file that MLflow copies into a registered model and runs to load it.

    model = mlflow.pyfunc.load_model("models:/gerbil-locator@champion")
    model.predict(audio)    # {"predictions": (B, 2) mm, "covariance": (B, 2, 2) mm², "confidence": (B,), ...}
    model.predict(audio, params={"lengths": [8000, 6500], "sample_rate_hz": 125000.0})
    model.unwrap_python_model().predict(None, [first_event, second_event])    # of any lengths

gerbil_tune must be importable where the model is loaded. Torch is imported with the weights, not before,
so that registering a model stays quick.

Letters: B batch, T samples, C microphones, K keypoints, D axes.
"""

from pathlib import Path
from typing import Any

import numpy as np
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext


class GerbilLocator(PythonModel):
    """Answers padded audio with locations in millimetres from the arena's centre."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the bundle that the model was registered with."""
        from gerbil_tune.models.bundle import load_bundle

        self._bundle = load_bundle(Path(context.artifacts["bundle"]))

    def predict(
        self,
        context: PythonModelContext | None,
        model_input: np.ndarray,  # not NDArray[...]: MLflow knows only the bare type as a hint
        params: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Localize events.

        Args:
            context: Not used after loading.
            model_input: (B, T, C) float32, full scale ±1 (divide int16 by 32768), or a list of B arrays
                (samples, C). Longer events than the model takes are cut around their middle.
            params: ``lengths``, samples of each event of a padded array, without which the zeros at the end
                of an event are padding; and ``sample_rate_hz``, without which it is the model's.

        Returns:
            ``predictions`` in mm, (B, 2) for one keypoint in two axes, else (B, K, D); calibrated
            ``covariance`` in mm², (B, 2, 2) or (B, K, D, D); ``confidence``, (B,) or (B, K); ``flags`` (B,),
            which say of an event without a sound why it has no prediction; and with conformal calibration
            ``region_area_mm2``, (B, R) or (B, K, R). They mean what they do in files of predictions (see
            ``gerbil_tune/inference/writer.py``).

        Raises:
            MlflowException: If the microphones, the sample rate or the lengths do not fit the model.
        """
        from gerbil_tune.errors import DatasetError
        from gerbil_tune.inference.arrays import predict_arrays
        from gerbil_tune.inference.writer import columns

        params = params or {}
        try:
            found = predict_arrays(
                self._bundle,
                model_input,
                lengths_B=params.get("lengths"),
                sample_rate_hz=params.get("sample_rate_hz"),
            )
        except DatasetError as error:
            # Of other errors MLflow's server tells nothing but a traceback.
            raise MlflowException.invalid_parameter_value(str(error)) from None
        return columns(found, with_regions=self._bundle.calibration.conformal is not None)


set_model(GerbilLocator())
