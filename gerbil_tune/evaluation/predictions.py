"""What is kept of the densities that a model states of many events: few numbers an event.

Letters: N events, A animals, K keypoints, D axes, R conformal regions, Y and X cells of a map.
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gerbil_tune.evaluation.assignment import log_densities_at_animals
from gerbil_tune.evaluation.calibration import hdr_levels
from gerbil_tune.evaluation.confidence import probability_within
from gerbil_tune.evaluation.conformal import conformal_thresholds, region_sizes
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.calibrated import Calibration
from gerbil_tune.models.density import LocationDensity
from gerbil_tune.models.event_noise import EventNoise


@dataclass(frozen=True, eq=False, slots=True)
class EventPredictions:
    """Predictions of N events, and how they compare with the truth where it is known.

    Attributes:
        mean_mm_NKD: Point estimates in mm, float32.
        covariance_mm2_NKDD: Calibrated covariance in mm², float32.
        region_size_NKR: Area in mm² (volume in mm³ with three axes) of the conformal region of each level,
            float32; infinite where the model had too few calibration events for that level, NaN where it has
            no conformal calibration. R is the number of ``models.calibrated.LEVELS``.
        nll_NK: Negative log density of the truth in nats, per mm^D, float32; or None.
        level_NK: Mass of the highest-density region that just reaches the truth, float32; or None.
        in_region_NKR: Whether the truth is in the conformal region, bool; or None.
        confidence_NK: Probability that the truth is within ``confidence.RADIUS_MM`` of the prediction,
            float32; or None.
        flags_N: What there is to say of each event, bits of uint8; or None.
        animal_log_density_NA: Log density at each animal whose track is known, nats per mm^(K D), float32;
            NaN where it was not seen; or None.
        density_NKYX: Density at the centres of cells of the arena, per mm², float32; or None.
    """

    mean_mm_NKD: NDArray[Any]
    covariance_mm2_NKDD: NDArray[Any]
    region_size_NKR: NDArray[Any]
    nll_NK: NDArray[Any] | None = None
    level_NK: NDArray[Any] | None = None
    in_region_NKR: NDArray[Any] | None = None
    confidence_NK: NDArray[Any] | None = None
    flags_N: NDArray[Any] | None = None
    animal_log_density_NA: NDArray[Any] | None = None
    density_NKYX: NDArray[Any] | None = None

    def __len__(self) -> int:
        return len(self.mean_mm_NKD)

    @classmethod
    def float_fields(cls) -> tuple[str, ...]:
        """Names of the fields that hold numbers which may be NaN."""
        return tuple(f.name for f in fields(cls) if f.name not in ("in_region_NKR", "flags_N"))

    @classmethod
    def joined(cls, parts: "list[EventPredictions]") -> "EventPredictions":
        """Parts one after the other; at least one, and all with the truth or all without."""
        columns: dict[str, Any] = {}
        for field in fields(cls):
            values = [getattr(part, field.name) for part in parts]
            columns[field.name] = None if values[0] is None else np.concatenate(values)
        return cls(**columns)

    def in_order(self, places_N: NDArray[np.int64]) -> "EventPredictions":
        """The same events with row ``i`` put to place ``places_N[i]``; these are 0 to N - 1."""
        order_N = np.argsort(places_N)
        columns: dict[str, Any] = {}
        for field in fields(self):
            values = getattr(self, field.name)
            columns[field.name] = None if values is None else values[order_N]
        return type(self)(**columns)


def describe(
    density: LocationDensity,
    calibration: Calibration,
    setup: RecordingSetup,
    locations_mm_NKD: NDArray[Any] | None = None,
    numbers_N: NDArray[np.int64] | None = None,
    tracks_mm_NAKD: NDArray[Any] | None = None,
) -> EventPredictions:
    """Reduce the densities of some events to few numbers each.

    Args:
        density: Calibrated, of N events, in main memory.
        calibration: Of the model; its conformal thresholds are applied.
        setup: The recording site.
        locations_mm_NKD: True locations, (N, K, D) mm, or None.
        numbers_N: Numbers of the events, such as their places in a file, on which draws from a density depend
            that is no Gaussian; None: counted from 0.
        tracks_mm_NAKD: Where several animals were, (N, A, K, D) mm, or None.
    """
    num_events = len(density.log_weights_BKM)
    numbers = torch.arange(num_events) if numbers_N is None else torch.from_numpy(numbers_N)
    noise = EventNoise(numbers)
    thresholds_NKR = conformal_thresholds(calibration, density, setup.arena_mm)
    nll_NK = level_NK = in_region_NKR = None
    if locations_mm_NKD is not None:
        truth_NKD = torch.from_numpy(locations_mm_NKD)
        nll_NK = -density.log_density_BK(truth_NKD).numpy()
        level_NK = hdr_levels(density, truth_NKD, noise=noise).astype(np.float32)
        in_region_NKR = (density.score_BK(truth_NKD)[..., None] <= thresholds_NKR).numpy()
    return EventPredictions(
        density.mean_mm_BKD.numpy(),
        density.covariance_mm2_BKDD.numpy(),
        region_sizes(density, thresholds_NKR, noise=noise).numpy(),
        nll_NK,
        level_NK,
        in_region_NKR,
        probability_within(density, noise=noise).numpy(),
        animal_log_density_NA=None
        if tracks_mm_NAKD is None
        else log_densities_at_animals(density, tracks_mm_NAKD).astype(np.float32),
    )
