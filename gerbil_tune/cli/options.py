"""Options that several commands share, and where a command keeps its things."""

import os
from pathlib import Path
from typing import Annotated

import typer

from gerbil_tune.errors import ConfigError

CACHE_VARIABLE = "GERBIL_TUNE_CACHE_DIR"


def _set_cache_dir(folder: Path | None) -> Path | None:
    """Tell this process and those that it starts where the cache is."""
    if folder is None:
        return None
    folder = folder.expanduser().absolute()
    os.environ[CACHE_VARIABLE] = str(folder)
    return folder


DataOption = Annotated[
    list[Path],
    typer.Option(
        "--data",
        metavar="PATH",
        help="HDF5 file of events, or a folder with train_set.h5, val_set.h5 and perhaps test_set.h5;"
        " repeat it for several files.",
    ),
]
SplitOption = Annotated[
    Path | None,
    typer.Option(
        "--split",
        metavar="DIR",
        help="Folder with train_set.npy, val_set.npy and perhaps test_set.npy, as data split writes;"
        " default: the split beside the data, or a seeded one.",
    ),
]
EventsOption = Annotated[
    Path | None,
    typer.Option(
        "--events",
        metavar="INDEX.npy",
        help="Use only these events: their places, from 0, in all files of the data in order.",
    ),
]
CacheDirOption = Annotated[
    Path | None,
    typer.Option(
        "--cache-dir",
        metavar="DIR",
        callback=_set_cache_dir,
        help=f"Where compressed or chunked files are unpacked once; default: {CACHE_VARIABLE} or the"
        " user's cache folder.",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="path/to/key=value",
        help="Change one config value, e.g. training/epochs=50; repeatable.",
    ),
]
ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        metavar="REF",
        help="models:/gerbil-locator@champion, models:/gerbil-locator/3, or a bundle folder such as"
        " trained_models/gerbil-locator/00001.",
    ),
]
SavePathOption = Annotated[
    Path,
    typer.Option(
        metavar="DIR",
        help="Folder of exported bundles: DIR/<name>/<00001>/config.json and weights; --set name=NAME.",
    ),
]

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration_s(text: str) -> float:
    """Read 90, 90s, 30m, 8h or 2d as seconds.

    Raises:
        ConfigError: If it is none of these or not above 0.
    """
    number, unit = (text[:-1], text[-1]) if text[-1:] in _SECONDS else (text, "s")
    try:
        seconds = float(number) * _SECONDS[unit]
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ConfigError(
            f"duration {text!r} must be a number above 0 and s, m, h or d, such as 8h"
        )
    return seconds
