"""``gerbil-tune train``: one configuration, trained and exported."""

import hashlib
import json
import shlex
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gerbil_tune.cli.initial_model import load_fine_tuning
from gerbil_tune.cli.lost_ray import left_without_ray
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

if TYPE_CHECKING:
    from gerbil_tune.cli.training_data import TrainingData
    from gerbil_tune.data.splits.splits import Splits
    from gerbil_tune.training.job import TrainingJob

_SPLIT = "split"
"""Folder of a bundle with the index files of the split that it was trained with."""
_TEST_PART = "test_set.npy"
_NOT_OF_THE_RUN = {"checkpoint_interval_s", "accumulate_steps"}
"""Settings that do not make a run another one: how often it is saved, and in what parts it runs a step."""


def train(
    data: DataOption,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="C.yaml",
            help="Experiment config (YAML, JSON, JSON5); default: that of --init-from, else gcc-net.",
        ),
    ] = None,
    init_from: Annotated[
        str | None,
        typer.Option(
            "--init-from",
            metavar="REF",
            help="Begin with the weights of a trained model, wherever they fit: models:/NAME@ALIAS or a"
            " bundle folder. --set fine_tune/what=head or low-rank trains little of it.",
        ),
    ] = None,
    save_path: SavePathOption = Path("trained_models"),
    workers: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="DDP workers: one CPU each, one GPU each where there are any."
        ),
    ] = 1,
    seeds: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="K",
            help="Train K times, with training/seed and those after it, and export an ensemble of the K.",
        ),
    ] = 1,
    split: SplitOption = None,
    events: EventsOption = None,
    cache_dir: CacheDirOption = None,
    overrides: SetOption = None,
) -> None:
    """Train one configuration and export it as a bundle. The same command again continues a stopped run.

    Ctrl-C, SIGTERM and SIGUSR1 stop it after the step under way, with exit code 75; a second one at once.
    """
    if init_from is None:
        experiment = load_experiment(config, overrides or [])
    else:
        experiment = load_fine_tuning(init_from, config, overrides or [])
    bundle = train_and_export(
        experiment, data, save_path, workers, seeds=seeds, split=split, events=events
    )
    typer.echo(f"exported {bundle}")
    # Impulse responses are no calls to be located.
    recordings = [] if experiment.data.source_folder else data
    typer.echo(f"next: {evaluation_command(bundle, recordings, split)}")


