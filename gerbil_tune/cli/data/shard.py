"""``gerbil-tune data shard``: a data set as contiguous files of about one size."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gerbil_tune.cli.options import CacheDirOption, EventsOption, SetOption
from gerbil_tune.config.load import load_experiment
from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.errors import ConfigError
from gerbil_tune.units import counted

if TYPE_CHECKING:
    from gerbil_tune.data.events import EventSet
    from gerbil_tune.data.files.shard_set import Rendering


def shard(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="HDF5 files or folders.")],
    out: Annotated[
        Path,
        typer.Option(
            "-o", "--out", metavar="DIR", help="Where manifest.json and shard-00000.h5, ... go."
        ),
    ],
    shard_mb: Annotated[
        float, typer.Option(min=0.001, max=1e9, metavar="MB", help="Audio in a shard, about.")
    ] = 1000.0,
    events: EventsOption = None,
    processes: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Processes; default: one a core.")
    ] = None,
    overrides: SetOption = None,
    cache_dir: CacheDirOption = None,
) -> None:
    """Write data as shards: contiguous, with statistics of every event, checksums and a manifest.

    Each shard is a valid file of events by itself, in vocalocator's layout; the folder is given to --data
    like a file. A folder of train_set.h5, val_set.h5 and test_set.h5 becomes a folder of three such folders.
    Impulse responses are convolved with the sounds of --set data/source_folder=WAVS. The same command
    continues an interrupted run. data check verifies the checksums.
    """
    config = load_experiment(None, overrides or [])
    from gerbil_tune.data.events import open_chosen
    from gerbil_tune.data.splits.splits import find_split_files

    parts = find_split_files(paths[0]) if len(paths) == 1 else {}
    if parts and events is not None:
        raise ConfigError(
            f"--events chooses from one set, but {paths[0]} holds {', '.join(parts)}; shard its files "
            "one by one"
        )
    for name, part in parts.items() if parts else [("", paths)]:
        _write(open_chosen(part, events), out / name, shard_mb, processes, config)
    typer.echo(f"next: gerbil-tune data check {out}")


def _write(
    events: "EventSet",
    folder: Path,
    shard_mb: float,
    processes: int | None,
    config: ExperimentConfig,
) -> None:
    from gerbil_tune.data.files.shard_set import write_shards
    from gerbil_tune.data.progress import progress_bar

    rendering = _rendering(events, config)
    with progress_bar(len(events), doing="writing shards") as advance:
        manifest = write_shards(
            events,
            folder,
            rendering=rendering,
            shard_bytes=int(shard_mb * 1e6),
            processes=processes,
            advance=advance,
        )
    megabytes = sum(part.num_bytes for part in manifest.shards) / 1e6
    typer.echo(
        f"{folder}: {counted(len(events), 'event')} in {counted(len(manifest.shards), 'shard')}, "
        f"{megabytes:,.1f} MB"
    )


def _rendering(events: "EventSet", config: ExperimentConfig) -> "Rendering | None":
    """How impulse responses become recordings; None for recordings."""
    from gerbil_tune.data.events import stated_sample_rate_hz
    from gerbil_tune.data.files.shard_set import Rendering
    from gerbil_tune.data.sources import find_source_folder

    folder = find_source_folder(events, config.data)
    if folder is None:
        return None
    return Rendering(folder, stated_sample_rate_hz(events, config.data), seed=config.training.seed)
