"""``gerbil-tune train``: one configuration, trained and exported."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Annotated

import typer

from gerbil_tune.cli.options import (
    CacheDirOption,
    DataOption,
    EventsOption,
    SavePathOption,
    SetOption,
    SplitOption,
)
from gerbil_tune.config.load import load_experiment
from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.errors import ConfigError


def train(
    data: DataOption,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="C.yaml", help="Experiment config (YAML, JSON, JSON5); default: gcc-net."
        ),
    ] = None,
    save_path: SavePathOption = Path("trained_models"),
    workers: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="DDP workers: one CPU each, one GPU each where there are any."
        ),
    ] = 1,
    split: SplitOption = None,
    events: EventsOption = None,
    cache_dir: CacheDirOption = None,
    overrides: SetOption = None,
) -> None:
    """Train one configuration and export it as a bundle. The same command again continues a stopped run."""
    experiment = load_experiment(config, overrides or [])
    bundle = train_and_export(experiment, data, save_path, workers, split=split, events=events)
    typer.echo(f"exported {bundle}")
    typer.echo(f"next: gerbil-tune evaluate --model {bundle} --data TEST.h5")


def train_and_export(
    experiment: ExperimentConfig,
    data: list[Path],
    save_path: Path,
    workers: int,
    folder: Path | None = None,
    *,
    split: Path | None = None,
    events: Path | None = None,
) -> Path:
    """Train with Ray Train and return the bundle's folder; runs stopped half-way go on.

    Args:
        experiment: The config.
        data: Where the events are.
        save_path: Folder of bundles.
        workers: DDP ranks.
        folder: Export exactly here instead of ``save_path/<name>/<number>``.
        split: Folder of a split to use.
        events: Index file of the events that take part.
    """
    check_workers(experiment, workers)
    identity = _identity(experiment, data, split, events)
    run_dir = (save_path / ".runs" / f"{experiment.name}-{identity}").resolve()
    from gerbil_tune.cli.training_data import (
        check_augmentation,
        describe,
        open_training_data,
    )

    opened = open_training_data(data, experiment.data, run_dir, split=split, events=events)
    typer.echo(describe(opened))
    check_augmentation(experiment.augmentation, opened.setup)
    from gerbil_tune.training.export import export_bundle
    from gerbil_tune.training.job import TrainingJob
    from gerbil_tune.training.ray_runtime import start_ray
    from gerbil_tune.training.trainer import RAY_TRAIN_FOLDER, train_with_workers

    start_ray()
    import ray

    job = TrainingJob(experiment, opened.setup, opened.splits, run_dir)
    use_gpu = ray.cluster_resources().get("GPU", 0) >= 1
    epochs = experiment.training.epochs
    train_with_workers(
        job,
        num_workers=workers,
        use_gpu=use_gpu,
        on_epoch=lambda metrics: echo_epoch(metrics, epochs),
    )
    bundle = export_bundle(job, save_path, provenance={"workers": workers}, folder=folder)
    shutil.rmtree(run_dir, ignore_errors=True)
    shutil.rmtree(run_dir.parent / RAY_TRAIN_FOLDER / run_dir.name, ignore_errors=True)
    return bundle


def check_workers(experiment: ExperimentConfig, workers: int) -> None:
    """Refuse a worker count that does not divide the batch.

    Raises:
        ConfigError: Naming both numbers.
    """
    batch = experiment.training.global_batch_size
    if batch % workers:
        raise ConfigError(
            f"training/global_batch_size is {batch}, which {workers} workers cannot share evenly; "
            f"take another number of workers, or --set training/global_batch_size={batch + -batch % workers}"
        )


def echo_epoch(metrics: dict[str, float], epochs: int) -> None:
    """Print one epoch."""
    typer.echo(
        f"epoch {int(metrics['epoch'])}/{epochs}: train NLL {metrics['train_nll']:.3f}, validation median "
        f"{metrics['val_error_median_mm']:.1f} mm, mean {metrics['val_error_mean_mm']:.1f} mm "
        f"({metrics['train_events_per_s']:,.0f} events/s)"
    )


def _identity(
    experiment: ExperimentConfig, data: list[Path], split: Path | None, events: Path | None
) -> str:
    """Eight characters that a run shares with its own continuation and with no other."""
    what = [
        # How often a run is saved does not make it another one.
        experiment.model_dump(mode="json", exclude={"training": {"checkpoint_interval_s"}}),
        sorted(str(path.resolve()) for path in data),
        *(_content(file) for file in ([] if split is None else sorted(split.glob("**/*_set.npy")))),
        None if events is None else _content(events),
    ]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:8]


def _content(path: Path) -> str:
    """Hash of a file; of a missing one too, for it is told in due course."""
    content = path.read_bytes() if path.is_file() else b""
    return f"{path.name} {hashlib.sha256(content).hexdigest()}"
