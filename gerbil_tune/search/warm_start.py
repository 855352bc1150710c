"""Known trials for a new study: those of earlier studies, or of an MLflow experiment."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from gerbil_tune.config.load import Scalar, compose, flatten
from gerbil_tune.config.parameters import (
    CategoricalParameter,
    FloatParameter,
    IntParameter,
    Parameter,
    in_force,
)
from gerbil_tune.config.space import SpaceFile
from gerbil_tune.errors import ConfigError
from gerbil_tune.search.space import named_distributions, named_point, values_by_path
from gerbil_tune.search.storage import STUDY_FILE, stored_study

STUDIES = Path("studies")
_MLFLOW = "mlflow:"
_ATTRIBUTE = "warm_start"
_STUDY_ATTRIBUTE = "warm_start_study"


@dataclass(frozen=True)
class EarlierTrial:
    """A complete trial of another study.

    Attributes:
        values: Parameters by config path; from MLflow as text.
        results: Value by name of each objective that is known.
        attributes: User attributes worth keeping.
    """

    values: Mapping[str, Scalar]
    results: Mapping[str, float]
    attributes: Mapping[str, Any] = field(default_factory=dict)


def add_earlier_trials(
    study: optuna.Study,
    space: SpaceFile,
    references: Sequence[str],
    tracking_uri: str | None = None,
) -> list[str]:
    """Add what is known already to a study; what it has been given before is not added again.

    A trial is taken if it was completed, all its objectives are known, and the new space could have proposed
    it. What the space does not search (``base``) is not compared.

    Args:
        study: The new study.
        space: What it searches.
        references: Folders of studies, their names under ``studies/``, or ``mlflow:EXPERIMENT``.
        tracking_uri: Of the MLflow store; None: the default one.

    Returns:
        A sentence for each reference.

    Raises:
        ConfigError: If a reference leads nowhere.
    """
    return [_add(study, space, reference, tracking_uri) for reference in references]


def _add(study: optuna.Study, space: SpaceFile, reference: str, tracking_uri: str | None) -> str:
    source: dict[str, Any] = {_ATTRIBUTE: reference}
    if reference.startswith(_MLFLOW):
        earlier = list(_of_experiment(reference, space, tracking_uri))
    else:
        opened = _open_earlier(reference, space)
        earlier = list(_of_study(opened))
        source |= {_STUDY_ATTRIBUTE: opened.user_attrs.get("study_id")}
    known = {one for trial in study.get_trials(deepcopy=False) for one in _identities(trial)}
    taken = 0
    for trial in earlier:
        created = _translated(trial, space, source)
        if created is None:
            continue
        taken += 1
        if known.isdisjoint(_identities(created)):
            known |= _identities(created)
            study.add_trial(created)
    return (
        f"warm start: {taken} of {len(earlier)} complete trials of {reference} lie within the space"
        " and know all objectives"
    )


def _identities(trial: FrozenTrial) -> set[str]:
    """A trial by its content and each name that its study goes by: an id, or how it was called once."""
    results = trial.values if trial.state is TrialState.COMPLETE else None
    content = (sorted(trial.params.items()), results)
    names = (trial.user_attrs.get(key) for key in (_STUDY_ATTRIBUTE, _ATTRIBUTE))
    return {repr((name, *content)) for name in names if name is not None}


def _translated(
    trial: EarlierTrial, space: SpaceFile, source: Mapping[str, Any]
) -> FrozenTrial | None:
    """The trial as the new study would hold it, or None where it could not have proposed it."""
    values = _within(space, trial.values)
    results = [trial.results.get(name, math.nan) for name in space.study.objectives]
    if values is None or not all(map(math.isfinite, results)):
        return None
    config = compose(space.base, values, f"{source[_ATTRIBUTE]}: a trial")
    return optuna.trial.create_trial(
        state=TrialState.COMPLETE,
        values=results,
        params=named_point(values, space.parameters),
        distributions=named_distributions(values, space.parameters),
        user_attrs={**trial.attributes, **source, "config": flatten(config)},
    )


def _within(space: SpaceFile, recorded: Mapping[str, Scalar]) -> dict[str, Scalar] | None:
    """Values by path of the parameters in force; None where one is missing or not allowed."""
    values: dict[str, Scalar] = {}
    # A branch stands before the parameters in it, and ``in_force`` looks when it gets there.
    for path, parameter, _ in in_force(space.parameters, values):
        if path not in recorded:
            return None
        found = _allowed(parameter, recorded[path])
        if not found:
            return None
        values[path] = found[0]
    return values


def _allowed(parameter: Parameter, recorded: Scalar) -> list[Scalar]:
    """A recorded value as the parameter would propose it; empty where it would not."""
    if isinstance(parameter, FloatParameter | IntParameter):
        number = _number(recorded)
        if isinstance(parameter, IntParameter) and number.is_integer():
            number = int(number)
        return [number] if parameter.allows(number) else []
    choices: Sequence[Scalar] = (
        parameter.choices
        if isinstance(parameter, CategoricalParameter)
        else tuple(parameter.branches)
    )
    return [choice for choice in choices if _as_text(choice) == _as_text(recorded)][:1]


def _number(recorded: Scalar) -> float:
    """A number or its text; NaN, which nothing allows, for anything else."""
    if recorded is None or isinstance(recorded, bool):
        return math.nan
    try:
        return float(recorded)
    except ValueError:
        return math.nan


def _as_text(value: Scalar) -> str:
    """One spelling for a value and for its text in MLflow, where truth may be ``true`` or ``True``."""
    number = _number(value)
    return str(value).lower() if math.isnan(number) else repr(number)


def _open_earlier(reference: str, space: SpaceFile) -> optuna.Study:
    """The study that a reference leads to, which must have had the same metric."""
    folder = next(
        (f for f in (Path(reference), STUDIES / reference) if (f / STUDY_FILE).is_file()), None
    )
    if folder is None:
        raise ConfigError(
            f"study/warm_start: {reference} is neither the folder of a study nor the name of one under "
            f"{STUDIES}/; list them with gerbil-tune studies"
        )
    earlier = stored_study(folder)
    metric = _objectives(earlier)[0]
    if metric != space.study.metric:
        raise ConfigError(
            f"study/warm_start: {reference} minimized {metric}, but this study minimizes "
            f"{space.study.metric}; take another, or set study/metric={metric}"
        )
    return earlier


def _objectives(study: optuna.Study) -> list[str]:
    return list(study.user_attrs.get("objectives", [study.user_attrs.get("metric")]))


def _of_study(earlier: optuna.Study) -> Iterator[EarlierTrial]:
    objectives = _objectives(earlier)
    for trial in earlier.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        attributes = trial.user_attrs
        kept = {key: attributes[key] for key in ("metrics", "best_metrics") if key in attributes}
        of_any_epoch = {
            name: value
            for name, value in attributes.get("metrics", {}).items()
            if not name.startswith("val_")
        }
        results = dict(zip(objectives, trial.values, strict=True))
        yield EarlierTrial(
            {**attributes.get("config", {}), **values_by_path(trial.params)},
            {**of_any_epoch, **attributes.get("best_metrics", {}), **results},
            kept,
        )


def _of_experiment(
    reference: str, space: SpaceFile, tracking_uri: str | None
) -> Iterator[EarlierTrial]:
    from gerbil_tune.tracking.recorded_trials import recorded_trials

    for trial in recorded_trials(reference.removeprefix(_MLFLOW), tracking_uri):
        if trial.status != "complete":
            continue
        results = {name: trial.value(name) for name in space.study.objectives}
        known = {name: value for name, value in results.items() if value is not None}
        # Files and MLflow write null for what Python calls None.
        values = {k: None if text == "null" else text for k, text in trial.parameters.items()}
        yield EarlierTrial(values, known)
