"""``gerbil-tune data``: look at data before training on it."""

from pathlib import Path
from typing import Annotated

import typer

from gerbil_tune.cli.options import SetOption
from gerbil_tune.config.load import load_experiment

app = typer.Typer(help="Check and split data files.", no_args_is_help=True)


@app.command("check")
def check(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="HDF5 files or folders.")],
    overrides: SetOption = None,
) -> None:
    """Say what is in the files and what is wrong with them; exit code 2 when something must be mended."""
    config = load_experiment(None, overrides or [])
    from gerbil_tune.data.checks import cheap_checks, raise_on_errors
    from gerbil_tune.data.events import open_events, recording_setup

    events = open_events(paths)
    setup = recording_setup(events, config.data)
    findings = cheap_checks(events, setup)
    seconds = float(events.lengths.sum()) / setup.sample_rate_hz
    arena = " x ".join(f"{width:g}" for width in setup.arena_mm)
    typer.echo(f"files         {', '.join(str(file.path) for file in events.files)}")
    typer.echo(f"layout        {', '.join(sorted({file.layout for file in events.files}))}")
    typer.echo(
        f"events        {len(events):,} ({seconds:,.1f} s of audio, {events.files[0].dtype})"
    )
    typer.echo(f"microphones   {setup.num_microphones} at {setup.sample_rate_hz:g} Hz")
    typer.echo(f"arena         {arena} mm")
    typer.echo(f"keypoints     {', '.join(setup.keypoints)} ({setup.num_axes} axes)")
    if events.locations_mm is None:
        typer.echo("locations     none: good for prediction, not for training")
    for finding in findings:
        typer.echo(f"{finding.level}: {finding.message}")
    raise_on_errors(findings, events.files[0].path)
    typer.echo("no problem found" if not findings else "usable, with the warnings above")


@app.command("split")
def split(
    path: Annotated[Path, typer.Argument(metavar="FILE.h5", help="A file of events.")],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Where train_set.npy, val_set.npy, test_set.npy go.")
    ] = Path("indices"),
    overrides: SetOption = None,
) -> None:
    """Write a seeded split: by group where the file knows groups, else by event.

    Fraction and seed are config values: --set data/validation_fraction=0.1 --set data/split_seed=0.
    """
    config = load_experiment(None, overrides or [])
    from gerbil_tune.data.splits import load_splits

    splits = load_splits(path, config.data, out)
    test = 0 if splits.test is None else len(splits.test)
    typer.echo(
        f"{out}: {len(splits.train)} training, {len(splits.validation)} validation, {test} test events"
    )
