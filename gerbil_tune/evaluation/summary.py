"""Everything that the page of an evaluation says in numbers.

Letters: N events, K keypoints, D axes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gerbil_tune.data.events import EventSet
from gerbil_tune.evaluation.bootstrap import (
    ERROR,
    Interval,
    draw_scores,
    event_figures,
)
from gerbil_tune.evaluation.breakdowns import (
    Binning,
    Breakdown,
    break_down,
    by_length,
    by_number,
    by_snr,
    by_zone,
)
from gerbil_tune.evaluation.calibration import calibration_curve
from gerbil_tune.evaluation.event_snr import snr_db
from gerbil_tune.evaluation.paired import PairedComparison, paired_difference
from gerbil_tune.evaluation.region_errors import RegionErrors, region_errors
from gerbil_tune.evaluation.results import EvaluationResult, MethodResult
from gerbil_tune.evaluation.worst_events import WorstEvent, worst_events
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.pages.writing import written_now

_FEWEST_PER_SESSION = 2
"""Events of a session, on average, below which sessions are not told apart."""
STAGES = {"init": "initial", "best": "best", "final": "final"}
"""Weights of a run, and what the page calls them."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Which model a method is.

    Attributes:
        name: As the table shows it.
        uri: ``models:/<name>/<version>`` or the folder of a bundle.
        version: In the registry, or None.
        kind: The architecture.
        num_parameters: Weights of the network.
        fingerprint: SHA-256 of the weights.
        data_fingerprint: Of what it was trained on, or None where the model does not say.
    """

    name: str
    uri: str
    version: str | None
    kind: str
    num_parameters: int
    fingerprint: str
    data_fingerprint: str | None


@dataclass(frozen=True, eq=False, slots=True)
class OtherWeights:
    """A model with the initial or the final weights of its training.

    Attributes:
        model: Its name.
        stage: init or final.
        method: What it says of the events; None where it cannot be had.
        reason: Why not.
    """

    model: str
    stage: str
    method: MethodResult | None
    reason: str = ""


@dataclass(frozen=True, eq=False, slots=True)
class Evaluation:
    """What a page is made of.

    Attributes:
        result: Of at least one event, all scored; the last method is the model in question.
        events: The N events, in order.
        setup: The recording site.
        models: Those of the methods that are models, in order.
        other_weights: Of these models.
        unscored: Events that no number can be given for, a line each.
    """

    result: EvaluationResult
    events: EventSet
    setup: RecordingSetup
    models: tuple[ModelFacts, ...]
    other_weights: tuple[OtherWeights, ...] = ()
    unscored: tuple[str, ...] = ()

    @property
    def subject(self) -> str:
        """Name of the model in question."""
        return self.result.methods[-1].name


@dataclass(frozen=True, eq=False, slots=True)
class Summary:
    """The numbers of a page.

    Attributes:
        written: When.
        scores: Of each method by figure of merit, with intervals.
        further: By method what has no interval: calibration_error, and size of the regions.
        by_weights: By model and stage of training, likewise; models with one stage are left out.
        comparisons: The model in question against each other method, by its name.
        breakdowns: By property of the events.
        regions: Of each method that has conformal regions.
        curves: Calibration curve of each method that states an uncertainty, at 0, 10, ... 100 %.
        worst: Events of the model in question.
        num_draws: Of the events, for the intervals.
        num_groups: Sessions that were drawn; None where single events were.
    """

    written: str
    scores: dict[str, dict[str, Interval]]
    further: dict[str, dict[str, float]]
    by_weights: dict[str, dict[str, dict[str, Interval]]]
    comparisons: dict[str, PairedComparison]
    breakdowns: tuple[Breakdown, ...]
    regions: tuple[RegionErrors, ...]
    curves: dict[str, NDArray[Any]]
    worst: list[WorstEvent]
    num_draws: int
    num_groups: int | None


def summarize(evaluation: Evaluation) -> Summary:
    """Do all sums of a page, each once."""
    result, events = evaluation.result, evaluation.events
    truth = result.locations_mm_NKD
    figures = {method.name: event_figures(method, truth) for method in result.methods}
    staged = {
        (weights.model, weights.stage): {ERROR: event_figures(weights.method, truth)[ERROR]}
        for weights in evaluation.other_weights
        if weights.method is not None
    }
    # A line break tells them from the methods' own names.
    keys = {place: f"{place[0]}\n{place[1]}" for place in staged}
    draws = draw_scores(
        {**figures, **{keys[place]: found for place, found in staged.items()}}, events.groups
    )
    by_weights = {}
    for model in evaluation.models:
        of_model = {
            stage: _errors_only(draws.intervals(name))
            for stage in STAGES
            if (name := model.name if stage == "best" else keys.get((model.name, stage), ""))
        }
        if len(of_model) > 1:
            by_weights[model.name] = of_model
    subject = evaluation.subject
    snr_db_N = snr_db(events, evaluation.setup.sample_rate_hz)
    regions = (
        region_errors(result, number, figures[method.name][ERROR])
        for number, method in enumerate(result.methods)
    )
    return Summary(
        written=written_now(),
        scores={method.name: draws.intervals(method.name) for method in result.methods},
        further={
            method.name: _further(result.figures(method), draws.exact[method.name])
            for method in result.methods
        },
        by_weights=by_weights,
        comparisons={
            method.name: paired_difference(draws, subject, method.name)
            for method in result.methods[:-1]
        },
        breakdowns=tuple(
            break_down(binning, figures, events.groups)
            for binning in _binnings(evaluation, snr_db_N)
        ),
        regions=tuple(found for found in regions if found is not None and len(found.size_M)),
        curves={
            method.name: calibration_curve(method.level_NK)
            for method in result.methods
            if method.level_NK is not None
        },
        worst=worst_events(
            result,
            -1,
            figures[subject][ERROR],
            events,
            evaluation.setup.sample_rate_hz,
            snr_db_N,
        ),
        num_draws=draws.num_draws,
        num_groups=draws.num_groups,
    )


def _errors_only(scores: Mapping[str, Interval]) -> dict[str, Interval]:
    """Without the uncertainty, which is calibrated for the best weights alone."""
    return {name: found for name, found in scores.items() if name.startswith("error_")}


def _further(figures: Mapping[str, float], scored: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if name not in scored}


def _binnings(evaluation: Evaluation, snr_db_N: NDArray[Any]) -> list[Binning]:
    """How the events are told apart; the first has all of them."""
    events, setup = evaluation.events, evaluation.setup
    found = [
        by_zone(evaluation.result.locations_mm_NKD, setup.arena_mm),
        by_length(1000 * events.lengths / setup.sample_rate_hz),
        by_snr(snr_db_N),
    ]
    if events.groups is not None:
        if len(np.unique(events.groups)) > len(events) / _FEWEST_PER_SESSION:
            return found
        found.append(by_number("session", "Session", "session", events.groups))
    elif len(events.files) > 1:
        names = tuple(file.path.name for file in events.files)
        found.append(Binning("file", "File", names, events.file_numbers.astype(np.int64)))
    return found
