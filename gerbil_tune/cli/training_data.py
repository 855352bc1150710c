"""Open and check data before anything expensive starts; shared by train and search."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from gerbil_tune.config.augmentation import AugmentationConfig
from gerbil_tune.config.schema import DataConfig

if TYPE_CHECKING:
    from gerbil_tune.data.splits.splits import Splits
    from gerbil_tune.geometry import RecordingSetup


@dataclass(frozen=True)
class TrainingData:
    """Checked data: the split events and the recording site."""

    splits: "Splits"
    setup: "RecordingSetup"


def open_training_data(
    paths: list[Path],
    config: DataConfig,
    split_dir: Path | None,
    *,
    split: Path | None = None,
    events: Path | None = None,
) -> TrainingData:
    """Open, split and check; say where the split comes from.

    Args:
        paths: One folder or file, or several files.
        config: Data section of the experiment.
        split_dir: Where the split is kept; None: nowhere.
        split: Folder of a split to use; default: see ``load_splits``.
        events: Index file of the events that take part; default: all.

    Raises:
        DatasetError: On the first thing that would make training wrong.
    """
    from gerbil_tune.data.checks.cheap import cheap_checks, raise_on_errors
    from gerbil_tune.data.events import recording_setup
    from gerbil_tune.data.splits.splits import load_splits

    data = paths[0] if len(paths) == 1 else paths
    splits = load_splits(data, config, split_dir, split=split, events=events)
    typer.echo(f"split: {splits.origin}")
    setup = recording_setup(splits.train, config)
    if splits.train.is_impulse_response:
        from gerbil_tune.data.sources import open_sounds

        open_sounds(splits.train, config, setup.sample_rate_hz)  # refuses what cannot be
    for part in (splits.train, splits.validation, splits.test):
        if part is None:
            continue
        findings = cheap_checks(part, setup)
        raise_on_errors(findings, part.files[0].path)
        for finding in findings:
            typer.echo(f"warning: {finding.message}", err=True)
    return TrainingData(splits, setup)


def warn_of_changes(data: TrainingData, fingerprint: str) -> None:
    """Tell where files are not what they were when training began.

    What was computed of the audio is kept in memory where it can be, so that training need not notice.

    Args:
        data: As it was opened.
        fingerprint: Of the training events, when training began.
    """
    from gerbil_tune.errors import DatasetError

    told = "the model was trained on the data as they were when it began, but"
    try:
        for part in (data.splits.train, data.splits.validation):
            for file in part.files:
                file.check_unchanged()
        if data.splits.train.fingerprint() != fingerprint:
            path = data.splits.train.files[0].path
            typer.echo(
                f"warning: {told} {path} or another of its files has changed since", err=True
            )
    except DatasetError as error:
        typer.echo(f"warning: {told} {error}", err=True)


def check_augmentation(config: AugmentationConfig, setup: "RecordingSetup") -> None:
    """Refuse changes of events that the microphone array does not allow.

    Raises:
        ConfigError: On mirror images without a symmetric array, or dropout with fewer than 3 microphones.
    """
    from gerbil_tune.data.augment.augmenter import check_dropout
    from gerbil_tune.models.mirroring import MirrorAugmentation

    MirrorAugmentation(config.mirror_prob, setup)
    check_dropout(config, setup.num_microphones)


def describe(data: TrainingData) -> str:
    """One line about the data for the user."""
    splits, setup = data.splits, data.setup
    test = f", {len(splits.test):,} test" if splits.test is not None else ""
    arena = " x ".join(f"{width:g}" for width in setup.arena_mm)
    return (
        f"{len(splits.train):,} training, {len(splits.validation):,} validation{test} events; "
        f"{setup.num_microphones} microphones at {setup.sample_rate_hz / 1000:g} kHz; arena {arena} mm; "
        f"keypoints {', '.join(setup.keypoints)}"
    )
