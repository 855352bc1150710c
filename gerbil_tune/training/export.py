"""From a finished training run to a bundle: calibrate on the validation events, and write.

The data are not read again, so a bundle comes of a run that ended even if they changed or went meanwhile.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from gerbil_tune import __version__
from gerbil_tune.evaluation.calibration import fit_covariance_scale
from gerbil_tune.evaluation.score import score
from gerbil_tune.models.bundle import save_bundle
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
    stored = load_file(job.run_dir / BEST_PREDICTIONS)
    mean, covariance, truth = (stored[name] for name in ("mean", "covariance", "truth"))
    covariance_scale = float(fit_covariance_scale(mean, covariance, truth))
    metrics = score(mean, covariance * covariance_scale, truth)
    return save_bundle(
        root,
        config=job.config,
        setup=job.setup,
        weights_folder=job.run_dir,
        metrics={f"val_{name}": value for name, value in metrics.items()},
        covariance_scale=covariance_scale,
        provenance={
            **provenance,
            "package_version": __version__,
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "data_files": sorted({str(file.path) for file in job.splits.train.files}),
            "data_fingerprint": data_fingerprint,
            "training_events": len(job.splits.train),
            "validation_events": len(job.splits.validation),
            "mean_location_mm": mean_location(job),
        },
        folder=folder,
    )


def mean_location(job: TrainingJob) -> list[list[float]]:
    """Mean training location of each keypoint in mm, (K, D): what chance predicts."""
    locations = job.splits.train.locations_mm
    assert locations is not None
    mean_KD = np.asarray(locations, np.float64).mean(axis=0)
    return [[round(float(value), 3) for value in row] for row in mean_KD]
