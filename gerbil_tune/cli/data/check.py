"""``gerbil-tune data check``: what is in data files, and what is wrong with it."""

import json
import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gerbil_tune.cli.options import CacheDirOption, EventsOption, SetOption
from gerbil_tune.config.load import load_experiment
from gerbil_tune.errors import DatasetError

if TYPE_CHECKING:
    from gerbil_tune.data.checks.findings import Finding
    from gerbil_tune.data.checks.inspection import Inspection
    from gerbil_tune.data.checks.summary import FileSummary, Lengths, SetSummary

_MOST_FILES = 10
"""Files that are listed one by one."""


def check(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH...",
            help="HDF5 files of events, or folders of them; several are looked at as one data set.",
        ),
    ],
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="Read the audio of 64 events only; the rest is checked whole."
        ),
    ] = False,
    split: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Check a split of the data too: DIR/train_set.npy, val_set.npy and perhaps test_set.npy."
            " Default: those in the folder of the data.",
        ),
    ] = None,
    events: EventsOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print everything as JSON, and nothing else.")
    ] = False,
    overrides: SetOption = None,
    cache_dir: CacheDirOption = None,
) -> None:
    """Say what is in the files and what is wrong with them; exit code 2 when something must be mended.

    All audio is read once. Errors make training or prediction wrong; warnings may be meant so.
    """
    config = load_experiment(None, overrides or [])
    from gerbil_tune.data.checks.inspection import inspect

    found = inspect(
        paths,
        config.data,
        split_folder=split,
        events_path=events,
        full=not quick,
        show_progress=not as_json,
    )
    values = "".join(f" --set {shlex.quote(value)}" for value in overrides or [])
    chosen = "" if events is None else f" --events {shlex.quote(str(events))}"
    parts = "" if split is None else f" --split {shlex.quote(str(split))}"
    verdict = _decide(found, paths, chosen + values, parts)
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=1, allow_nan=False))
    elif found.files or len(found.findings) > 1:
        for line in (*_describe_files(found.files), *_describe_sets(found.sets)):
            typer.echo(line)
        for finding in found.findings:
            typer.echo(_describe_finding(finding))
    if found.num_errors:
        raise DatasetError(verdict)
    if not as_json:
        typer.echo(verdict)


def _describe_files(files: Sequence["FileSummary"]) -> Iterator[str]:
    """Facts, one a line; those in which files differ, all of them."""
    if not files:
        return
    names = [file.path for file in files[:_MOST_FILES]]
    more = len(files) - len(names)
    yield from _row("files" if len(files) > 1 else "file", names[0])
    for name in names[1:]:
        yield from _row("", name)
    if more:
        yield from _row("", f"and {more} more")
    size = sum(file.size_bytes for file in files)
    yield from _row("size", _size(size))
    yield from _row("layout", _differing(file.layout for file in files))
    yield from _row("storage", _differing(f"{file.dtype}, {file.storage}" for file in files))
    yield from _row("microphones", _differing(str(file.microphones) for file in files))
    rates = (file.lengths.sample_rate_hz for file in files)
    yield from _row("sample rate", _differing(_rate(rate) for rate in rates))
    yield from _row("arena", _differing(_arena(file.arena_mm) for file in files))
    yield from _row("keypoints", _differing(", ".join(file.keypoints) or "-" for file in files))
    yield from _row("locations", _differing(_locations(file) for file in files))
    if any(file.animals for file in files):
        yield from _row("tracks of", _differing(", ".join(file.animals) or "-" for file in files))
    if any(file.groups is not None for file in files):
        yield from _row("groups", "stated by the file" if len(files) == 1 else "stated by files")


def _describe_sets(sets: Sequence["SetSummary"]) -> Iterator[str]:
    for one in sets:
        name = "events" if one.name == "all" else one.name
        groups = "" if one.groups is None else f", {one.groups:,} groups"
        yield from _row(name, _lengths(one.lengths) + groups)
    if sets:
        yield ""


def _describe_finding(finding: "Finding") -> str:
    line = f"{finding.level}: {finding.message}"
    if len(finding.examples) < 2:
        return line
    dots = ", ..." if finding.count > len(finding.examples) else ""
    return f"{line}\n    {', '.join(finding.examples)}{dots}"


def _row(name: str, value: str) -> Iterator[str]:
    yield f"{name:<13} {value}"


def _differing(values: Iterable[str]) -> str:
    return " | ".join(dict.fromkeys(values))


def _size(num_bytes: int) -> str:
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if num_bytes >= limit:
            return f"{num_bytes / limit:,.1f} {unit}"
    return f"{num_bytes} bytes"


def _rate(rate_hz: float | None) -> str:
    return "not stated" if rate_hz is None else f"{rate_hz:g} Hz"


def _arena(arena_mm: tuple[float, ...] | None) -> str:
    return (
        "not stated" if arena_mm is None else " x ".join(f"{width:g}" for width in arena_mm) + " mm"
    )


def _locations(file: "FileSummary") -> str:
    if file.axes is None:
        return "none: good for prediction, not for training"
    return f"{file.axes} axes"


def _lengths(lengths: "Lengths") -> str:
    if lengths.range_ms is None or lengths.seconds is None:
        spread = (
            f"{lengths.shortest:,} to {lengths.longest:,} samples, median {lengths.median:,.0f}"
        )
        return f"{lengths.events:,}: {spread}"
    shortest, median, longest = lengths.range_ms
    spread = f"{shortest:.1f} to {longest:.1f} ms, median {median:.1f} ms"
    return f"{lengths.events:,} in {lengths.seconds:,.1f} s: {spread}"


def _decide(found: "Inspection", paths: Sequence[Path], options: str, split: str) -> str:
    """One line: usable or not, and what to do next.

    Args:
        found: What was found.
        paths: What was looked at.
        options: Options of this command that any next one needs too.
        split: The option of a split, which checking and training need too.
    """
    words = [shlex.quote(str(path)) for path in paths]
    names, data = " ".join(words) + options, " --data ".join(words) + options
    if not found.files and len(found.findings) == 1:
        return found.findings[0].message
    warnings = _count(found.num_warnings, "warning")
    errors = _count(found.num_errors, "error")
    if found.num_errors:
        next_step = (
            f"gerbil-tune data clean {names}"
            if found.wants_cleaning
            else f"mend what the errors name, then gerbil-tune data check {names}{split}"
        )
        return f"not usable as it is: {errors}, {warnings}; next: {next_step}"
    if found.wants_cleaning:
        next_step = f"gerbil-tune data clean {names}"
    elif not found.is_full:
        next_step = f"gerbil-tune data check {names}{split}, which reads all audio"
    elif found.are_impulse_responses and "data/source_folder=" not in options:
        next_step = (
            f"gerbil-tune search SPACE.yaml --data {data}{split} --set data/source_folder=WAVS, a folder of "
            "sounds to convolve these impulse responses with"
        )
    elif found.is_labelled:
        next_step = f"gerbil-tune search SPACE.yaml --data {data}{split}"
    else:
        next_step = f"gerbil-tune predict --model REF --data {data} -o OUT"
    verdict = "no problem found" if not found.findings else f"usable, with {warnings}"
    return f"{verdict}; next: {next_step}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
