"""What a report says about a study, read from Optuna once and free of its types."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import optuna
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from gerbil_tune.search.report_runs import (
    StudyRun,
    StudyState,
    closed_runs,
    read_runs,
    searched_hours,
    study_state,
)
from gerbil_tune.search.storage import curve_of, is_own

State = Literal[
    "complete", "pruned", "infeasible", "failed", "running", "paused", "interrupted", "known"
]
"""``infeasible``: proposed but beyond a constraint, so not run. ``known``: taken from an earlier study."""
Scalar = str | int | float | bool | None

STATES: tuple[State, ...] = (
    "complete",
    "pruned",
    "failed",
    "running",
    "paused",
    "interrupted",
    "infeasible",
    "known",
)
CLOSED: tuple[State, ...] = ("complete", "pruned", "failed")
"""Trials that were run and are over."""
OPEN: tuple[State, ...] = ("running", "paused", "interrupted")
STATE_WORDS: Mapping[State, str] = {
    "infeasible": "beyond a constraint",
    "known": "from an earlier study",
}
"""Where a state's own name says too little."""
_METRIC_TITLES = {
    "val_error_median_mm": "median validation error (mm)",
    "val_error_mean_mm": "mean validation error (mm)",
    "val_error_p90_mm": "90th percentile of the validation error (mm)",
    "val_nll": "validation NLL (nats)",
    "val_crps_mm": "validation CRPS (mm)",
    "val_calibration_error": "calibration error on the validation events",
    "val_coverage_50": "validation events inside their 50 % regions",
    "val_coverage_90": "validation events inside their 90 % regions",
    "val_coverage_95": "validation events inside their 95 % regions",
    "val_area_95_mm2": "median area of the 95 % regions (mm²)",
    "val_volume_95_mm3": "median volume of the 95 % regions (mm³)",
    "predict_ms_per_event": "time of a prediction (ms an event)",
}


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """One trial.

    Attributes:
        number: From 0.
        state: How it ended, or that it has not.
        objective: Its value; of a trial that is not complete the best epoch; None where there is none.
        values: All objectives of a complete trial.
        curve: (epoch, objective) by epoch.
        parameters: Value by Optuna's name; only those in force in this trial.
        seconds: Time it took, None where unknown.
        reason: Why it failed or was stopped.
        reason_kind: The reason in one or two words.
        mishaps: Crashes and lacks of memory that it got over.
        metrics: As last reported.
        best_metrics: Of its best epoch.
        parent: The trial whose checkpoint it began with.
        ended: With its time zone.
    """

    number: int
    state: State
    objective: float | None
    values: tuple[float, ...] = ()
    curve: tuple[tuple[int, float], ...] = ()
    parameters: Mapping[str, Scalar] = field(default_factory=dict)
    seconds: float | None = None
    reason: str = ""
    reason_kind: str = ""
    mishaps: tuple[str, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    best_metrics: Mapping[str, float] = field(default_factory=dict)
    parent: int | None = None
    ended: datetime | None = None

    @property
    def last_epoch(self) -> int:
        """The epoch that it reached; a copy began at its parent's."""
        return self.curve[-1][0] if self.curve else 0


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
    """A study as the report shows it; every objective is minimized.

    Attributes:
        name: The study's.
        state: How it stands.
        objectives: Their names; the first is the metric that stops trials.
        trials: All, by number.
        parameters: In the order in which trials first met them.
        champion: The chosen trial, else the best complete one, else None.
        attributes: The study's user attributes.
        runs: Of the command, each with an end.
    """

    name: str
    state: StudyState
    objectives: tuple[str, ...]
    trials: tuple[TrialRecord, ...]
    parameters: tuple[SearchedParameter, ...]
    champion: TrialRecord | None
    attributes: Mapping[str, Any]
    runs: tuple[StudyRun, ...]

    @property
    def metric_title(self) -> str:
        """The first objective for an axis or a heading, with its unit."""
        return metric_title(self.objectives[0])

    @property
    def closed(self) -> list[TrialRecord]:
        """Trials of this study that were run and are over."""
        return self.in_state(*CLOSED)

    @property
    def searched_s(self) -> float:
        """Time of searching, all runs together."""
        spent = self.attributes.get("spent_s")
        if spent is not None:
            return float(spent)
        last = max((run.ended for run in self.runs if run.ended), default=None)
        return 3600 * searched_hours(last, self.runs) if last else 0.0

    def in_state(self, *states: State) -> list[TrialRecord]:
        """Trials in any of these states, by number."""
        return [trial for trial in self.trials if trial.state in states]

    def count(self) -> dict[State, int]:
        """How many trials are in each state that has any."""
        counts: dict[State, int] = {state: len(self.in_state(state)) for state in STATES}
        return {state: number for state, number in counts.items() if number}


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


def view_study(study: optuna.Study, *, locked: bool = False) -> StudyView:
    """Read everything that the report needs.

    Args:
        study: In any state.
        locked: Whether a search holds it just now.
    """
    attributes = dict(study.user_attrs)
    runs = read_runs(attributes)
    state = study_state(runs, locked=locked)
    frozen = [t for t in study.get_trials(deepcopy=False) if t.state != TrialState.WAITING]
    trials = tuple(_record(trial, live=state == "running") for trial in frozen)
    now = [datetime.now(UTC).astimezone()] if state == "running" else []
    return StudyView(
        name=study.study_name,
        state=state,
        objectives=tuple(attributes.get("objectives") or [attributes.get("metric", "objective")]),
        trials=trials,
        parameters=_searched_parameters(frozen),
        champion=_champion(trials, attributes.get("champion")),
        attributes=attributes,
        runs=tuple(closed_runs(runs, _signs(frozen) + now)),
    )


def _record(trial: FrozenTrial, *, live: bool) -> TrialRecord:
    curve = tuple(sorted(curve_of(trial).items()))
    complete = trial.state == TrialState.COMPLETE
    values = tuple(trial.values) if complete else ()
    known = trial.user_attrs
    return TrialRecord(
        number=trial.number,
        state=_state(trial, live=live),
        objective=values[0] if values else min((value for _, value in curve), default=None),
        values=values,
        curve=curve,
        parameters=dict(trial.params),
        seconds=_seconds(trial),
        reason=str(known.get("reason", "")),
        reason_kind=str(known.get("reason_kind", "")),
        mishaps=tuple(known.get("mishaps", ())),
        metrics=dict(known.get("metrics", {})),
        best_metrics=dict(known.get("best_metrics", {})),
        parent=known.get("parent"),
        ended=trial.datetime_complete.astimezone() if trial.datetime_complete else None,
    )


def _state(trial: FrozenTrial, *, live: bool) -> State:
    if not is_own(trial):
        return "known"
    if trial.state == TrialState.COMPLETE:
        return "complete"
    if trial.state == TrialState.FAIL:
        return "failed"
    if trial.state == TrialState.PRUNED:
        infeasible = trial.user_attrs.get("reason_kind") == "infeasible"
        return "infeasible" if infeasible else "pruned"
    if not live:
        return "interrupted"
    return "paused" if trial.user_attrs.get("paused_at") else "running"


def _seconds(trial: FrozenTrial) -> float | None:
    noted = trial.user_attrs.get("seconds")
    if noted is not None:
        return float(noted)
    return trial.duration.total_seconds() if trial.duration is not None else None


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


def _champion(trials: Sequence[TrialRecord], chosen: object) -> TrialRecord | None:
    for trial in trials:
        if trial.number == chosen:
            return trial
    complete = [trial for trial in trials if trial.state == "complete"]
    return min(complete, key=lambda trial: trial.values[0], default=None)


def _signs(trials: Sequence[FrozenTrial]) -> list[datetime]:
    moments = [moment for t in trials for moment in (t.datetime_start, t.datetime_complete)]
    return [moment.astimezone() for moment in moments if moment is not None]
