"""The arena, the microphones and what follows from where they stand.

Positions follow the frame of ``units``: millimetres, x and y from the arena centre, z from the floor.
"""

import itertools
import math
from dataclasses import asdict, dataclass
from typing import Any

_MIRROR_TOLERANCE_MM = 5.0


@dataclass(frozen=True, slots=True)
class RecordingSetup:
    """Everything about a recording site that a model depends on.

    Attributes:
        num_microphones: Channels of the audio.
        sample_rate_hz: Samples a second.
        arena_mm: Full widths, (x, y) or (x, y, z).
        microphones_mm: One (x, y, z) a channel, or None where unknown.
        keypoints: Names of the body points whose location is predicted, in order.
        num_axes: 2 or 3, the axes of a location.
    """

    num_microphones: int
    sample_rate_hz: float
    arena_mm: tuple[float, ...]
    microphones_mm: tuple[tuple[float, float, float], ...] | None = None
    keypoints: tuple[str, ...] = ("nose",)
    num_axes: int = 2

    def to_json(self) -> dict[str, Any]:
        """Return a dictionary that ``json`` can write and ``from_json`` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "RecordingSetup":
        """Rebuild a setup from ``to_json``."""
        microphones = values.get("microphones_mm")
        return cls(
            num_microphones=int(values["num_microphones"]),
            sample_rate_hz=float(values["sample_rate_hz"]),
            arena_mm=tuple(float(width) for width in values["arena_mm"]),
            microphones_mm=None
            if microphones is None
            else tuple((float(x), float(y), float(z)) for x, y, z in microphones),
            keypoints=tuple(values["keypoints"]),
            num_axes=int(values["num_axes"]),
        )


def microphone_pairs(num_microphones: int) -> tuple[tuple[int, int], ...]:
    """All unordered pairs of channels in the order (0,1), (0,2), ..., (1,2), ..."""
    return tuple(itertools.combinations(range(num_microphones), 2))


def longest_path_mm(setup: RecordingSetup) -> float:
    """Longest difference of path that two microphones can hear, in millimetres.

    It is the distance of the farthest two microphones where they are known, else the arena's diagonal.
    """
    if setup.microphones_mm is not None and len(setup.microphones_mm) > 1:
        return max(math.dist(a, b) for a, b in itertools.combinations(setup.microphones_mm, 2))
    return math.hypot(*setup.arena_mm)


def mirror_permutation(setup: RecordingSetup, axis: int) -> tuple[int, ...] | None:
    """Channel order that a mirror image of the arena would have recorded.

    Args:
        setup: The recording site.
        axis: 0 mirrors x, 1 mirrors y.

    Returns:
        For each channel the channel that stands at its mirror image, or None where the microphones are
        unknown or not symmetric within 5 mm.
    """
    if setup.microphones_mm is None:
        return None
    order = []
    for position in setup.microphones_mm:
        image = list(position)
        image[axis] = -image[axis]
        distances = [math.dist(image, other) for other in setup.microphones_mm]
        nearest = min(range(len(distances)), key=distances.__getitem__)
        if distances[nearest] > _MIRROR_TOLERANCE_MM:
            return None
        order.append(nearest)
    return tuple(order) if len(set(order)) == len(order) else None
