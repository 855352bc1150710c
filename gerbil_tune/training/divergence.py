"""Why a loss or a prediction is not a number: the data, or else the training itself.

Before training the audio of some events is looked at, for reading all of it takes long. Where training fails,
all of it is worth reading.

Legend: N events, K keypoints, D axes.
"""

import numpy as np

from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.data.checks.audio_scan import scan_audio
from gerbil_tune.data.events import EventSet
from gerbil_tune.errors import DatasetError, NonFiniteLossError

_EVENTS_AT_A_TIME = 4096
_MOST_BYTES = 64 * 1024**3
"""Audio that is read at most: some minutes' worth."""


def non_finite_error(what: str, events: EventSet, config: ExperimentConfig) -> NonFiniteLossError:
    """The error of a value that is not finite, with its cause as far as it can be found.

    Args:
        what: What is not finite and when, such as "the loss became nan in epoch 1".
        events: Those that it was computed of; their locations and audio are read.
        config: Of the run.
    """
    cause = find_non_finite(events)
    if cause:
        return NonFiniteLossError(
            f"{what}, because {cause}; gerbil-tune data check names all such events, and gerbil-tune data "
            "clean leaves them out"
        )
    return NonFiniteLossError(
        f"{what}; try a lower optimizer/learning_rate (it was {config.optimizer.learning_rate:g}) or "
        "training/clip_norm"
    )


def find_non_finite(events: EventSet) -> str:
    """Name the first event whose locations or audio hold NaN or infinite values; empty if none does."""
    locations_NKD = events.locations_mm
    if locations_NKD is not None:
        bad = np.flatnonzero(~np.isfinite(locations_NKD).all(axis=(1, 2)))
        if len(bad):
            return f"the location of {events.describe(int(bad[0]))} holds NaN or infinite values"
    sample_bytes = events.num_microphones * events.files[0].dtype.itemsize
    within = np.cumsum(events.lengths) * sample_bytes <= _MOST_BYTES
    for first in range(0, int(within.sum()), _EVENTS_AT_A_TIME):
        places = np.arange(first, min(first + _EVENTS_AT_A_TIME, int(within.sum())))
        try:
            scan = scan_audio(events, places)
        except DatasetError:
            return ""  # the files have gone meanwhile: nothing can be said of them
        if not scan.finite_N.all():
            place = int(scan.places_N[~scan.finite_N][0])
            return f"the audio of {events.describe(place)} holds NaN or infinite values"
    return ""
