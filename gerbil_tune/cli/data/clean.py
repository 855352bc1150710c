"""``gerbil-tune data clean``: leave out the events that would spoil training or evaluation."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gerbil_tune.cli.options import CacheDirOption, EventsOption
from gerbil_tune.config.cleaning import CleaningConfig, CleaningFile, load_cleaning
from gerbil_tune.errors import ConfigError, DatasetError

if TYPE_CHECKING:
    from gerbil_tune.data.cleaning.cleaning import CleaningResult
    from gerbil_tune.data.cleaning.filters import FilterOutcome
    from gerbil_tune.data.events import EventSet
    from gerbil_tune.geometry import RecordingSetup

MANY = 0.2
"""Part of the events from which on a filter more likely judges the data set than its outliers."""
PAGE = "spot_check.html"


def clean(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="HDF5 files or folders.")],
    out: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help=f"Where kept.npy, cleaning.json, measures.csv and {PAGE} go; replaced if there.",
        ),
    ] = Path("cleaned"),
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="CLEAN.yaml", help="Filters (YAML, JSON, JSON5); default: all, with care."
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="path/to/key=value",
            help="Change one value, e.g. snr/min_db=6, skeleton=null (off) or"
            " data/sample_rate_hz=125000; repeatable.",
        ),
    ] = None,
    events: EventsOption = None,
    write_hdf5: Annotated[
        Path | None,
        typer.Option(metavar="FILE.h5", help="Also write a file of the events that stay."),
    ] = None,
    examples: Annotated[
        tuple[int, int],
        typer.Option(
            metavar="KEPT REMOVED", help="Random events at most that the spot-check page shows."
        ),
    ] = (100, 200),
    page: Annotated[bool, typer.Option(help="Whether to draw the spot-check page.")] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be removed.")
    ] = False,
    cache_dir: CacheDirOption = None,
) -> None:
    """Find bad events; write the places of the good ones and a page of examples to judge the filters by.

    Filters: not_finite, duration, silence, dead_microphone, clipping, snr, outside_arena, keypoint_distance,
    skeleton, duplicates. The data stay as they are.
    """
    loaded = load_cleaning(config, overrides or [])
    _check_outputs(out, write_hdf5, examples)
    from gerbil_tune.data.cleaning.cleaning import clean_events
    from gerbil_tune.data.events import open_events
    from gerbil_tune.data.files.index_files import read_indices
    from gerbil_tune.data.progress import progress_bar

    whole = open_events(paths)
    chosen = whole if events is None else whole.subset(read_indices(events, len(whole)))
    judged, setup = _choose_keypoints(chosen, loaded)
    with progress_bar(len(judged), doing="cleaning") as advance:
        result = clean_events(judged, setup, loaded, advance=advance)
    for line in describe(result, loaded):
        typer.echo(line)
    for warning in warn(result):
        typer.echo(f"warning: {warning}", err=True)
    refuse_nothing_left(result, whole.files[0].path)
    if dry_run:
        typer.echo("nothing was written (--dry-run)")
        return
    index: Path | None = _write(
        out, judged, setup, result, loaded, whole.fingerprint(), examples, page
    )
    data = paths
    if write_hdf5 is not None:
        _write_hdf5(write_hdf5, chosen, result)
        data, index = [write_hdf5], None
    words = [f"--data {shlex.quote(str(path))}" for path in data]
    words += [] if index is None else [f"--events {shlex.quote(str(index))}"]
    typer.echo(f"next: gerbil-tune search SPACE.yaml {' '.join(words)}")


def _check_outputs(out: Path, write_hdf5: Path | None, examples: tuple[int, int]) -> None:
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file; name a folder")
    if write_hdf5 is not None and not write_hdf5.parent.is_dir():
        raise ConfigError(f"--write-hdf5 {write_hdf5}: folder {write_hdf5.parent} does not exist")
    if write_hdf5 is not None and write_hdf5.exists():
        raise ConfigError(f"--write-hdf5 {write_hdf5} exists; choose another name or remove it")
    if min(examples) < 0:
        raise ConfigError(
            f"--examples must be two numbers of events, 0 or more, but is {examples[0]} {examples[1]}"
        )


def _choose_keypoints(
    events: "EventSet", loaded: CleaningFile
) -> "tuple[EventSet, RecordingSetup]":
    from gerbil_tune.data.events import recording_setup

    if loaded.data.keypoints is not None:
        events = events.select_keypoints(loaded.data.keypoints)
    return events, recording_setup(events, loaded.data)


def describe(result: "CleaningResult", config: CleaningConfig) -> Iterator[str]:
    """The table of filters, notes and the verdict, line by line."""
    alone = result.counts_alone
    used = [outcome for outcome in result.outcomes if outcome.skipped is None]
    width = max((len(outcome.name) for outcome in used), default=6)
    yield (
        f"{'filter':{width}}  {'removed':>8}  {'no other':>8}  {'stays if':>9}  {'median':>8}  "
        f"{'99% within':>10}  of"
    )
    for outcome in used:
        removed = f"{result.counts[outcome.name]:>8,}  {alone[outcome.name]:>8,}"
        yield f"{outcome.name:{width}}  {removed}  {_measured(outcome)}".rstrip()
    off = [name for name in CleaningConfig.model_fields if getattr(config, name) is None]
    if off:
        yield f"off: {', '.join(off)}"
    for outcome in result.outcomes:
        if outcome.skipped is not None:
            yield f"{outcome.name}: not applied, for {outcome.skipped}"
        if outcome.note is not None:
            yield f"{outcome.name}: {outcome.note}"
    total, kept = len(result.rows), int(result.is_kept_N.sum())
    yield f"kept {kept:,} of {total:,} events; removed {total - kept:,} ({1 - kept / total:.1%})"


def _measured(outcome: "FilterOutcome") -> str:
    from gerbil_tune.data.cleaning.results import measured_quantiles

    if outcome.limit is None:
        return ""
    limit = f"{'>=' if outcome.is_lowest else '<='} {outcome.limit:.3g}"
    quantiles = measured_quantiles(outcome)
    median, bound = ("-", "-") if quantiles is None else (f"{value:.3g}" for value in quantiles)
    return f"{limit:>9}  {median:>8}  {bound:>10}  {outcome.unit}"


def warn(result: "CleaningResult") -> Iterator[str]:
    """A sentence about each filter that removes more than single outliers."""
    total = len(result.rows)
    for name, count in result.counts.items():
        if count > MANY * total:
            yield (
                f"{name} removes {count / total:.0%} of the events; look at the spot-check page, and set "
                f"another limit or --set {name}=null if they are good"
            )


def refuse_nothing_left(result: "CleaningResult", path: Path) -> None:
    """Refuse a result without events.

    Raises:
        DatasetError: Naming the filters that removed most.
    """
    if result.is_kept_N.any():
        return
    counts = sorted(result.counts.items(), key=lambda item: -item[1])
    most = ", ".join(f"{name} {count:,}" for name, count in counts if count)
    raise DatasetError(
        f"{path}: the filters remove all {len(result.rows):,} events ({most}), so nothing was written; "
        f"set other limits, or switch filters off: --set {counts[0][0]}=null"
    )


def _write(
    out: Path,
    events: "EventSet",
    setup: "RecordingSetup",
    result: "CleaningResult",
    config: CleaningFile,
    fingerprint: str,
    examples: tuple[int, int],
    page: bool,
) -> Path:
    from gerbil_tune.data.cleaning.results import write_cleaning
    from gerbil_tune.data.progress import progress_bar

    index = write_cleaning(out, events, setup, result, config, fingerprint=fingerprint)
    # A page of an earlier run would show what this one did not do.
    (out / PAGE).unlink(missing_ok=True)
    typer.echo(f"wrote {index}, and why in {out / 'cleaning.json'} and {out / 'measures.csv'}")
    if not page:
        return index
    from gerbil_tune.data.pictures.spot_check import write_spot_check

    reasons = {i: result.explain(i) for i in result.reasons}
    num_kept = min(examples[0], len(result.rows) - len(reasons))
    num_removed = min(examples[1], len(reasons))
    with progress_bar(num_kept + num_removed, doing="drawing") as advance:
        written = write_spot_check(
            out / PAGE,
            events,
            setup,
            reasons,
            result.counts,
            num_kept=num_kept,
            num_removed=num_removed,
            advance=advance,
        )
    typer.echo(f"wrote {written}: look whether what was removed is bad and what was kept is good")
    return index


def _write_hdf5(path: Path, events: "EventSet", result: "CleaningResult") -> None:
    """Write what stays, with all keypoints of the data."""
    import numpy as np

    from gerbil_tune.data.files.writer import write_events
    from gerbil_tune.data.progress import progress_bar

    kept = events.subset(np.flatnonzero(result.is_kept_N))
    if len({file.path.stem for file in events.files} & {"val_set", "test_set"}) > 0:
        typer.echo(
            f"warning: {path} does not know which file an event came from; to keep the split of these "
            "files, use the index instead",
            err=True,
        )
    with progress_bar(len(kept), doing="writing") as advance:
        write_events(path, kept, advance=advance)
    typer.echo(f"wrote {path}: {len(kept):,} events")
