"""The files that ``gerbil-tune evaluate -o`` leaves, and the run of MLflow that keeps them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from gerbil_tune.errors import ConfigError, DatasetError, GerbilTuneError, ModelNotFoundError

if TYPE_CHECKING:
    from gerbil_tune.data.events import EventSet
    from gerbil_tune.evaluation.results import EvaluationResult, MethodResult
    from gerbil_tune.evaluation.summary import Evaluation, ModelFacts, OtherWeights, Summary
    from gerbil_tune.models.bundle import TrainedModel
    from gerbil_tune.tracking.evaluations import EvaluationRecord
    from gerbil_tune.tracking.model_registry import ResolvedModel

_H5_SUFFIXES = (".h5", ".hdf5")
_OTHER_STAGES = ("init", "final")


@dataclass(frozen=True, slots=True)
class Written:
    """An evaluation on the disk.

    Attributes:
        evaluation: What it is of.
        summary: Its numbers.
        files: Predictions, page and numbers.
    """

    evaluation: "Evaluation"
    summary: "Summary"
    files: tuple[Path, ...]


def beside(output: Path, suffix: str) -> Path:
    """The file of an ending beside the predictions: ``out.h5`` or ``out`` has ``out.html``."""
    stem = output.stem if output.suffix in _H5_SUFFIXES else output.name
    return output.with_name(f"{stem}{suffix}")


def check_outputs(output: Path) -> None:
    """Refuse to replace anything but an earlier evaluation: it may be somebody's recordings.

    Raises:
        ConfigError: Naming the file.
    """
    from gerbil_tune.evaluation.page import is_page
    from gerbil_tune.evaluation.results import EvaluationResult
    from gerbil_tune.evaluation.summary_json import is_summary

    if output.suffix in (".html", ".json"):
        raise ConfigError(
            f"-o {output} names the file of all predictions, beside which the page gets the ending .html and "
            f"its numbers .json; end it in .h5: -o {output.with_suffix('.h5')}"
        )
    if output.is_dir():
        raise ConfigError(
            f"-o {output} is a folder; name the file of all predictions, such as {output / 'evaluation.h5'}"
        )
    for path, is_ours, what in (
        (output, EvaluationResult.is_one, "evaluation"),
        (beside(output, ".html"), is_page, "page of an evaluation"),
        (beside(output, ".json"), is_summary, "numbers of an evaluation"),
    ):
        if path.exists() and not (path.is_file() and is_ours(path)):
            raise ConfigError(
                f"-o {output}: {path} is there already and holds no {what}, so it is not replaced; choose "
                "another name"
            )
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"-o {output}: the folder {output.parent} cannot be made ({error.strerror}); choose another name"
        ) from error


def write_outputs(
    output: Path,
    result: "EvaluationResult",
    events: "EventSet",
    models: "Mapping[str, ResolvedModel]",
    unscored: tuple[str, ...] = (),
) -> Written:
    """Write predictions, page and numbers of an evaluation.

    Args:
        output: The file of the predictions.
        result: All scored.
        events: Of the result, in order.
        models: Those methods that are models, by name.
        unscored: See ``Evaluation``.

    Raises:
        ConfigError: If a file cannot be written.
    """
    import json

    from gerbil_tune.evaluation.page import page
    from gerbil_tune.evaluation.summary import summarize
    from gerbil_tune.evaluation.summary_json import summary_json
    from gerbil_tune.pages.writing import write_text

    page_file, numbers_file = beside(output, ".html"), beside(output, ".json")
    try:
        result.save(output)
        evaluation = _gather(result, events, models, unscored)
        summary = summarize(evaluation)
        numbers = json.dumps(summary_json(evaluation, summary), indent=1, allow_nan=False)
        write_text(page_file, page(evaluation, summary))
        write_text(numbers_file, f"{numbers}\n")
    except OSError as error:
        raise ConfigError(
            f"-o {output} cannot be written ({error.strerror or error}); make room or choose another place"
        ) from error
    return Written(evaluation, summary, (output, page_file, numbers_file))


def _gather(
    result: "EvaluationResult",
    events: "EventSet",
    models: "Mapping[str, ResolvedModel]",
    unscored: tuple[str, ...],
) -> "Evaluation":
    """Load the models once more, for their facts and for the other weights of their training."""
    from gerbil_tune.evaluation.summary import Evaluation
    from gerbil_tune.models.bundle import load_bundle

    loaded = {name: load_bundle(model.path) for name, model in models.items()}
    setup = next(iter(loaded.values())).setup
    labelled = events.select_keypoints(setup.keypoints)
    best = {method.name: method for method in result.methods}
    others = [
        other
        for name, bundle in loaded.items()
        for other in _other_weights(name, bundle, best[name], labelled)
    ]
    return Evaluation(
        result,
        labelled,
        setup,
        tuple(_facts(name, models[name], bundle) for name, bundle in loaded.items()),
        tuple(others),
        unscored,
    )


def _facts(name: str, model: "ResolvedModel", bundle: "TrainedModel") -> "ModelFacts":
    from gerbil_tune.evaluation.summary import ModelFacts

    data_fingerprint = bundle.provenance.get("data_fingerprint")
    return ModelFacts(
        name=name,
        uri=model.uri,
        version=model.version,
        kind=bundle.kind,
        num_parameters=bundle.num_parameters,
        fingerprint=bundle.fingerprint,
        data_fingerprint=None if data_fingerprint is None else str(data_fingerprint),
    )


def _other_weights(
    name: str, bundle: "TrainedModel", best: "MethodResult", labelled: "EventSet"
) -> "Iterator[OtherWeights]":
    """What a model says with its initial and with its final weights, where it has them."""
    from gerbil_tune.cli.scoring import predicted_by
    from gerbil_tune.evaluation.summary import OtherWeights
    from gerbil_tune.models.bundle import load_bundle

    for stage in _OTHER_STAGES:
        try:
            other = load_bundle(bundle.path, stage)
        except (ModelNotFoundError, DatasetError) as error:
            yield OtherWeights(name, stage, None, str(error))
            continue
        if other.fingerprint == bundle.fingerprint:
            yield OtherWeights(name, stage, best)
            continue
        method = predicted_by(name, other, labelled)
        if method.is_scored_N.all():
            yield OtherWeights(name, stage, method)
        else:
            yield OtherWeights(name, stage, None, "they give no number for some events")


def log(written: Written, tracking_uri: str) -> None:
    """Keep an evaluation in the tracking store where there is one; without it only a line is lost."""
    from gerbil_tune.tracking.evaluations import EXPERIMENT, has_store, log_evaluation
    from gerbil_tune.urls import without_password

    if not has_store(tracking_uri):
        typer.echo(
            "not logged to MLflow, for there is no mlflow.db here and MLFLOW_TRACKING_URI is not set"
        )
        return
    try:
        run_id = log_evaluation(_record(written), tracking_uri)
    except GerbilTuneError as error:
        typer.echo(f"warning: the evaluation is not logged to MLflow: {error}", err=True)
        return
    where = without_password(tracking_uri)
    typer.echo(f"logged to MLflow as run {run_id} of the experiment {EXPERIMENT} in {where}")


def _record(written: Written) -> "EvaluationRecord":
    """What the store keeps: see ``EvaluationRecord``."""
    from gerbil_tune import __version__
    from gerbil_tune.tracking.evaluations import EvaluationRecord

    evaluation, summary = written.evaluation, written.summary
    events = evaluation.events
    parameters = {
        "data": evaluation.result.data_path,
        "data_fingerprint": events.fingerprint(),
        "events": str(len(events)),
        "events_not_scored": str(len(evaluation.unscored)),
        "output": str(written.files[0]),
    }
    for model in evaluation.models:
        parameters[f"{model.name}/model"] = model.uri
        parameters[f"{model.name}/version"] = model.version or "none"
        parameters[f"{model.name}/fingerprint"] = model.fingerprint
    metrics = {
        name: {figure: found.value for figure, found in scores.items()} | summary.further[name]
        for name, scores in summary.scores.items()
    }
    tags = {"gerbil_tune.version": __version__, "gerbil_tune.model": evaluation.models[-1].uri}
    return EvaluationRecord(
        name=f"{evaluation.subject} on {events.files[0].path.name}",
        parameters=parameters,
        metrics=metrics,
        tags=tags,
        files=written.files[1:],
    )
