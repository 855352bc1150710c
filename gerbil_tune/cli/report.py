"""``gerbil-tune report``: the page about a study."""

from pathlib import Path
from typing import Annotated

import typer

from gerbil_tune.errors import ConfigError


def report(
    study: Annotated[
        Path, typer.Argument(metavar="STUDY", help="A study's folder, or its name under studies/.")
    ],
) -> None:
    """Write report.html and figures/ into the study's folder: what was tried, what mattered, how good."""
    folder = find_study(study)
    from gerbil_tune.search.book import stored_study
    from gerbil_tune.search.report import write_report

    page = write_report(folder, stored_study(folder))
    typer.echo(f"wrote {page}")


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
