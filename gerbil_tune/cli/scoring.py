"""What models say of events with known locations, and which of it can be scored."""

from typing import TYPE_CHECKING

import typer

from gerbil_tune.errors import DatasetError

if TYPE_CHECKING:
    from gerbil_tune.data.events import EventSet
    from gerbil_tune.evaluation.results import EvaluationResult, MethodResult
    from gerbil_tune.models.bundle import TrainedModel

_BATCH = 64
_MOST_NAMED = 5
"""Events named on stderr; the page names all."""


def predicted_by(name: str, bundle: "TrainedModel", labelled: "EventSet") -> "MethodResult":
    """What a model says of events with locations of its keypoints; NaN where it has no prediction."""
    from gerbil_tune.evaluation.results import MethodResult
    from gerbil_tune.inference.flags import flagged
    from gerbil_tune.inference.predict import predict_events

    predictions = predict_events(bundle, labelled, per_worker_batch_size=_BATCH)
    return MethodResult.of_model(name, flagged(predictions, bundle.setup))


def scored_part(
    result: "EvaluationResult", events: "EventSet"
) -> "tuple[EvaluationResult, EventSet, tuple[str, ...]]":
    """Leave out, and name on stderr, the events of which some method says nothing.

    Returns:
        What is left of both, and a line for each event that is not.

    Raises:
        DatasetError: If nothing is left.
    """
    import numpy as np

    is_scored_N = result.is_scored_N
    if is_scored_N.all():
        return result, events, ()
    missing = {method.name: ~method.is_scored_N for method in result.methods}
    unscored = tuple(
        f"{events.describe(place)} ({', '.join(name for name, is_NaN in missing.items() if is_NaN[place])})"
        for place in np.flatnonzero(~is_scored_N).tolist()
    )
    first = "; ".join(unscored[:_MOST_NAMED]) + ("; ..." if len(unscored) > _MOST_NAMED else "")
    about = (
        f"{len(unscored):,} of {len(events):,} events cannot be scored, for they have no samples, no sound, "
        f"or audio that is not finite: {first}"
    )
    if len(unscored) == len(events):
        raise DatasetError(f"{events.files[0].path}: {about}; gerbil-tune data check says more")
    typer.echo(f"warning: {about}; they are left out", err=True)
    return result.of_events(is_scored_N), events.subset(np.flatnonzero(is_scored_N)), unscored
