"""A trained model on disk: the one thing that passes from training to prediction.

    <root>/<name>/<00001>/
        config.json               experiment config and recording setup
        best_weights.safetensors  lowest validation metric; init_ and final_ beside it
        metrics.json              validation metrics of the best weights
        calibration.json          covariance_scale, fitted on validation
        provenance.json           data fingerprint, package version, when, from which study

Letters: B batch, C microphones, T samples, K keypoints, D axes.
"""

import hashlib
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.errors import DatasetError, ModelNotFoundError
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.localizer import Localizer, autocast_dtype

FORMAT = 1
WEIGHTS = ("init", "best", "final")


def weights_name(which: str) -> str:
    """File name of the initial, best or final weights."""
    return f"{which}_weights.safetensors"


def save_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write weights under a temporary name and rename, so that a kill never leaves half a file."""
    temporary = path.with_name(path.name + ".partial")
    save_file(
        {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, temporary
    )
    temporary.replace(path)


@dataclass(frozen=True)
class Bundle:
    """A trained model, ready to predict.

    Attributes:
        path: Its folder.
        config: The experiment that made it.
        setup: The recording site that it is for.
        model: In evaluation mode.
        covariance_scale: Factor on the covariance that calibrates it.
        metrics: Validation metrics.
        provenance: Where it came from.
        fingerprint: SHA-256 of the weights file, hexadecimal.
    """

    path: Path
    config: ExperimentConfig
    setup: RecordingSetup
    model: Localizer
    covariance_scale: float
    metrics: dict[str, Any]
    provenance: dict[str, Any]
    fingerprint: str

    @torch.inference_mode()
    def predict_batch(
        self,
        audio_BTC: Tensor,
        lengths_B: Tensor,
        mean_BC: Tensor | None = None,
        sd_BC: Tensor | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Localize a padded batch.

        Args:
            audio_BTC: (B, T, C) float or integer PCM, zero after each event's length.
            lengths_B: (B,) int64, samples of each event.
            mean_BC: (B, C) float32, mean of each channel of the whole event, of which the audio may be a
                crop, in the unit of the audio; None: that of the audio.
            sd_BC: (B, C) float32, standard deviation likewise.

        Returns:
            Mean in mm, (B, K, D) float32, and calibrated covariance in mm², (B, K, D, D) float32.
        """
        device = self.model.location_scale.mm_per_unit_D.device
        raw_BO = self.model(
            audio_BTC.to(device),
            lengths_B.to(device),
            None if mean_BC is None else mean_BC.to(device),
            None if sd_BC is None else sd_BC.to(device),
        )
        prediction = self.model.distribution(raw_BO)
        covariance = prediction.covariance_mm2_BKDD * self.covariance_scale
        return prediction.mean_mm_BKD.cpu().numpy(), covariance.cpu().numpy()


