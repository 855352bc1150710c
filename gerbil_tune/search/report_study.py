"""What a report says about a study, read from Optuna once and free of its types."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

import optuna
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

State = Literal["complete", "pruned", "failed", "running", "waiting"]
Scalar = str | int | float | bool | None

_STATES: dict[TrialState, State] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}
_METRIC_TITLES = {
    "val_error_median_mm": "median validation error (mm)",
    "val_error_mean_mm": "mean validation error (mm)",
    "val_error_p90_mm": "90th percentile of the validation error (mm)",
    "val_nll": "validation NLL (nats)",
}
_MIN_TRIALS_FOR_IMPORTANCE = 10


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """One trial.

    Attributes:
        number: From 0.
        state: How it ended, or that it has not.
        objective: Its value; of a pruned trial the best epoch; None where there is none.
        curve: (epoch, objective) by epoch.
        parameters: Value by Optuna's name; only those in force in this trial.
        seconds: Time it took, None where unknown.
        reason: Why it failed or was stopped.
        metrics: As last reported.
    """

    number: int
    state: State
    objective: float | None
    curve: tuple[tuple[int, float], ...] = ()
    parameters: Mapping[str, Scalar] = field(default_factory=dict)
    seconds: float | None = None
    reason: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SearchedParameter:
    """One searched parameter.

    Attributes:
        name: Optuna's: the config path, then ``@`` and the branch for each branch that it lives in.
        kind: What values it takes.
        ends: Lowest and highest value, or all choices.
        log: Whether it was sampled on a log scale.
        num_trials: Trials that had it.
    """

    name: str
    kind: Literal["float", "int", "categorical"]
    ends: tuple[Scalar, ...]
    log: bool
    num_trials: int

    @property
    def path(self) -> str:
        """Its path in the config."""
        return self.name.partition("@")[0]

    @property
    def branches(self) -> tuple[str, ...]:
        """The branches that a trial must choose to have it."""
        return tuple(self.name.split("@")[1:])

    @property
    def label(self) -> str:
        """Path and branches for a reader."""
        return f"{self.path} ({', '.join(self.branches)})" if self.branches else self.path


@dataclass(frozen=True, slots=True)
class StudyView:
    """A study as the report shows it.

    Attributes:
        name: The study's.
        metric: Name of the objective.
        minimize: Whether lower is better.
        trials: All, by number.
        parameters: In the order in which trials first met them.
        champion: The chosen trial, else the best complete one, else None.
        attributes: The study's user attributes.
        wall_clock: From the first start to the last end, None where nothing has ended.
    """

    name: str
    metric: str
    minimize: bool
    trials: tuple[TrialRecord, ...]
    parameters: tuple[SearchedParameter, ...]
    champion: TrialRecord | None
    attributes: Mapping[str, Any]
    wall_clock: timedelta | None

    @property
    def metric_title(self) -> str:
        """The objective for an axis or a heading, with its unit."""
        return metric_title(self.metric)

    def in_state(self, *states: State) -> list[TrialRecord]:
        """Trials in any of these states, by number."""
        return [trial for trial in self.trials if trial.state in states]


def metric_title(name: str) -> str:
    """A metric's name in words, with the unit that its suffix states."""
    if name in _METRIC_TITLES:
        return _METRIC_TITLES[name]
    words = name.replace("/", " ").replace("_", " ").strip()
    for short, full in (("val ", "validation "), ("train ", "training ")):
        if words.startswith(short):
            words = full + words[len(short) :]
    words = words.replace("nll", "NLL")
    for unit in ("mm", "s"):
        if words.endswith(f" {unit}"):
            return f"{words[: -len(unit) - 1]} ({unit})"
    return words


def format_value(value: Scalar, digits: int = 4) -> str:
    """A setting for a reader: numbers with few digits, ``true``, ``false`` and ``null`` as in YAML."""
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "null"
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def view_study(study: optuna.Study) -> StudyView:
    """Read everything that the report needs."""
    frozen = study.get_trials(deepcopy=False)
    minimize = study.directions[0] == optuna.study.StudyDirection.MINIMIZE
    trials = tuple(_record(trial, minimize) for trial in frozen)
    attributes = dict(study.user_attrs)
    return StudyView(
        name=study.study_name,
        metric=str(attributes.get("metric", "objective")),
        minimize=minimize,
        trials=trials,
        parameters=_searched_parameters(frozen),
        champion=_champion(trials, attributes.get("champion"), minimize),
        attributes=attributes,
        wall_clock=_wall_clock(frozen),
    )


