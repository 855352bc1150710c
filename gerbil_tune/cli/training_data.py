"""Open and check data before anything expensive starts; shared by train and search."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from gerbil_tune.config.schema import DataConfig

if TYPE_CHECKING:
    from gerbil_tune.data.splits import Splits
    from gerbil_tune.geometry import RecordingSetup


@dataclass(frozen=True)
class TrainingData:
    """Checked data: the split events and the recording site."""

    splits: "Splits"
    setup: "RecordingSetup"


def open_training_data(paths: list[Path], config: DataConfig, split_dir: Path) -> TrainingData:
    """Open, split and check.

    Args:
        paths: One folder or file, or several files.
        config: Data section of the experiment.
        split_dir: Where a split that is made is kept.

    Raises:
        DatasetError: On the first thing that would make training wrong.
    """
    from gerbil_tune.data.checks import cheap_checks, raise_on_errors
    from gerbil_tune.data.events import recording_setup
    from gerbil_tune.data.splits import load_splits

    splits = load_splits(paths[0] if len(paths) == 1 else paths, config, split_dir)
    setup = recording_setup(splits.train, config)
    for events in (splits.train, splits.validation, splits.test):
        if events is None:
            continue
        findings = cheap_checks(events, setup)
        raise_on_errors(findings, events.files[0].path)
        for finding in findings:
            typer.echo(f"warning: {finding.message}", err=True)
    return TrainingData(splits, setup)


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
