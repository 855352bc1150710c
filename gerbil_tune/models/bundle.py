"""A trained model on disk: the one thing that passes from training to prediction.

    <root>/<name>/<00001>/
        config.json               experiment config and recording setup
        best_weights.safetensors  lowest validation metric; init_ and final_ beside it
        metrics.json              validation metrics of the best weights
        calibration.json          temperature and conformal thresholds, fitted on validation
        provenance.json           data fingerprint, package version, when, from which study
        test_events.npy           places of the test events in the files that provenance.json names

``ensemble`` has the folder of several bundles that answer as one.

Letters: B batch, C microphones, T samples, K keypoints, D axes.
"""

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.errors import DatasetError, ModelNotFoundError
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.bundle_files import (
    CONFIG_FILE,
    METRICS_FILE,
    PROVENANCE_FILE,
    TEST_EVENTS_FILE,
    flush,
    model_facts,
    model_folder,
    read_calibration,
    read_json,
    write_json,
    write_model_folder,
)
from gerbil_tune.models.calibrated import Calibration
from gerbil_tune.models.density import LocationDensity
from gerbil_tune.models.ensemble import Ensemble, is_ensemble, make_ensemble, member_folders
from gerbil_tune.models.localizer import Localizer, autocast_dtype

FORMAT = 1
WEIGHTS = ("init", "best", "final")


def weights_name(which: str) -> str:
    """File name of the initial, best or final weights."""
    return f"{which}_weights.safetensors"


def save_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write weights under a temporary name and rename: neither a kill nor a power cut leaves half a file."""
    temporary = path.with_name(path.name + ".partial")
    save_file(
        {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, temporary
    )
    flush(temporary)
    temporary.replace(path)
    flush(path.parent)


@dataclass(frozen=True)
class Bundle:
    """A trained model, ready to predict.

    Attributes:
        path: Its folder.
        config: The experiment that made it.
        setup: The recording site that it is for.
        model: In evaluation mode.
        calibration: What makes its stated uncertainty true.
        metrics: Validation metrics.
        provenance: Where it came from.
        fingerprint: SHA-256 of the weights file, hexadecimal.
    """

    path: Path
    config: ExperimentConfig
    setup: RecordingSetup
    model: Localizer
    calibration: Calibration
    metrics: dict[str, Any]
    provenance: dict[str, Any]
    fingerprint: str

    @property
    def name(self) -> str:
        """Of the experiment."""
        return self.config.name

    @property
    def kind(self) -> str:
        """The architecture."""
        return self.config.model.kind

    @property
    def num_parameters(self) -> int:
        """Weights of the network."""
        return sum(weight.numel() for weight in self.model.parameters())

    @property
    def crop_length(self) -> int:
        """Samples of an event that count at most."""
        return self.config.data.evaluation_crop_length

    @property
    def uses_statistics(self) -> bool:
        """Whether the model has a use for the statistics of whole events."""
        return self.model.uses_statistics

    @torch.inference_mode()
    def predict_batch(
        self,
        audio_BTC: Tensor,
        lengths_B: Tensor,
        mean_BC: Tensor | None = None,
        sd_BC: Tensor | None = None,
    ) -> LocationDensity:
        """Localize a padded batch.

        Args:
            audio_BTC: (B, T, C) float or integer PCM, zero after each event's length.
            lengths_B: (B,) int64, samples of each event.
            mean_BC: (B, C) float32, mean of each channel of the whole event, of which the audio may be a
                crop, in the unit of the audio; None: that of the audio.
            sd_BC: (B, C) float32, standard deviation likewise.

        Returns:
            The calibrated density of each event, in mm, in main memory.
        """
        device = self.model.location_scale.mm_per_unit_D.device
        raw_BO = self.model(
            audio_BTC.to(device),
            lengths_B.to(device),
            None if mean_BC is None else mean_BC.to(device),
            None if sd_BC is None else sd_BC.to(device),
        )
        return self.model.density(raw_BO).tempered(self.calibration.temperature).to("cpu")


TrainedModel = Bundle | Ensemble
"""What ``load_bundle`` returns; the two are used alike."""


def save_bundle(
    root: Path,
    *,
    config: ExperimentConfig,
    setup: RecordingSetup,
    weights_folder: Path,
    metrics: Mapping[str, Any],
    calibration: Calibration,
    provenance: Mapping[str, Any],
    test_rows_N: NDArray[np.int64] | None = None,
    folder: Path | None = None,
) -> Path:
    """Write a bundle as ``root/<config.name>/<next number>`` and return that folder.

    Args:
        root: Usually ``trained_models``.
        config: The experiment.
        setup: The recording site.
        weights_folder: Where training left init_, best_ and final_weights.safetensors.
        metrics: Validation metrics of the best weights.
        calibration: What makes its stated uncertainty true.
        provenance: Where it came from.
        test_rows_N: Places of the events that had no part in training, in the provenance's ``test_files``.
        folder: Write exactly here instead.
    """
    content = {
        "format": FORMAT,
        "config": config.model_dump(mode="json"),
        "setup": setup.to_json(),
    }

    def fill(target: Path) -> None:
        write_json(target / CONFIG_FILE, content)
        for which in WEIGHTS:
            shutil.copyfile(weights_folder / weights_name(which), target / weights_name(which))
        if test_rows_N is not None:
            np.save(target / TEST_EVENTS_FILE, test_rows_N, allow_pickle=False)

    facts = model_facts(metrics, calibration, provenance)
    return write_model_folder(root / config.name, folder, fill, facts)


def load_bundle(path: Path, weights: str = "best", device: str = "cpu") -> TrainedModel:
    """Read a bundle or an ensemble of several.

    Args:
        path: Its folder, its config.json or its ensemble.json.
        weights: ``init``, ``best`` or ``final``.
        device: Where the model goes.

    Raises:
        ModelNotFoundError: If there is no bundle.
        DatasetError: If it is damaged or of another format.
    """
    folder = model_folder(path)
    if not is_ensemble(folder):
        return _load_one(folder, weights, device)
    members = tuple(_load_one(member, weights, device) for member in member_folders(folder))
    return make_ensemble(folder, members)


def _load_one(folder: Path, weights: str, device: str) -> Bundle:
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
        calibration=read_calibration(folder),
        metrics=read_json(folder / METRICS_FILE),
        provenance=read_json(folder / PROVENANCE_FILE),
        fingerprint=hashlib.sha256(weights_path.read_bytes()).hexdigest(),
    )


def read_setup(folder: Path) -> RecordingSetup:
    """Read the recording site of a bundle or an ensemble without its weights.

    Raises:
        ModelNotFoundError: If there is neither.
        DatasetError: If a file is damaged.
    """
    first = member_folders(folder)[0] if is_ensemble(folder) else folder
    return read_bundle_config(first)[1]


def read_bundle_config(folder: Path) -> tuple[ExperimentConfig, RecordingSetup]:
    """Read config and setup of a bundle without its weights.

    Raises:
        ModelNotFoundError: If there is no config.json.
        DatasetError: If it is not one of ours.
    """
    config_path = folder / CONFIG_FILE
    if not config_path.is_file():
        raise ModelNotFoundError(
            f"{folder} is not a model bundle: it has no config.json; name a folder such as "
            "trained_models/gerbil-locator/00001"
        )
    content = read_json(config_path)
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
