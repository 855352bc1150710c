"""``gerbil-tune predict``: locations for recordings, with their uncertainty."""

import enum
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gerbil_tune.cli.options import CacheDirOption, ModelOption
from gerbil_tune.errors import ConfigError, GerbilTuneError, StoppedError

if TYPE_CHECKING:
    from gerbil_tune.data.events import EventSet
    from gerbil_tune.inference.job import PredictionSummary


class TableFormat(enum.StrEnum):
    """See ``gerbil_tune.inference.tables``."""

    csv = "csv"
    parquet = "parquet"
    npz = "npz"


def predict(
    model: ModelOption,
    data: Annotated[
        list[Path],
        typer.Option(
            "--data",
            metavar="PATH",
            help="HDF5 file; folder, with all below it; pattern such as 'season/*/calls.h5'; or list.txt with"
            " a path on each line; repeatable.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            metavar="OUT",
            help="OUT.h5: one file for all; else a folder, which mirrors the inputs.",
        ),
    ],
    workers: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Processes; 0: this one; default: this one for small jobs, else one a CPU or GPU.",
        ),
    ] = None,
    events: Annotated[
        Path | None,
        typer.Option(
            "--events",
            metavar="INDEX.npy",
            help="Predict only these events: their places, from 0, in the one file that --data names, or in"
            " the one folder of shards, which is then predicted into one file.",
        ),
    ] = None,
    formats: Annotated[
        list[TableFormat] | None,
        typer.Option(
            "--format",
            help="Write the same once more, beside each file: a table with a row an event, or its arrays;"
            " repeatable.",
        ),
    ] = None,
    point_predictions: Annotated[
        bool,
        typer.Option(
            "--point-predictions",
            help="Give /predictions the name /point_predictions, too, for vocalocator's readers.",
        ),
    ] = False,
    error_rate: Annotated[
        float,
        typer.Option(
            "--error-rate",
            metavar="SHARE",
            help="Where the input has tracks of several animals: share of wrong ones among the callers"
            " that are named, at most; 0.001 to 0.2.",
        ),
    ] = 0.05,
    density_step: Annotated[
        float | None,
        typer.Option(
            "--density-step",
            metavar="MM",
            help="Write /density, too: a map of the arena for each event, cells of this size; 10 is usual.",
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Throw away what an unfinished run with another model or input has left of this output.",
        ),
    ] = False,
    cache_dir: CacheDirOption = None,
) -> None:
    """Predict every event: /predictions (n, 2) in mm from the arena's centre, and how sure each one is.

    /covariance in mm², /region_area_mm2 of the regions that hold the location with a probability of 50, 90
    and 95 %, /confidence (the probability that it is within 50 mm) and /flags. With several keypoints or
    three axes the shapes are (n, K, D) and so on. Locations in the input are not needed; where it has them,
    /nll and /in_region compare. Where it has tracks of several animals (n, animals, K, D), /emitter says
    which one called and /caller_probability how likely each is. With --events there is a row for each of
    them, and /event_index says which.

    Stopped or killed, the same command goes on where it was (exit code 75 after Ctrl-C, SIGTERM or SIGUSR1).
    Files and events that cannot be predicted do not stop the others: a list named *.failed.json says why,
    and the exit code is 1.
    """
    from gerbil_tune.inference.job import predict_files
    from gerbil_tune.search.stop_request import signals_interrupt
    from gerbil_tune.tracking.model_registry import resolve_model
    from gerbil_tune.tracking.store import default_tracking_uri

    if not 0.0 < error_rate < 1.0:
        raise ConfigError(
            f"--error-rate is {error_rate:g}, but must be between 0 and 1, such as 0.05"
        )
    resolved = resolve_model(model, default_tracking_uri(Path.cwd()))

    def start_ray(sets: "Sequence[EventSet]") -> None:
        from gerbil_tune.training.cluster_nodes import check_machines, files_of
        from gerbil_tune.training.ray_runtime import start_ray as start

        start()
        listen_again()  # Ray has just taken SIGTERM for itself
        bundle = [path for path in resolved.path.rglob("*") if path.is_file()]
        check_machines([*bundle, *files_of(*sets)])

    try:
        with signals_interrupt() as listen_again:
            summary = predict_files(
                resolved,
                data,
                output,
                start_ray=start_ray,
                workers=workers,
                event_index=events,
                overwrite=overwrite,
                aliases=("point_predictions",) if point_predictions else (),
                error_rate=error_rate,
                density_step_mm=density_step,
            )
    except KeyboardInterrupt:
        raise StoppedError(
            "stopped; what is predicted is kept, and the same command goes on"
        ) from None
    for note in summary.notes:
        typer.echo(f"warning: {note}", err=True)
    for path in summary.reused:
        typer.echo(f"kept {path}: it holds the predictions of this model for this input already")
    if summary.num_resumed:
        typer.echo(f"kept {summary.num_resumed:,} events that an earlier run had predicted")
    typer.echo(
        f"predicted {summary.num_events:,} events with {resolved.uri} in {summary.seconds:.1f} s "
        f"({summary.events_per_s:,.0f} events/s)"
    )
    if summary.callers is not None:
        typer.echo(summary.callers.sentence())
    for path in summary.files:
        typer.echo(f"wrote {path}")
    _write_tables([*summary.reused, *summary.files], formats or [])
    raise_on_failures(summary)


def _write_tables(sources: list[Path], formats: "list[TableFormat]") -> None:
    from gerbil_tune.inference.tables import write_table

    for source in sources:
        for kind in formats:
            typer.echo(f"wrote {write_table(source, kind.value)}")


def raise_on_failures(summary: "PredictionSummary") -> None:
    """Say what could not be predicted, where there is any.

    Raises:
        GerbilTuneError: With exit code 1.
    """
    if summary.failed_file is None:
        return
    for problem in summary.problems:
        typer.echo(f"not predicted: {problem.reason}", err=True)
    parts = []
    if summary.problems:
        parts.append(_counted(len(summary.problems), "input file"))
    if summary.num_failed_events:
        parts.append(f"{_counted(summary.num_failed_events, 'event')} (NaN, see /flags)")
    raise GerbilTuneError(
        f"{' and '.join(parts)} could not be predicted; {summary.failed_file} says why of each"
    )


def _counted(number: int, name: str) -> str:
    return f"{number:,} {name}{'' if number == 1 else 's'}"
