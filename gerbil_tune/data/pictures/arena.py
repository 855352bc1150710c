"""The arena seen from above, with microphones and keypoints, in a picture of one event.

Legend: C microphones, K keypoints, D axes.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gerbil_tune.data.pictures.arena_map import KEYPOINT_COLORS, ArenaMap

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FLOOR_COLOR = "#F1EEE6"
_WALL, _INK = "#6B7280", "#1A1F25"
_MARKERS = "osD^vP"
_FEW_MICROPHONES = 8


def marker_of(k: int) -> tuple[str, str]:
    """Marker and colour of a keypoint; both together differ for the first 36."""
    return _MARKERS[(k + k // len(KEYPOINT_COLORS)) % len(_MARKERS)], KEYPOINT_COLORS[
        k % len(KEYPOINT_COLORS)
    ]


def draw_arena(
    axes: "Axes",
    arena_map: ArenaMap,
    microphones_mm: Sequence[Sequence[float]] | None,
    locations_KD: npt.NDArray[np.floating[Any]] | None,
) -> None:
    """Draw floor, microphones with their numbers, keypoints and an arrow from the second to the first.

    Args:
        axes: Of the aspect of the map.
        arena_map: What is shown.
        microphones_mm: One (x, y, z) a channel; None where unknown.
        locations_KD: mm; None where there are none. A point beyond the map is an open marker at its edge.
    """
    from matplotlib.patches import Rectangle

    width_mm, depth_mm = arena_map.arena_mm
    reach_x_mm, reach_y_mm = arena_map.half_widths_mm
    axes.set_xlim(-reach_x_mm, reach_x_mm)
    axes.set_ylim(-reach_y_mm, reach_y_mm)
    axes.set_aspect("equal")
    corner = (-width_mm / 2, -depth_mm / 2)
    axes.add_patch(
        Rectangle(corner, width_mm, depth_mm, facecolor=FLOOR_COLOR, edgecolor=_WALL, lw=1.0)
    )
    for side in axes.spines.values():
        side.set_visible(False)
    axes.locator_params(nbins=5)
    axes.set_xlabel("x (mm)", size=8.5, color=_WALL, labelpad=2)
    axes.set_ylabel("y (mm)", size=8.5, color=_WALL, labelpad=1)
    if microphones_mm is not None:
        _draw_microphones(axes, microphones_mm)
    if locations_KD is not None:
        _draw_keypoints(axes, arena_map, locations_KD)


def _draw_microphones(axes: "Axes", microphones_mm: Sequence[Sequence[float]]) -> None:
    is_few = len(microphones_mm) <= _FEW_MICROPHONES
    for channel, (x_mm, y_mm, *_) in enumerate(microphones_mm):
        size = 11 if is_few else 9
        axes.plot(x_mm, y_mm, "o", ms=size, mfc=_INK, mec="white", mew=0.6, clip_on=False, zorder=3)
        axes.annotate(
            str(channel),
            (x_mm, y_mm),
            ha="center",
            va="center_baseline",
            size=7.0 if is_few else 5.5,
            color="white",
            annotation_clip=False,
            zorder=3.5,
        )


def _draw_keypoints(
    axes: "Axes", arena_map: ArenaMap, locations_KD: npt.NDArray[np.floating[Any]]
) -> None:
    shown = [arena_map.show(location) for location in locations_KD]
    for k, point in enumerate(shown):
        if point is None:
            continue
        marker, colour = marker_of(k)
        axes.plot(
            point.x_mm,
            point.y_mm,
            marker,
            ms=6.5 if k == 0 else 5.5,
            mfc=colour if point.is_inside else "white",
            mec="white" if point.is_inside else colour,
            mew=0.8 if point.is_inside else 1.6,
            clip_on=False,
            # The first is the one that matters most.
            zorder=6 - k / max(len(shown), 1),
        )
    if len(shown) > 1 and shown[0] is not None and shown[1] is not None:
        axes.annotate(
            "",
            xy=(shown[0].x_mm, shown[0].y_mm),
            xytext=(shown[1].x_mm, shown[1].y_mm),
            arrowprops={
                "arrowstyle": "-|>",
                "color": _INK,
                "lw": 1.2,
                "shrinkA": 0,
                "shrinkB": 3,
                "mutation_scale": 8,
            },
            annotation_clip=False,
            zorder=7,
        )
