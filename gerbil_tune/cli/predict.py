"""``gerbil-tune predict``: locations for recordings, with their uncertainty."""

from pathlib import Path
from typing import Annotated

import typer

from gerbil_tune.cli.options import CacheDirOption, ModelOption
from gerbil_tune.errors import StoppedError


def predict(
    model: ModelOption,
    data: Annotated[
        list[Path],
        typer.Option("--data", metavar="PATH", help="HDF5 files or folders of them; repeatable."),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", metavar="OUT", help="File for one input; folder for several inputs."
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
    cache_dir: CacheDirOption = None,
) -> None:
    """Predict every event: /predictions (n, 2) in mm from the arena's centre and /covariance in mm².

    With several keypoints or three axes the shapes are (n, K, D) and (n, K, D, D). Locations in the input
    are not needed. With --events there is a row for each of them, and /event_index says which it is.
    Stopped by Ctrl-C, SIGTERM or SIGUSR1 it ends with exit code 75; the same command goes on with the files
    that are left.
    """
    from gerbil_tune.inference.job import predict_files
    from gerbil_tune.search.stop_request import signals_interrupt
    from gerbil_tune.tracking.model_registry import resolve_model
    from gerbil_tune.tracking.store import default_tracking_uri

    resolved = resolve_model(model, default_tracking_uri(Path.cwd()))

    def start_ray() -> None:
        from gerbil_tune.data.events import open_events
        from gerbil_tune.training.cluster_nodes import check_machines, files_of
        from gerbil_tune.training.ray_runtime import start_ray as start

        start()
        listen_again()  # Ray has just taken SIGTERM for itself
        bundle = [path for path in resolved.path.rglob("*") if path.is_file()]
        check_machines([*bundle, *files_of(*map(open_events, data))])

    try:
        with signals_interrupt() as listen_again:
            summary = predict_files(
                resolved, data, output, start_ray=start_ray, workers=workers, event_index=events
            )
    except KeyboardInterrupt:
        raise StoppedError(
            "stopped; files that are written whole are kept, and the same command goes on"
        ) from None
    for note in summary.notes:
        typer.echo(f"warning: {note}", err=True)
    for path in summary.reused:
        typer.echo(f"kept {path}: it holds the predictions of this model for this input already")
    typer.echo(
        f"predicted {summary.num_events:,} events with {resolved.uri} in {summary.seconds:.1f} s "
        f"({summary.events_per_s:,.0f} events/s)"
    )
    if summary.num_non_finite:
        typer.echo(
            f"warning: {summary.num_non_finite} events could not be predicted and are NaN", err=True
        )
    for path in summary.files:
        typer.echo(f"wrote {path}")
