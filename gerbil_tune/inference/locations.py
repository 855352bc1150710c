"""Which locations of a file of events are those that a model predicts.

Letters: N events, K keypoints, D axes.
"""

import numpy as np
import numpy.typing as npt

from gerbil_tune.data.events import EventSet
from gerbil_tune.geometry import RecordingSetup


def matching_locations(events: EventSet, setup: RecordingSetup) -> npt.NDArray[np.float32] | None:
    """Locations in mm, (N, K, D), of the keypoints and axes that a model predicts; None without."""
    if events.locations_mm is None or events.num_axes < setup.num_axes:
        return None
    if set(setup.keypoints) <= set(events.keypoints):
        events = events.select_keypoints(setup.keypoints)
    elif not len(setup.keypoints) == len(events.keypoints) == 1:
        # The name of a single keypoint says little: many files give none.
        return None
    locations = events.locations_mm
    return None if locations is None else locations[..., : setup.num_axes]
