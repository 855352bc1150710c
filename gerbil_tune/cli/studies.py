"""``gerbil-tune studies``: a table of all studies."""

import json
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from gerbil_tune.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from gerbil_tune.search.studies import StudySummary

_STATE_STYLES = {"running": "cyan", "complete": "green", "failed": "red", "unreadable": "red"}


def studies(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of studies, or one study's folder.")
    ] = Path("studies"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, a list of objects.")] = False,
) -> None:
    """List all studies: how they stand, their trials, best value, hours of searching and champion.

    Open trials run, wait for their turn or were interrupted. --json has more: time of training, epochs.
    """
    if not folder.is_dir():
        raise ConfigError(
            f"{folder} is no folder; run gerbil-tune studies where the searches were started, or name the "
            "folder of the studies"
        )
    from gerbil_tune.search.studies import summarize_studies

    summaries = summarize_studies(folder)
    if as_json:
        typer.echo(json.dumps([_to_json(summary) for summary in summaries], indent=2))
        return
    if not summaries:
        typer.echo(f"no study in {folder}; gerbil-tune search makes one")
        return
    from rich.console import Console

    Console().print(_table(summaries))
    for summary in summaries:
        if summary.problem:
            typer.echo(f"{summary.name} cannot be read: {summary.problem}", err=True)


def _table(summaries: "list[StudySummary]") -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("study", overflow="fold")
    table.add_column("state", no_wrap=True)
    for heading in ("done", "pruned", "failed", "open", "best", "spent"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("champion", overflow="fold")
    table.add_column("changed", no_wrap=True)
    for summary in summaries:
        style = _STATE_STYLES.get(summary.state, "yellow")
        changed = summary.last_change
        table.add_row(
            escape(summary.name),
            f"[{style}]{summary.state}[/]",
            str(summary.count("complete")),
            str(summary.count("pruned")),
            str(summary.count("failed")),
            str(summary.unfinished),
            "" if summary.best is None else f"{summary.best:.4g}",
            f"{summary.searched_s / 3600:.1f} h",
            escape(_champion(summary)),
            "" if changed is None else f"{_largest_unit(datetime.now(UTC) - changed)} ago",
        )
    return table


def _champion(summary: "StudySummary") -> str:
    if summary.champion is None:
        return ""
    return summary.champion_uri.removeprefix("models:/") or f"trial {summary.champion}"


def _largest_unit(time: timedelta) -> str:
    for unit, seconds in (("d", 86400), ("h", 3600), ("min", 60)):
        if time.total_seconds() >= seconds:
            return f"{time.total_seconds() // seconds:.0f} {unit}"
    return f"{max(0.0, time.total_seconds()):.0f} s"


def _to_json(summary: "StudySummary") -> dict[str, Any]:
    changed = summary.last_change
    return asdict(summary) | {
        "folder": str(summary.folder),
        "last_change": None if changed is None else changed.isoformat(timespec="seconds"),
    }
