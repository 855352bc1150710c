"""What a map of the arena shows, and where: shared by pictures and pages.

Positions are millimetres, x and y from the arena centre. Legend: C microphones, K keypoints, D axes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

KEYPOINT_COLORS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Told apart with any colour vision: of the palette of Okabe and Ito (2008)."""
_MARGIN = 1.1
_FARTHEST = 2.0
"""Half arenas from the centre that a map reaches at most."""


@dataclass(frozen=True, slots=True)
class MapPoint:
    """Where a map shows a point.

    Attributes:
        x_mm: Within the map.
        y_mm: Within the map.
        is_inside: Whether it is its true place; else it is moved to the edge.
    """

    x_mm: float
    y_mm: float
    is_inside: bool


@dataclass(frozen=True, slots=True)
class ArenaMap:
    """The stretch of ground that a map shows: the arena, a margin, and what stands around it.

    Attributes:
        arena_mm: Full widths x and y of the floor.
        half_widths_mm: The map reaches from minus to plus these in x and y.
    """

    arena_mm: tuple[float, float]
    half_widths_mm: tuple[float, float]

    @classmethod
    def around(
        cls,
        arena_mm: Sequence[float],
        microphones_mm: Sequence[Sequence[float]] | None,
        points_KD: npt.NDArray[np.floating[Any]] | None = None,
    ) -> "ArenaMap":
        """Choose the map's size so that the arena, the microphones and perhaps points are on it.

        It never reaches farther than twice the arena: one wrong point must not shrink all the rest.
        """
        half_mm = np.array(arena_mm[:2], dtype=np.float64) / 2
        farthest_mm = half_mm
        for points in (microphones_mm, points_KD):
            if points is not None and len(points):
                reach_mm = np.abs(np.asarray(points, dtype=np.float64)[:, :2])
                reach_mm = np.where(np.isfinite(reach_mm), reach_mm, 0.0).max(axis=0)
                farthest_mm = np.maximum(farthest_mm, np.minimum(reach_mm, _FARTHEST * half_mm))
        # The same margin on both axes, so that it looks even.
        reach_x_mm, reach_y_mm = (farthest_mm + (_MARGIN - 1) * half_mm.max()).tolist()
        return cls((2 * float(half_mm[0]), 2 * float(half_mm[1])), (reach_x_mm, reach_y_mm))

    def show(self, location_D: Sequence[float] | npt.NDArray[np.floating[Any]]) -> MapPoint | None:
        """Where to show a point; None where a coordinate is not a finite number."""
        x_mm, y_mm = float(location_D[0]), float(location_D[1])
        if not (math.isfinite(x_mm) and math.isfinite(y_mm)):
            return None
        reach_x_mm, reach_y_mm = self.half_widths_mm
        shown_x_mm = min(max(x_mm, -reach_x_mm), reach_x_mm)
        shown_y_mm = min(max(y_mm, -reach_y_mm), reach_y_mm)
        return MapPoint(shown_x_mm, shown_y_mm, (shown_x_mm, shown_y_mm) == (x_mm, y_mm))


def nose_of(keypoints: Sequence[str]) -> int:
    """Which keypoint is marked as the nose: the one of that name, else the first."""
    return next((k for k, name in enumerate(keypoints) if name.lower() == "nose"), 0)
