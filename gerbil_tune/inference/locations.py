"""Which locations and tracks of a file of events are of what a model predicts.

Letters: N events, A animals, K keypoints, D axes.
"""

import numpy as np
import numpy.typing as npt

from gerbil_tune.data.events import EventSet
from gerbil_tune.geometry import RecordingSetup


def matching_locations(events: EventSet, setup: RecordingSetup) -> npt.NDArray[np.float32] | None:
    """Locations in mm, (N, K, D), of the keypoints and axes that a model predicts; None without."""
    if events.locations_mm is None or events.num_axes < setup.num_axes:
        return None
    matching = _with_keypoints(events, setup)
    locations = None if matching is None else matching.locations_mm
    return None if locations is None else locations[..., : setup.num_axes]


def matching_tracks(events: EventSet, setup: RecordingSetup) -> npt.NDArray[np.float32] | None:
    """Tracks in mm, (N, A, K, D), of the keypoints and axes that a model predicts; None without."""
    if events.animals is None or events.animals.tracks_mm.shape[3] < setup.num_axes:
        return None
    matching = _with_keypoints(events, setup)
    animals = None if matching is None else matching.animals
    return None if animals is None else animals.tracks_mm[..., : setup.num_axes]


def _with_keypoints(events: EventSet, setup: RecordingSetup) -> EventSet | None:
    """The events with the keypoints of a model, None where they are others."""
    if set(setup.keypoints) <= set(events.keypoints):
        return events.select_keypoints(setup.keypoints)
    # The name of a single keypoint says little: many files give none.
    return events if len(setup.keypoints) == len(events.keypoints) == 1 else None
