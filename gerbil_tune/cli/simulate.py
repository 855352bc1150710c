"""``gerbil-tune simulate``: recordings of a simulated arena."""

from pathlib import Path
from typing import Annotated, Literal

import typer


def simulate(
    output: Annotated[
        Path,
        typer.Argument(
            metavar="OUT.h5",
            help="File to write: audio, locations (mm from the arena centre) and the recording site.",
        ),
    ],
    preset: Annotated[
        Literal["e1", "e2", "e3"] | None,
        typer.Option(
            help="Arena: e1 572x356x368 mm, 4 microphones, 125 kHz; e2 914x1218x610 mm, 8, 192 kHz;"
            " e3 615x615x425 mm, 24, 250 kHz. Default: e1.",
        ),
    ] = None,
    room: Annotated[
        Path | None,
        typer.Option(
            metavar="ROOM.yaml",
            help="An arena of your own instead of a preset: size_mm (x, y, z), sample_rate_hz,"
            " microphones_mm (x and y from the centre, z from the floor), absorption of walls, floor and"
            " ceiling (0 to 1), image_order (reflections at most).",
        ),
    ] = None,
    events: Annotated[int, typer.Option(help="Number of calls to simulate.")] = 2400,
    seed: Annotated[
        int, typer.Option(help="Same seed, same file, whatever the number of processes.")
    ] = 0,
    processes: Annotated[
        int | None, typer.Option(help="Worker processes.", show_default="one a core")
    ] = None,
    keypoints: Annotated[
        int, typer.Option(help="1: the nose; 2: the nose and the head, 15 to 25 mm behind it.")
    ] = 1,
    animals: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Animals in the arena, one of which calls: with 2 or more the file has tracks of all.",
        ),
    ] = 1,
    snr_db: Annotated[
        tuple[float, float],
        typer.Option(
            metavar="LOW HIGH",
            help="Range of the signal-to-noise ratio in dB: mean powers over the call and all microphones.",
        ),
    ] = (5.0, 25.0),
    absorption_scale: Annotated[
        tuple[float, float],
        typer.Option(
            metavar="LOW HIGH",
            help="Range of a factor on the arena's absorption: below 1 for more echoes.",
        ),
    ] = (0.8, 1.25),
    height_mm: Annotated[
        tuple[float, float],
        typer.Option(metavar="LOW HIGH", help="Range of the nose's height above the floor in mm."),
    ] = (20.0, 60.0),
    duration_ms: Annotated[
        tuple[float, float],
        typer.Option(
            metavar="LOW HIGH", help="Range of a synthetic call's length in ms; log-uniform."
        ),
    ] = (20.0, 200.0),
    wavs: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of wav files, one call each, to use instead of synthetic calls.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT.h5 if it exists.")] = False,
) -> None:
    """Simulate recordings of calls in a reverberant arena (image-source method).

    Each event draws its place, call, height, echoes, loudness and noise from its own generator.
    """
    import time

    from gerbil_tune.data import simulate as simulation
    from gerbil_tune.errors import ConfigError

    if preset is not None and room is not None:
        raise ConfigError(
            f"--preset {preset} and --room {room} exclude each other; pass one of them"
        )
    spec = simulation.make_spec(
        simulation.PRESETS[preset or "e1"] if room is None else simulation.load_room(room),
        keypoints=keypoints,
        animals=animals,
        snr_db=snr_db,
        absorption_scale=absorption_scale,
        source_height_mm=height_mm,
        duration_ms=duration_ms,
        wavs=wavs,
    )
    started = time.monotonic()
    simulation.simulate(
        spec, output, num_events=events, seed=seed, processes=processes, overwrite=force
    )
    megabytes = output.stat().st_size / 1e6
    typer.echo(
        f"{output}: {events} events of room {spec.room.name}, {len(spec.room.microphones_mm)} microphones,"
        f" {megabytes:.0f} MB, in {time.monotonic() - started:.1f} s"
    )
