"""``gerbil-tune search``: find the best configuration, train it whole, register it, report."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gerbil_tune.cli.options import (
    CacheDirOption,
    DataOption,
    EventsOption,
    SavePathOption,
    SetOption,
    SplitOption,
    parse_duration_s,
)
from gerbil_tune.config.schema import NAME_PATTERN
from gerbil_tune.config.space import SpaceFile, boundary_configs, default_config, load_space
from gerbil_tune.errors import ConfigError

if TYPE_CHECKING:
    from gerbil_tune.cli.training_data import TrainingData

STUDIES = Path("studies")


def search(
    space_path: Annotated[
        Path, typer.Argument(metavar="SPACE.yaml", help="What is searched; see search_spaces/.")
    ],
    data: DataOption,
    name: Annotated[
        str | None, typer.Option(metavar="S", help="Study name; default: the space's name.")
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Trials that the study shall hold; default: the space's."
        ),
    ] = None,
    time_budget: Annotated[
        str | None,
        typer.Option(
            metavar="8h",
            help="Time for trials (s, m, h, d), of all runs on this study together; default: no limit.",
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Epochs of all trials together; default: no limit."),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Stop when the last N trials have not improved the best; default: never.",
        ),
    ] = None,
    max_failures: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Give up when so many trials have failed; default: 20."
        ),
    ] = None,
    workers_per_trial: Annotated[
        int, typer.Option(min=1, metavar="N", help="DDP workers of each trial (a CPU or GPU each).")
    ] = 1,
    max_concurrent: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Trials at a time; default: as many as fit."),
    ] = None,
    refit_top: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="K",
            help="Train the K best trials whole and compare them on the test events; default: 1.",
        ),
    ] = None,
    warm_start: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STUDY",
            help="Learn from the trials of an earlier study (its folder or name, or"
            " mlflow:EXPERIMENT); repeatable.",
        ),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            envvar="GERBIL_TUNE_STORAGE",
            help="Optuna storage; default: sqlite in the study's folder.",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Show the space, what its models cost and how long it takes; no search.",
        ),
    ] = False,
    save_path: SavePathOption = Path("trained_models"),
    split: SplitOption = None,
    events: EventsOption = None,
    cache_dir: CacheDirOption = None,
    overrides: SetOption = None,
) -> None:
    """Search a space; the same command again continues the study where it stopped.

    Ctrl-C, SIGTERM and SIGUSR1 save all running trials and end with exit code 75; a second one does not wait.
    Leaves studies/<name>/, the tracking store mlflow.db with mlartifacts/, the champion's bundle under
    trained_models/ and its version in the model registry with the alias champion.
    """
    limits = {
        "trials": trials,
        "time_budget_s": parse_duration_s(time_budget) if time_budget else None,
        "epoch_budget": epochs,
        "patience_trials": patience,
        "max_failures": max_failures,
        "refit_top": refit_top,
        "warm_start": tuple(warm_start) if warm_start else None,
    }
    space = _with_limits(load_space(space_path, tuple(overrides or ())), limits)
    study_name = _checked_name(name or space.name)
    _check_batches(space, workers_per_trial, str(space_path))
    study_dir = STUDIES / study_name
    from gerbil_tune.cli.training_data import describe, open_training_data

    base = default_config(space, str(space_path))
    # A dry run looks at the split that a study has, and does not fix that of one yet to come.
    keeps_split = not dry_run or any(study_dir.glob("*_set.npy"))
    split_dir = study_dir if keeps_split else None
    opened = open_training_data(data, base.data, split_dir, split=split, events=events)
    _check_configs(space, opened, str(space_path))
    typer.echo(f"study {study_name}: {describe(opened)}")
    if dry_run:
        _show_dry_run(space, opened, max_concurrent, workers_per_trial)
        return
    from gerbil_tune.cli.study_run import run_study

    run_study(
        space,
        opened,
        study_name,
        study_dir,
        storage=storage,
        save_path=save_path.resolve(),
        workers_per_trial=workers_per_trial,
        max_concurrent=max_concurrent,
    )


def _with_limits(space: SpaceFile, limits: Mapping[str, object]) -> SpaceFile:
    """Lay options over the study section of the file."""
    given = {name: value for name, value in limits.items() if value is not None}
    return space.model_copy(update={"study": space.study.model_copy(update=given)})


def _checked_name(name: str) -> str:
    if not re.fullmatch(NAME_PATTERN, name):
        raise ConfigError(
            f"--name {name!r} must be letters, digits, '.', '_' and '-', and begin with one of the "
            "first two"
        )
    return name


def _check_batches(space: SpaceFile, workers: int, source: str) -> None:
    for config in boundary_configs(space, source):
        batch = config.training.global_batch_size
        if batch % workers:
            raise ConfigError(
                f"{source}: training/global_batch_size may be {batch}, which {workers} workers cannot "
                "share evenly; change it or --workers-per-trial"
            )
    if workers > 1 and space.study.trial_scheduler.kind == "pbt":
        raise ConfigError(
            f"{source}: the trial_scheduler pbt copies trials of one worker, but --workers-per-trial is "
            f"{workers}; use 1, or another trial_scheduler"
        )


def _check_configs(space: SpaceFile, opened: "TrainingData", source: str) -> None:
    """Refuse before Ray starts what every trial would refuse one by one."""
    from gerbil_tune.cli.training_data import check_augmentation

    for config in boundary_configs(space, source):
        check_augmentation(config.augmentation, opened.setup)


def _show_dry_run(
    space: SpaceFile, opened: "TrainingData", max_concurrent: int | None, workers_per_trial: int
) -> None:
    from rich.console import Console

    from gerbil_tune.search.dry_run import print_dry_run

    print_dry_run(space, opened, max_concurrent, Console(), workers_per_trial=workers_per_trial)
