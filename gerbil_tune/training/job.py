"""What a training run is given."""

from dataclasses import dataclass
from pathlib import Path

from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.data.splits.splits import Splits
from gerbil_tune.geometry import RecordingSetup


@dataclass(frozen=True)
class TrainingJob:
    """What to train, on what, and where to keep it.

    Attributes:
        config: The experiment.
        setup: The recording site.
        splits: Training and validation events.
        run_dir: Folder of checkpoints, weights and the history of metrics.
        metric: Validation metric whose lowest value marks the best weights.
        stop_file: Training writes a checkpoint and ends when this file appears; None: it never does.
        feature_cache: Folder of features that several runs see alike, computed once for all; None: each run
            computes its own.
    """

    config: ExperimentConfig
    setup: RecordingSetup
    splits: Splits
    run_dir: Path
    metric: str = "val_error_median_mm"
    stop_file: Path | None = None
    feature_cache: Path | None = None
