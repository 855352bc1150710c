"""``gerbil-tune report``: the page about a study."""

import time
from pathlib import Path
from typing import Annotated

import typer

from gerbil_tune.errors import ConfigError


def report(
    study: Annotated[
        Path, typer.Argument(metavar="STUDY", help="A study's folder, or its name under studies/.")
    ],
    watch: Annotated[
        float | None,
        typer.Option(
            min=1.0,
            metavar="SECONDS",
            help="Write it anew so often while the search runs; the open page follows.",
        ),
    ] = None,
) -> None:
    """Write report.html and figures/ into the study's folder: what was tried, what mattered, how good.

    It may run while the search does.
    """
    folder = find_study(study)
    from gerbil_tune.search.report import write_report
    from gerbil_tune.search.storage import is_running, stored_study

    stored = stored_study(folder)
    page = write_report(folder, stored, reload_s=watch)
    typer.echo(f"wrote {page}")
    if watch is None:
        return
    try:
        while is_running(folder):
            time.sleep(watch)
            write_report(folder, stored, reload_s=watch)
        typer.echo("no search runs on this study, so the page stays as it is")
    except KeyboardInterrupt:
        typer.echo("stopped watching")
    # The last page does not wait for another.
    write_report(folder, stored)


def find_study(study: Path) -> Path:
    """Return a study's folder.

    Raises:
        ConfigError: If there is none.
    """
    for folder in (study, Path("studies") / study):
        if (folder / "study.yaml").is_file():
            return folder.resolve()
    known = ", ".join(sorted(p.parent.name for p in Path("studies").glob("*/study.yaml"))) or "none"
    raise ConfigError(f"{study} is no study folder (it has no study.yaml); studies here: {known}")
