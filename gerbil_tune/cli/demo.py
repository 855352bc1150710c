"""``gerbil-tune demo``: the whole loop, by the same commands that a user types."""

import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from gerbil_tune.errors import ConfigError, LaunchError

_STUDY = "demo"
_DEFAULT_BUNDLE = "trained_models/default/00001"


def demo(
    folder: Annotated[Path, typer.Option(metavar="DIR", help="Where everything goes.")] = Path(
        "demo"
    ),
    trials: Annotated[int, typer.Option(min=4, metavar="N", help="Trials of the search.")] = 12,
) -> None:
    """Simulate an arena, search, train, register, predict, evaluate and report: minutes on two cores."""
    space = Path(__file__).parents[2] / "search_spaces" / "quick.yaml"
    if not space.is_file():
        raise ConfigError(f"{space} is missing; run the demo from a checkout of the project")
    started = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "data").mkdir(exist_ok=True)
    for arguments in _steps(space.resolve(), trials):
        if not _is_done(arguments, folder):
            _run(arguments, folder)
    minutes, seconds = divmod(round(time.monotonic() - started), 60)
    typer.echo(
        f"\nDone in {minutes} min {seconds} s. Try next, in the folder {folder}:\n"
        f"  mlflow ui --backend-store-uri sqlite:///mlflow.db       every trial, at http://127.0.0.1:5000\n"
        f"  xdg-open studies/{_STUDY}/report.html                     the report, in your browser\n"
        "  gerbil-tune predict --model models:/gerbil-locator@champion --data YOUR.h5 -o predictions.h5"
    )


def _steps(space: Path, trials: int) -> list[list[str]]:
    """The commands, in order."""
    search = f"search {shlex.quote(str(space))} --data data --name {_STUDY} --trials {trials}"
    champion = "models:/gerbil-locator@champion"
    lines = [
        "simulate data/train_set.h5 --preset e1 --events 2000 --seed 1",
        "simulate data/val_set.h5 --preset e1 --events 300 --seed 2",
        "simulate held_out.h5 --preset e1 --events 400 --seed 3",
        search,
        "train --data data --workers 2 --set name=default",
        f"predict --model {champion} --data held_out.h5 -o predictions.h5",
        f"evaluate --model 'default configuration={_DEFAULT_BUNDLE}' --model champion={champion}"
        f" --data held_out.h5 -o studies/{_STUDY}/evaluation.h5",
        f"report {_STUDY}",
    ]
    return [shlex.split(line) for line in lines]


def _is_done(arguments: list[str], folder: Path) -> bool:
    """Whether an earlier demo in this folder has done a step that need not be done again."""
    if arguments[0] == "simulate":
        return (folder / arguments[1]).exists()
    return arguments[0] == "train" and (folder / _DEFAULT_BUNDLE).exists()


def _run(arguments: list[str], folder: Path) -> None:
    typer.secho(f"\n$ gerbil-tune {shlex.join(arguments)}", bold=True)
    done = subprocess.run(
        [sys.executable, "-m", "gerbil_tune", *arguments], cwd=folder, check=False
    )
    if done.returncode:
        raise LaunchError(
            f"gerbil-tune {arguments[0]} ended with exit code {done.returncode} (see above); the same demo "
            "command again continues"
        )
