"""From finished training runs to a bundle, of one or of several: calibrate on validation events, and write.

The data are not read again, so a bundle comes of a run that ended even if they changed or went meanwhile.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from gerbil_tune import __version__
from gerbil_tune.checkout import commit
from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.errors import DatasetError
from gerbil_tune.evaluation.calibrate import calibrate, metric_intervals
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.bundle import read_bundle_config, save_bundle
from gerbil_tune.models.bundle_files import PROVENANCE_FILE, read_calibration, read_json
from gerbil_tune.models.density import LocationDensity
from gerbil_tune.models.ensemble import save_ensemble
from gerbil_tune.models.localizer import read_outputs
from gerbil_tune.training.job import TrainingJob
from gerbil_tune.training.loop import BEST_PREDICTIONS


def export_bundle(
    job: TrainingJob,
    root: Path,
    *,
    data_fingerprint: str,
    provenance: Mapping[str, Any],
    folder: Path | None = None,
) -> Path:
    """Export a finished run as ``root/<name>/<number>`` and return that folder.

    Args:
        job: The run, with its weights and ``BEST_PREDICTIONS`` in ``job.run_dir``.
        root: Usually ``trained_models``.
        data_fingerprint: Of the training events, when training began.
        provenance: Where the run came from; data and package are added here.
        folder: Write exactly here instead.
    """
    density, truth_NKD = _validation_densities(job.run_dir, job.config, job.setup)
    calibration, metrics = calibrate(density, truth_NKD, job.setup)
    return save_bundle(
        root,
        config=job.config,
        setup=job.setup,
        weights_folder=job.run_dir,
        metrics=metrics,
        calibration=calibration,
        provenance={
            **provenance,
            **_here_and_now(),
            "data_files": sorted({str(file.path) for file in job.splits.train.files}),
            "data_fingerprint": data_fingerprint,
            "training_events": len(job.splits.train),
            "validation_events": len(job.splits.validation),
            "validation_intervals": metric_intervals(
                density.tempered(calibration.temperature), truth_NKD, job.splits.validation.groups
            ),
            "mean_location_mm": mean_location(job),
            **_test_events(job),
        },
        test_rows_N=None if job.splits.test is None else job.splits.test.rows,
        folder=folder,
    )


def export_ensemble(members: Sequence[tuple[Path, Path]], root: Path) -> Path:
    """Make an ensemble of exported runs and write it as ``root/<name>/<number>``; return that folder.

    Args:
        members: Run folder and bundle of each, at least two, of the same data and recording site.
        root: Usually ``trained_models``.

    Raises:
        DatasetError: If their validation events differ.
    """
    densities, truths = [], []
    for run_dir, bundle in members:
        config, setup = read_bundle_config(bundle)
        density, truth_NKD = _validation_densities(run_dir, config, setup)
        densities.append(density.tempered(read_calibration(bundle).temperature))
        truths.append(truth_NKD)
        if not torch.equal(truth_NKD, truths[0]):
            raise DatasetError(
                f"{run_dir} was validated on other events than {members[0][0]}; the members of an ensemble "
                "must share them"
            )
    mixture = LocationDensity.mixture_of(densities)
    calibration, metrics = calibrate(mixture, truths[0], setup)
    described = [read_json(bundle / PROVENANCE_FILE) for _, bundle in members]
    own = {key: value for key, value in described[0].items() if key not in ("trial", "workers")}
    return save_ensemble(
        root / read_bundle_config(members[0][1])[0].name,
        [bundle for _, bundle in members],
        metrics=metrics,
        calibration=calibration,
        provenance={
            **own,
            **_here_and_now(),
            "validation_intervals": metric_intervals(
                mixture.tempered(calibration.temperature), truths[0]
            ),
            "members": [str(bundle) for _, bundle in members],
            "member_trials": [provenance.get("trial") for provenance in described],
        },
    )


def has_validation_predictions(run_dir: Path) -> bool:
    """Whether a run's folder holds what an export needs of its validation."""
    return (run_dir / BEST_PREDICTIONS).is_file()


def _validation_densities(
    run_dir: Path, config: ExperimentConfig, setup: RecordingSetup
) -> tuple[LocationDensity, Tensor]:
    """What the best weights stated of the validation events, and the truth (N, K, D) in mm."""
    stored = load_file(run_dir / BEST_PREDICTIONS)
    return read_outputs(config, setup, stored["raw"]), stored["truth"]


def _here_and_now() -> dict[str, str]:
    return {
        "package_version": __version__,
        "commit": commit() or "",
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _test_events(job: TrainingJob) -> dict[str, Any]:
    """Which events had no part in training; their places in the files are written beside this."""
    test = job.splits.test
    if test is None:
        return {}
    return {
        "test_files": [str(file.path) for file in test.files],
        "test_fingerprint": test.fingerprint(),
    }


def mean_location(job: TrainingJob) -> list[list[float]]:
    """Mean training location of each keypoint in mm, (K, D): what chance predicts."""
    locations = job.splits.train.locations_mm
    assert locations is not None
    mean_KD = np.asarray(locations, np.float64).mean(axis=0)
    return [[round(float(value), 3) for value in row] for row in mean_KD]
