"""``gerbil-tune data show``: one event as a picture."""

from pathlib import Path
from typing import Annotated

import typer

from gerbil_tune.cli.options import SetOption
from gerbil_tune.config.load import load_experiment
from gerbil_tune.errors import ConfigError


def show(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="HDF5 file of events, or a folder.")],
    event: Annotated[int, typer.Option(metavar="I", help="Which event, counted from 0.")] = 0,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="OUT.png", help="Default: FILE_event_I.png, in this folder."
        ),
    ] = None,
    overrides: SetOption = None,
) -> None:
    """Draw one event: waveform and spectrogram of each microphone, and the keypoints in the arena.

    Facts that the file does not state can be added: --set data/sample_rate_hz=125000.
    """
    config = load_experiment(None, overrides or [])
    from gerbil_tune.data.events import open_events
    from gerbil_tune.data.pictures.event import draw_event

    if output is not None and output.suffix.lower() != ".png":
        raise ConfigError(f"-o must name a picture ending in .png, but is {output}")
    events = open_events(path)
    if output is None:
        output = Path(f"{path.stem}_event_{event}.png")
    typer.echo(f"wrote {draw_event(output, events, event, config.data)}")
