"""``gerbil-tune data split``: which events train, validate and test."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gerbil_tune.cli.options import CacheDirOption, EventsOption, SetOption
from gerbil_tune.config.load import load_experiment
from gerbil_tune.units import counted

if TYPE_CHECKING:
    from gerbil_tune.data.splits.new_split import PartSummary


def split(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="HDF5 files or folders.")],
    out: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="Where train_set.npy, val_set.npy, test_set.npy and split.json go.",
        ),
    ] = Path("indices"),
    group_by: Annotated[
        str,
        typer.Option(
            metavar="auto|file|gap|none|NAME",
            help="What stays on one side: each file, bouts (by gaps in onsets_s), single events, or events"
            " with equal values of a dataset or file attribute NAME; auto: group_ids or session_ids, else 10"
            " files or more, else 10 bouts or more, else single events.",
        ),
    ] = "auto",
    gap_s: Annotated[
        float, typer.Option(metavar="S", help="Least seconds between the onsets of two bouts.")
    ] = 1.0,
    events: EventsOption = None,
    cache_dir: CacheDirOption = None,
    overrides: SetOption = None,
) -> None:
    """Divide events by group, alike over the arena, into index files; say how far the parts differ.

    Sizes and seed are config values: --set data/validation_fraction=0.1 --set data/test_fraction=0.2
    --set data/split_seed=0.
    """
    config = load_experiment(None, overrides or []).data
    from gerbil_tune.data.events import open_events
    from gerbil_tune.data.files.index_files import read_indices
    from gerbil_tune.data.splits.new_split import make_split, summarize_parts, write_split
    from gerbil_tune.data.splits.splits import find_split_files

    whole = open_events(paths)
    chosen = None if events is None else read_indices(events, len(whole))
    for path in paths:
        if path.is_dir() and (named := find_split_files(path)):
            typer.echo(
                f"warning: {path} is split by its files already ({', '.join(named)}); all their events are "
                "divided anew",
                err=True,
            )
    new = make_split(whole, config, chosen=chosen, group_by=group_by, gap_s=gap_s)
    summaries = summarize_parts(new, whole, config.sample_rate_hz)
    write_split(out, new, whole, config, gap_s=gap_s, summaries=summaries)
    taking_part = "" if chosen is None else f", {len(chosen):,} of them chosen by {events}"
    in_files = f"{counted(len(whole), 'event')} in {counted(len(whole.files), 'file')}"
    typer.echo(f"{in_files}{taking_part}")
    typer.echo(f"split {new.describe()}")
    for line in _table(summaries):
        typer.echo(line)
    if any(part.distance is not None for part in summaries.values()):
        typer.echo(
            "distance: how far a part's places in the arena are from those of all events, 0 (alike) to 1; "
            "by chance: the same for random parts of that size, on average"
        )
    typer.echo(f"wrote {', '.join(f'{name}.npy' for name in summaries)} and split.json to {out}")
    data = " ".join(f"--data {shlex.quote(str(path))}" for path in paths)
    choice = "" if events is None else f" --events {shlex.quote(str(events))}"
    typer.echo(
        f"next: gerbil-tune search SPACE.yaml {data} --split {shlex.quote(str(out))}{choice}"
    )


def _table(summaries: Mapping[str, "PartSummary"]) -> list[str]:
    """A row a part; distances are total variations of the histogram over the arena's cells."""
    rows = [
        ("part", "events", "groups", "distance", "by chance", "mean location", "median duration"),
        *(
            (
                name.removesuffix("_set"),
                f"{part.num_events:,}",
                "" if part.num_groups is None else f"{part.num_groups:,}",
                "" if part.distance is None else f"{part.distance:.3f}",
                "" if part.random_distance is None else f"{part.random_distance:.3f}",
                ""
                if part.mean_location_mm is None
                else f"{', '.join(str(round(value)) for value in part.mean_location_mm)} mm",
                "" if part.median_duration_s is None else f"{part.median_duration_s * 1000:.0f} ms",
            )
            for name, part in summaries.items()
        ),
    ]
    kept = [column for column in zip(*rows, strict=True) if any(column[1:])]
    widths = [max(map(len, column)) for column in kept]
    return [
        "  " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in zip(*kept, strict=True)
    ]
