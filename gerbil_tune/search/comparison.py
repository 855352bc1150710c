"""Refits and their ensemble on the same events: what each says, and which of them is the best."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from gerbil_tune.data.events import EventSet
from gerbil_tune.errors import DatasetError
from gerbil_tune.evaluation.paired import against_others, compare_methods
from gerbil_tune.evaluation.predictions import EventPredictions
from gerbil_tune.evaluation.results import EvaluationResult, MethodResult
from gerbil_tune.geometry import RecordingSetup

Predict = Callable[[Path, EventSet], EventPredictions]
"""Predicts events with a bundle, compared with their locations."""


@dataclass(frozen=True)
class Verdict:
    """Which model is the best.

    Attributes:
        winner: Name of the best single model.
        ensemble_wins: Whether the ensemble is better than it beyond chance.
        sentences: What the comparison showed.
    """

    winner: str
    ensemble_wins: bool
    sentences: tuple[str, ...]


def predict_all(
    bundles: Mapping[str, Path],
    ensemble: Path,
    events: EventSet,
    setup: RecordingSetup,
    predict: Predict,
) -> EvaluationResult:
    """Predict events with several bundles and their ensemble.

    Args:
        bundles: Members of the ensemble by name.
        ensemble: Its bundle.
        events: With locations of the keypoints and axes of ``setup``.
        setup: The recording site that all are for.
        predict: Predicts events with a bundle.

    Returns:
        The members in order, then the ensemble.

    Raises:
        DatasetError: If the events have no locations.
    """
    labelled = events.select_keypoints(setup.keypoints)
    locations = labelled.locations_mm
    if locations is None:
        raise DatasetError(
            f"{events.files[0].path} has no locations, so models cannot be compared on it; leave it out "
            "as test events"
        )
    models = {**bundles, f"ensemble of {len(bundles)}": ensemble}
    methods = [
        MethodResult.of_model(name, predict(bundle, labelled)) for name, bundle in models.items()
    ]
    return EvaluationResult(
        data_path=", ".join(str(file.path) for file in labelled.files),
        arena_mm=setup.arena_mm,
        keypoints=setup.keypoints,
        locations_mm_NKD=locations[..., : setup.num_axes],
        methods=tuple(methods),
    )


def judge(evaluation: EvaluationResult, figure: str, groups_N: NDArray[Any] | None) -> Verdict:
    """Choose between single models and their ensemble, the last method of an evaluation.

    The single model with the lowest figure wins, the first among equals. The ensemble, which costs as much
    to run as all its members, wins only if the paired bootstrap interval of its difference excludes 0.

    Args:
        evaluation: Of at least two single models and their ensemble.
        figure: Of ``score``; lower is better.
        groups_N: Group of each event, where groups are known.
    """
    *singles, ensemble = evaluation.methods
    winner = min(singles, key=lambda method: evaluation.figures(method)[figure])
    says = [f"{winner.name} has the lowest {figure} of {len(singles)} refits"]
    says += against_others(evaluation, winner.name, [s.name for s in singles], groups_N)
    against = compare_methods(evaluation, ensemble.name, winner.name, groups_N)
    ensemble_wins = against.differences[figure].high < 0
    says.append(against.sentence(ensemble.name, winner.name))
    says.append(
        f"the {ensemble.name} is better beyond chance, so it is the champion"
        if ensemble_wins
        else f"the {ensemble.name} is not better beyond chance, so {winner.name} alone is the champion"
    )
    return Verdict(winner.name, ensemble_wins, tuple(says))