def importances(study: optuna.Study) -> tuple[dict[str, float], str]:
    """How much each parameter decided whether a trial was among the best (PED-ANOVA).

    Parameters of branches count too (Conditional PED-ANOVA, arXiv:2601.20800). The best tenth of the trials
    is compared with all, or the best five where a tenth is fewer. A pruned trial counts with its best epoch:
    that it was stopped says something about its parameters.

    Returns:
        Share by Optuna's name, highest first, adding up to 1; and a sentence that says why where it is
        empty.
    """
    import warnings

    judged = _judged(study)
    if len(judged.trials) < _MIN_TRIALS_FOR_IMPORTANCE:
        return {}, (
            f"Importance needs at least {_MIN_TRIALS_FOR_IMPORTANCE} complete or pruned trials, "
            f"but the study has {len(judged.trials)}."
        )
    if len({trial.value for trial in judged.trials}) == 1:
        return {}, "Importance cannot be computed: all trials have the same value."
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(
        target_quantile=max(0.1, 5 / len(judged.trials))
    )
    try:
        with warnings.catch_warnings():
            # It warns of branches with few trials; the caption of the figure says so to the reader.
            warnings.simplefilter("ignore")
            shares = optuna.importance.get_param_importances(judged, evaluator=evaluator)
    except (ValueError, RuntimeError, ArithmeticError) as error:
        return {}, f"Importance cannot be computed: {' '.join(str(error).split())}."
    if not shares or not sum(shares.values()) > 0.0:
        return (
            {},
            "Importance cannot be computed: no parameter tells the best trials from the rest.",
        )
    return dict(shares), ""


def _judged(study: optuna.Study) -> optuna.Study:
    """A study in memory of the complete trials and, with their best epochs, of the pruned ones."""
    judged = optuna.create_study(direction=study.direction)
    pick = min if study.direction is StudyDirection.MINIMIZE else max
    for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)):
        values = [trial.values[0]] if trial.values else list(trial.intermediate_values.values())
        if values:
            judged.add_trial(
                optuna.trial.create_trial(
                    params=trial.params, distributions=trial.distributions, value=pick(values)
                )
            )
    return judged


def _record(trial: FrozenTrial, minimize: bool) -> TrialRecord:
    curve = tuple(sorted(trial.intermediate_values.items()))
    objective: float | None = None
    if trial.state == TrialState.COMPLETE:
        objective = trial.values[0]
    elif curve:
        values = [value for _, value in curve]
        objective = min(values) if minimize else max(values)
    attributes = trial.user_attrs
    seconds = attributes.get("seconds")
    if seconds is None and trial.duration is not None:
        seconds = trial.duration.total_seconds()
    return TrialRecord(
        number=trial.number,
        state=_STATES[trial.state],
        objective=objective,
        curve=curve,
        parameters=dict(trial.params),
        seconds=seconds,
        reason=str(attributes.get("reason", "")),
        metrics=dict(attributes.get("metrics", {})),
    )


def _searched_parameters(trials: Sequence[FrozenTrial]) -> tuple[SearchedParameter, ...]:
    found: dict[str, list[Any]] = {}
    for trial in trials:
        for name, distribution in trial.distributions.items():
            found.setdefault(name, []).append(distribution)
    return tuple(_merge(name, distributions) for name, distributions in found.items())


def _merge(name: str, distributions: Sequence[Any]) -> SearchedParameter:
    first, count = distributions[0], len(distributions)
    if isinstance(first, CategoricalDistribution):
        return SearchedParameter(name, "categorical", tuple(first.choices), False, count)
    low, high = min(d.low for d in distributions), max(d.high for d in distributions)
    kind: Literal["int", "float"] = "int" if isinstance(first, IntDistribution) else "float"
    return SearchedParameter(name, kind, (low, high), bool(first.log), count)


def _champion(trials: Sequence[TrialRecord], chosen: object, minimize: bool) -> TrialRecord | None:
    for trial in trials:
        if trial.number == chosen:
            return trial
    sign = 1.0 if minimize else -1.0
    complete = [trial for trial in trials if trial.state == "complete"]
    return min(complete, key=lambda trial: sign * (trial.objective or 0.0), default=None)


def _wall_clock(trials: Sequence[FrozenTrial]) -> timedelta | None:
    starts = [trial.datetime_start for trial in trials if trial.datetime_start is not None]
    ends = [trial.datetime_complete for trial in trials if trial.datetime_complete is not None]
    return max(ends) - min(starts) if starts and ends else None
