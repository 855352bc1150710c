"""The commands, and what a user sees when one fails."""

import os
import sys
from collections.abc import Callable

import typer

from gerbil_tune import __version__
from gerbil_tune.cli import (
    data,
    demo,
    evaluate,
    import_model,
    predict,
    promotion,
    registry,
    report,
    search,
    simulate,
    studies,
    submit,
    train,
)
from gerbil_tune.cli.working_folder import enter_working_folder
from gerbil_tune.errors import GerbilTuneError, StoppedError

EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="gerbil-tune",
    help="Find, train and use the network that localizes your animals' calls.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"gerbil-tune {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Print the version."
    ),
) -> None:
    pass


_MAKE_AND_CHECK, _SEARCH_AND_TRAIN, _USE, _CLUSTER = (
    "Data",
    "Search and train",
    "Use a model",
    "Clusters",
)


def _add(name: str, function: Callable[..., object], panel: str) -> None:
    app.command(name, rich_help_panel=panel)(function)


_add("demo", demo.demo, _SEARCH_AND_TRAIN)
_add("simulate", simulate.simulate, _MAKE_AND_CHECK)
app.add_typer(data.app, name="data", rich_help_panel=_MAKE_AND_CHECK)
_add("search", search.search, _SEARCH_AND_TRAIN)
_add("train", train.train, _SEARCH_AND_TRAIN)
_add("studies", studies.studies, _SEARCH_AND_TRAIN)
_add("report", report.report, _SEARCH_AND_TRAIN)
_add("predict", predict.predict, _USE)
_add("evaluate", evaluate.evaluate, _USE)
_add("import", import_model.import_model, _USE)
_add("register", registry.register, _USE)
_add("promote", promotion.promote, _USE)
_add("models", registry.models, _USE)
app.add_typer(submit.app, name="submit", rich_help_panel=_CLUSTER)


def run(command: Callable[[], object] = app) -> None:
    """Run a command; an expected error is one sentence on stderr and its exit code, never a traceback."""
    try:
        enter_working_folder(sys.argv[1:])
        command()
    except StoppedError as stopped:
        sys.stdout.flush()
        typer.echo(str(stopped), err=True)
        sys.exit(stopped.exit_code)
    except GerbilTuneError as error:
        sys.stdout.flush()
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
