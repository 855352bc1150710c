"""The file that MLflow copies into a registered model and runs to load it.

    model = mlflow.pyfunc.load_model("models:/gerbil-locator@champion")
    model.predict(audio)    # {"predictions": (B, 2) mm, "covariance": (B, 2, 2) mm²}

gerbil_tune must be importable where the model is loaded. Torch is imported with the weights, not before,
so that registering a model stays quick.

Letters: B batch, T samples, C microphones, K keypoints, D axes.
"""

from pathlib import Path
from typing import Any

import numpy as np
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

_EVENTS_AT_ONCE = 64


class GerbilLocator(PythonModel):
    """Answers padded audio with locations in millimetres from the arena's centre."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the bundle that the model was registered with."""
        from gerbil_tune.models.bundle import load_bundle

        self._bundle = load_bundle(Path(context.artifacts["bundle"]))

    def predict(
        self,
        context: PythonModelContext,
        model_input: np.ndarray,  # not NDArray[...]: MLflow knows only the bare type as a hint
        params: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Localize events.

        Args:
            context: Not used after loading.
            model_input: (B, T, C) float32, full scale ±1 (divide int16 by 32768). Shorter events are padded
                with zeros at their end; longer ones than the model takes are cut around their middle.
            params: Not used.

        Returns:
            ``predictions`` in mm, (B, 2) for one keypoint in two axes, else (B, K, D), and calibrated
            ``covariance`` in mm², (B, 2, 2) or (B, K, D, D); both float32.
        """
        from gerbil_tune.inference.predict import predict_padded
        from gerbil_tune.inference.writer import shape_for_output

        parts = [
            predict_padded(self._bundle, model_input[first : first + _EVENTS_AT_ONCE])
            for first in range(0, len(model_input), _EVENTS_AT_ONCE)
        ]
        setup = self._bundle.setup
        shape = (0, len(setup.keypoints), setup.num_axes)
        mean_mm = np.concatenate([np.empty(shape, np.float32), *(p.mean_mm_NKD for p in parts)])
        covariance_mm2 = np.concatenate(
            [
                np.empty((*shape, setup.num_axes), np.float32),
                *(p.covariance_mm2_NKDD for p in parts),
            ]
        )
        predictions, covariance = shape_for_output(mean_mm, covariance_mm2)
        return {"predictions": predictions, "covariance": covariance}


set_model(GerbilLocator())
