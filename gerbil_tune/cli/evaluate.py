"""``gerbil-tune evaluate``: how good models are on events with known locations, beside baselines."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gerbil_tune.cli.options import CacheDirOption, EventsOption
from gerbil_tune.errors import ConfigError, DatasetError

if TYPE_CHECKING:
    from gerbil_tune.data.events import EventSet
    from gerbil_tune.evaluation.results import EvaluationResult, MethodResult
    from gerbil_tune.models.bundle import TrainedModel

_SOURCE_HEIGHT_MM = 40.0
_COHERENT_NAME = "SRP-PHAT, coherence-weighted"


def evaluate(
    models: Annotated[
        list[str],
        typer.Option(
            "--model",
            metavar="[NAME=]REF",
            help="models:/gerbil-locator@champion or a bundle folder; repeat it to compare several, each"
            " with a name for the table, such as default=trained_models/default/00001.",
        ),
    ],
    data: Annotated[
        list[Path],
        typer.Option("--data", metavar="D.h5", help="Events with locations; repeatable."),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="OUT.h5",
            help="Keep all predictions, and write the page OUT.html and its numbers OUT.json beside them.",
        ),
    ] = None,
    source_height_mm: Annotated[
        float, typer.Option(metavar="MM", help="Height of the sound source that SRP-PHAT assumes.")
    ] = _SOURCE_HEIGHT_MM,
    events: EventsOption = None,
    cache_dir: CacheDirOption = None,
) -> None:
    """Print a table: errors in mm, likelihood, calibration and coverage; chance and beamforming beside.

    Beamforming (SRP-PHAT, and a variant that trusts coherent frequencies) needs the microphone positions in
    the file (attribute microphones_mm); without them it is left out. Several models are compared in pairs,
    with bootstrap intervals that resample the groups of events where the file knows them.

    With -o a page shows all of it with intervals and figures: the error by session, call length,
    signal-to-noise ratio and place; the initial, best and final weights; the worst events. Where there is
    an MLflow store, the evaluation is logged in its experiment "evaluations".
    """
    from gerbil_tune.cli.evaluation_page import check_outputs, log, write_outputs
    from gerbil_tune.cli.scoring import scored_part
    from gerbil_tune.data.events import open_chosen
    from gerbil_tune.tracking.model_registry import resolve_model
    from gerbil_tune.tracking.store import default_tracking_uri

    chosen = open_chosen(data, events)
    if output is not None:
        check_outputs(output)
    uri = default_tracking_uri(Path.cwd())
    resolved = {label: resolve_model(reference, uri) for label, reference in _labelled(models)}
    bundles = {label: model.path for label, model in resolved.items()}
    result = evaluate_models(bundles, chosen, source_height_mm=source_height_mm)
    result, chosen, unscored = scored_part(result, chosen)
    print_table(result)
    if len(bundles) > 1:
        print_comparison(result, bundles, chosen)
    if output is None:
        typer.echo("\n-o OUT.h5 writes a page about it, OUT.html, with figures and intervals")
        return
    written = write_outputs(output, result, chosen, resolved, unscored)
    for path in written.files:
        typer.echo(f"wrote {path}")
    log(written, uri)


def _labelled(models: list[str]) -> "list[tuple[str, str]]":
    """Name for the table and reference of each model.

    Raises:
        ConfigError: If two have one name.
    """
    found: dict[str, str] = {}
    for text in models:
        name, equals, reference = text.partition("=")
        label = name if equals else text.removeprefix("models:/")
        if not label.strip() or label in found:
            what = "is given twice" if label in found else "has no name"
            raise ConfigError(
                f"--model {text}: a model {what}; give each a name of its own, such as --model "
                f"second={reference or text}"
            )
        found[label] = reference if equals else text
    return list(found.items())


def evaluate_models(
    bundles: Mapping[str, Path],
    events: "EventSet",
    *,
    source_height_mm: float = _SOURCE_HEIGHT_MM,
    with_baselines: bool = True,
) -> "EvaluationResult":
    """Score models, and the baselines that apply, on labelled events.

    Args:
        bundles: Bundle folder by the name that the table shows; all for the same recording site.
        events: With locations.
        source_height_mm: Assumed by SRP-PHAT.
        with_baselines: Whether to score chance and SRP-PHAT, too.

    Returns:
        All events: those that ``scored_part`` leaves out are NaN.

    Raises:
        DatasetError: If the events have no locations or wrong ones, or were recorded with another array.
    """
    from gerbil_tune.cli.scoring import predicted_by
    from gerbil_tune.data.checks.cheap import cheap_checks, raise_on_errors
    from gerbil_tune.evaluation.results import EvaluationResult
    from gerbil_tune.inference.inputs import check_recording
    from gerbil_tune.models.bundle import load_bundle

    if events.is_impulse_response:
        raise DatasetError(
            f"{events.files[0].path}: holds impulse responses, which are no calls that could be located; "
            "convolve them with sounds first, by gerbil-tune data shard"
        )
    loaded = {name: load_bundle(path) for name, path in bundles.items()}
    first = next(iter(loaded.values()))
    if events.locations_mm is None:
        raise DatasetError(
            f"{events.files[0].path} has no dataset 'locations', so nothing can be evaluated on it; "
            "gerbil-tune predict needs none"
        )
    labelled = events.select_keypoints(first.setup.keypoints)
    truth = labelled.locations_mm
    assert truth is not None
    findings = cheap_checks(labelled, first.setup)
    raise_on_errors(findings, labelled.files[0].path)
    for finding in findings:
        typer.echo(f"warning: {finding.message}", err=True)
    methods = _baselines(first, labelled, source_height_mm) if with_baselines else []
    for name, bundle in loaded.items():
        for note in check_recording(labelled, bundle.setup):
            typer.echo(f"warning: {note}", err=True)
        methods.append(predicted_by(name, bundle, labelled))
    return EvaluationResult(
        data_path=", ".join(str(file.path) for file in labelled.files),
        arena_mm=first.setup.arena_mm,
        keypoints=first.setup.keypoints,
        locations_mm_NKD=truth,
        methods=tuple(methods),
    )


def _baselines(
    bundle: "TrainedModel", labelled: "EventSet", source_height_mm: float
) -> "list[MethodResult]":
    """Chance, and beamforming where the positions of the microphones are known."""
    import numpy as np

    from gerbil_tune.evaluation.baselines import (
        chance_predictions,
        repeat_for_keypoints,
        srp_phat,
    )
    from gerbil_tune.evaluation.results import MethodResult

    methods, setup = [], bundle.setup
    mean_location = bundle.provenance.get("mean_location_mm")
    if mean_location is not None:
        chance = chance_predictions(np.asarray(mean_location)[None], len(labelled))
        methods.append(MethodResult("chance (training mean)", chance))
    if setup.microphones_mm is not None:
        height_mm = source_height_mm if setup.num_axes == 3 else None
        for name, coherence_weighted in (("SRP-PHAT", False), (_COHERENT_NAME, True)):
            steered = srp_phat(
                labelled, setup, source_height_mm, coherence_weighted=coherence_weighted
            )
            positions = repeat_for_keypoints(steered, len(setup.keypoints), height_mm)
            methods.append(MethodResult(name, positions))
    return methods


def print_table(result: "EvaluationResult") -> None:
    """Print the table of an evaluation."""
    from gerbil_tune.evaluation.results import render_table

    typer.echo(f"\n{len(result.locations_mm_NKD):,} events of {result.data_path}")
    typer.echo(render_table(result.rows()))


def print_comparison(
    result: "EvaluationResult", models: Collection[str], events: "EventSet"
) -> None:
    """Say whether the model with the lowest median error is better than the others beyond chance."""
    from gerbil_tune.evaluation.paired import against_others

    rows = [row for row in result.rows() if row.name in models]
    best = min(rows, key=lambda row: row.median_mm).name
    typer.echo("\npaired bootstrap of the same events, lower is better:")
    for sentence in against_others(result, best, models, events.groups):
        typer.echo(sentence)