def train_and_export(
    experiment: ExperimentConfig,
    data: list[Path],
    save_path: Path,
    workers: int,
    folder: Path | None = None,
    *,
    seeds: int = 1,
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
        seeds: Trainings, each with a seed of its own; of several the bundle is their ensemble.
        split: Folder of a split to use.
        events: Index file of the events that take part.

    Raises:
        StoppedError: On SIGINT, SIGTERM or SIGUSR1, with the state saved.
        KeyboardInterrupt: On a second one.
        LaunchError: If another process does the same.
        ConfigError: If a run was begun on other data at these places.
    """
    check_workers(experiment, workers)
    from gerbil_tune.cli.run_folder import held, remove_run
    from gerbil_tune.cli.training_data import open_training_data

    members = [_with_seed(experiment, number) for number in range(seeds)]
    run_dirs = [_run_dir(member, data, save_path, split, events) for member in members]
    with ExitStack() as stack:
        for run_dir in run_dirs:
            stack.enter_context(held(run_dir))
        stack.enter_context(left_without_ray())
        bundles: list[Path] = []
        for member, run_dir in zip(members, run_dirs, strict=True):
            if seeds > 1:
                typer.echo(f"seed {member.training.seed}, {len(bundles) + 1} of {seeds}")
            opened = partial(
                open_training_data, data, member.data, run_dir, split=split, events=events
            )
            bundles.append(_run(member, opened, run_dir, save_path, workers, folder))
        bundle = bundles[0] if seeds == 1 else _join(run_dirs, bundles, save_path)
        from gerbil_tune.training.trainer import RAY_TRAIN_FOLDER

        for run_dir in run_dirs:
            remove_run(run_dir, run_dir.parent / RAY_TRAIN_FOLDER / run_dir.name)
    return bundle


def _with_seed(experiment: ExperimentConfig, number: int) -> ExperimentConfig:
    """The experiment with the seed so many after its own."""
    seed = experiment.training.seed + number
    training = experiment.training.model_copy(update={"seed": seed})
    return experiment.model_copy(update={"training": training})


def _run_dir(
    experiment: ExperimentConfig,
    data: list[Path],
    save_path: Path,
    split: Path | None,
    events: Path | None,
) -> Path:
    identity = _identity(experiment, data, split, events)
    return (save_path / ".runs" / f"{experiment.name}-{identity}").resolve()


def _join(run_dirs: list[Path], bundles: list[Path], save_path: Path) -> Path:
    """Export an ensemble of runs that have been exported."""
    from gerbil_tune.training.export import export_ensemble

    return export_ensemble(list(zip(run_dirs, bundles, strict=True)), save_path)


def _run(
    experiment: ExperimentConfig,
    open_events: Callable[[], "TrainingData"],
    run_dir: Path,
    save_path: Path,
    workers: int,
    folder: Path | None,
) -> Path:
    """Train and export, or return what an earlier process has exported of this run."""
    from gerbil_tune.cli.run_folder import exported_from, note_export

    # Of a run that was killed between its export and its end.
    bundle, is_whole = exported_from(run_dir)
    if not is_whole:
        opened = open_events()
        if bundle is None:
            bundle = _train_to_bundle(experiment, opened, run_dir, save_path, workers, folder)
        _keep_split(run_dir, opened.splits, bundle)
        note_export(run_dir, bundle, is_whole=True)
    assert bundle is not None
    return bundle


def _train_to_bundle(
    experiment: ExperimentConfig,
    opened: "TrainingData",
    run_dir: Path,
    save_path: Path,
    workers: int,
    folder: Path | None,
) -> Path:
    # Torch takes seconds to load: not before the data are known to be readable.
    from gerbil_tune.cli.run_folder import note_export
    from gerbil_tune.cli.training_data import warn_of_changes
    from gerbil_tune.training.export import export_bundle
    from gerbil_tune.training.job import TrainingJob
    from gerbil_tune.training.notes import read_notes
    from gerbil_tune.training.stopping import STOP_FILE, stop_on_signals

    stop_file = run_dir / STOP_FILE
    with stop_on_signals(stop_file, lambda said: typer.echo(said, err=True)) as listen_again:
        job = TrainingJob(experiment, opened.setup, opened.splits, run_dir, stop_file=stop_file)
        fingerprint = _train(job, opened, workers, listen_again)
    bundle = export_bundle(
        job,
        save_path,
        data_fingerprint=fingerprint,
        provenance={"workers": workers, "notes": read_notes(job.run_dir)},
        folder=folder,
    )
    note_export(run_dir, bundle, is_whole=False)
    warn_of_changes(opened, fingerprint)
    return bundle


def _train(
    job: "TrainingJob", opened: "TrainingData", workers: int, listen_again: Callable[[], None]
) -> str:
    """Train to the end; return the fingerprint of the data as they were when it began."""
    from gerbil_tune.cli.run_folder import check_data
    from gerbil_tune.cli.training_data import check_augmentation, describe
    from gerbil_tune.training.cluster_nodes import check_training_machines
    from gerbil_tune.training.memory import train_in_what_fits
    from gerbil_tune.training.ray_runtime import start_ray
    from gerbil_tune.training.trainer import end_if_asked, train_with_workers

    typer.echo(describe(opened))
    check_augmentation(job.config.augmentation, opened.setup)
    fingerprint = check_data(job.run_dir, opened.splits)
    told = _tell_initial_weights(job)
    end_if_asked(job)
    start_ray()
    listen_again()
    check_training_machines(job.splits, job.config.data.source_folder, job.run_dir)
    import ray

    _say_where_it_goes_on(job)
    end_if_asked(job)
    use_gpu = ray.cluster_resources().get("GPU", 0) >= 1
    fewer = 4 * job.config.training.accumulate_steps
    train_in_what_fits(
        lambda job: train_with_workers(
            job,
            num_workers=workers,
            use_gpu=use_gpu,
            on_epoch=lambda metrics: _tell_epoch(metrics, job, told),
        ),
        job,
        lambda said: typer.echo(said, err=True),
        advice=f"the same command with --set training/accumulate_steps={fewer} goes on with less at a time",
    )
    return fingerprint


def _tell_initial_weights(job: "TrainingJob") -> set[str]:
    """Tell what a new run will take from a trained model, before anything starts.

    Returns:
        What was told, which the run will note too.

    Raises:
        GerbilTuneError: If it can take nothing.
    """
    from gerbil_tune.training.checkpoints import newest_place

    if job.config.fine_tune.init_from is None or newest_place(job.run_dir) is not None:
        return set()
    from gerbil_tune.models.initial_weights import load_initial_weights
    from gerbil_tune.models.localizer import Localizer

    model = Localizer(job.config, job.setup)
    notes = load_initial_weights(model, job.config, job.setup)
    for note in notes:
        typer.echo(note)
    return set(notes)


def _tell_epoch(metrics: dict[str, float], job: "TrainingJob", told: set[str]) -> None:
    """Print an epoch, and before it what the run has noted meanwhile."""
    from gerbil_tune.training.notes import read_notes

    for note in read_notes(job.run_dir):
        if note not in told:
            told.add(note)
            typer.echo(note)
    echo_epoch(metrics, job.config.training.epochs)


def _say_where_it_goes_on(job: "TrainingJob") -> None:
    from gerbil_tune.training.checkpoints import newest_place
    from gerbil_tune.training.trainer import describe_place

    place = newest_place(job.run_dir)
    if place is not None:
        typer.echo(f"continuing {describe_place(place, job)}")


def _keep_split(run_dir: Path, splits: "Splits", bundle: Path) -> None:
    """Put the split beside the weights: which events are left to test on is asked after the run."""
    from gerbil_tune.data.files.index_files import write_indices
    from gerbil_tune.models.bundle_files import flush_tree

    folder = bundle / _SPLIT
    for part in sorted(run_dir.glob("*_set.npy")):
        folder.mkdir(exist_ok=True)
        shutil.copy(part, folder)
    test = splits.test
    if (
        test is not None
        and not (run_dir / _TEST_PART).exists()
        and len(test) < sum(file.num_events for file in test.files)
    ):
        write_indices(folder / _TEST_PART, test.rows)  # some events of a file of its own
    if folder.is_dir():
        flush_tree(bundle)


def evaluation_command(bundle: Path, data: list[Path], split: Path | None) -> str:
    """The command that scores a bundle on the test part of the split that it was trained with.

    Args:
        bundle: From ``train_and_export``.
        data: As it was trained with; empty if nothing of it can be scored.
        split: Likewise.
    """
    from gerbil_tune.data.splits.splits import find_split_files

    files = find_split_files(data[0]) if split is None and len(data) == 1 else {}
    chosen = bundle / _SPLIT / _TEST_PART
    words = ["gerbil-tune", "evaluate", "--model", str(bundle)]
    if "train_set" in files:
        paths = [files["test_set"]] if "test_set" in files else []
    else:
        paths = data if chosen.exists() else []
    for path in paths or [Path("TEST.h5")]:
        words += ["--data", str(path)]
    if paths and chosen.exists():
        words += ["--events", str(chosen)]
    return shlex.join(words)


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
        f"epoch {int(metrics['epoch'])}/{epochs}: train loss {metrics['train_loss']:.3f}, validation median "
        f"{metrics['val_error_median_mm']:.1f} mm, mean {metrics['val_error_mean_mm']:.1f} mm "
        f"({metrics['train_events_per_s']:,.0f} events/s)"
    )


def _identity(
    experiment: ExperimentConfig, data: list[Path], split: Path | None, events: Path | None
) -> str:
    """Eight characters that a run shares with its own continuation and with no other."""
    what = [
        experiment.model_dump(mode="json", exclude={"training": _NOT_OF_THE_RUN}),
        sorted(str(path.resolve()) for path in data),
        *(_content(file) for file in ([] if split is None else sorted(split.glob("**/*_set.npy")))),
        None if events is None else _content(events),
    ]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:8]


def _content(path: Path) -> str:
    """Hash of a file; of a missing one too, for it is told in due course."""
    content = path.read_bytes() if path.is_file() else b""
    return f"{path.name} {hashlib.sha256(content).hexdigest()}"