def save_bundle(
    root: Path,
    *,
    config: ExperimentConfig,
    setup: RecordingSetup,
    weights_folder: Path,
    metrics: Mapping[str, Any],
    covariance_scale: float,
    provenance: Mapping[str, Any],
    folder: Path | None = None,
) -> Path:
    """Write a bundle as ``root/<config.name>/<next number>`` and return that folder.

    Args:
        root: Usually ``trained_models``.
        config: The experiment.
        setup: The recording site.
        weights_folder: Where training left init_, best_ and final_weights.safetensors.
        metrics: Validation metrics of the best weights.
        covariance_scale: Factor on the covariance that calibrates it.
        provenance: Where it came from.
        folder: Write exactly here instead.
    """
    parent = folder.parent if folder is not None else root / config.name
    parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".partial-", dir=parent))
    try:
        temporary.chmod(0o755)
        content = {
            "format": FORMAT,
            "config": config.model_dump(mode="json"),
            "setup": setup.to_json(),
        }
        _write_json(temporary / "config.json", content)
        _write_json(temporary / "metrics.json", dict(metrics))
        _write_json(temporary / "calibration.json", {"covariance_scale": covariance_scale})
        _write_json(temporary / "provenance.json", dict(provenance))
        for which in WEIGHTS:
            shutil.copyfile(weights_folder / weights_name(which), temporary / weights_name(which))
        return _rename_to_free(temporary, parent, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def load_bundle(path: Path, weights: str = "best", device: str = "cpu") -> Bundle:
    """Read a bundle.

    Args:
        path: The bundle's folder or its config.json.
        weights: ``init``, ``best`` or ``final``.
        device: Where the model goes.

    Raises:
        ModelNotFoundError: If there is no bundle.
        DatasetError: If it is damaged or of another format.
    """
    folder = path.parent if path.name == "config.json" else path
    config, setup = read_bundle_config(folder)
    weights_path = folder / weights_name(weights)
    if not weights_path.is_file():
        raise ModelNotFoundError(
            f"{folder} has no {weights_path.name}; train or export the model again"
        )
    model = Localizer(config, setup)
    try:
        model.load_state_dict(load_file(weights_path))
    except (RuntimeError, SafetensorError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise DatasetError(
            f"{weights_path} does not fit {folder / 'config.json'} ({first_line}); export it again"
        ) from None
    model.autocast_dtype = autocast_dtype(config, torch.device(device))
    return Bundle(
        path=folder,
        config=config,
        setup=setup,
        model=model.to(device).eval(),
        covariance_scale=_read_covariance_scale(folder / "calibration.json"),
        metrics=_read_json(folder / "metrics.json"),
        provenance=_read_json(folder / "provenance.json"),
        fingerprint=hashlib.sha256(weights_path.read_bytes()).hexdigest(),
    )


def read_bundle_config(folder: Path) -> tuple[ExperimentConfig, RecordingSetup]:
    """Read config and setup of a bundle without its weights.

    Raises:
        ModelNotFoundError: If there is no config.json.
        DatasetError: If it is not one of ours.
    """
    config_path = folder / "config.json"
    if not config_path.is_file():
        raise ModelNotFoundError(
            f"{folder} is not a model bundle: it has no config.json; name a folder such as "
            "trained_models/gerbil-locator/00001"
        )
    content = _read_json(config_path)
    if content.get("format") != FORMAT:
        raise DatasetError(
            f"{config_path}: format is {content.get('format')!r}, but {FORMAT} is needed; "
            "a predecessor's config.json must be imported first"
        )
    try:
        return (
            ExperimentConfig.model_validate(content["config"]),
            RecordingSetup.from_json(content["setup"]),
        )
    except (ValidationError, AttributeError, KeyError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise DatasetError(f"{config_path} is damaged ({reason}); export the model again") from None


def _rename_to_free(temporary: Path, parent: Path, folder: Path | None) -> Path:
    """Rename to ``folder`` or to the next free five-digit number; safe against others doing the same."""
    while True:
        numbers = [int(p.name) for p in parent.iterdir() if re.fullmatch(r"\d{5,}", p.name)]
        target = folder or parent / f"{max(numbers, default=0) + 1:05d}"
        try:
            os.rename(temporary, target)  # noqa: PTH104 - Path.rename hides that a non-empty target fails
        except OSError:
            if folder is not None or not target.exists():
                raise
            continue
        return target


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")


def _read_covariance_scale(path: Path) -> float:
    scale = _read_json(path).get("covariance_scale")
    if not (isinstance(scale, int | float) and 0.0 < scale < math.inf):
        raise DatasetError(
            f"{path}: covariance_scale must be a number above 0, but is {scale!r}; "
            "export the model again"
        )
    return float(scale)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"{path} cannot be read as JSON ({error}); export the model again"
        ) from None
    if not isinstance(content, dict):
        raise DatasetError(f"{path} must hold a JSON object, but holds {type(content).__name__}")
    return content
