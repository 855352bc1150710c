"""The arena as a box in the frame of locations, and cells that divide it."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gerbil_tune.geometry import RecordingSetup

_WHOLE_CELLS = 1e-9  # of a cell: a width that is a multiple of cell_mm is no cell more
Edges = tuple[float, float]


def arena_edges_mm(setup: RecordingSetup) -> tuple[Edges, ...]:
    """Where the arena begins and ends on each axis; x and y from its centre, z from the floor.

    Where the height is not known, the arena's longest width stands for it.
    """
    widths_mm = [*setup.arena_mm, max(setup.arena_mm)][: setup.num_axes]
    flat = [(-width / 2, width / 2) for width in widths_mm[:2]]
    return *flat, *((0.0, height) for height in widths_mm[2:])


def num_cells(edges_mm: Edges, cell_mm: float) -> int:
    """How many equal cells, at most ``cell_mm`` wide, fill an axis."""
    return max(1, math.ceil((edges_mm[1] - edges_mm[0]) / cell_mm - _WHOLE_CELLS))


def cell_centres_mm(edges_mm: Sequence[Edges], counts: Sequence[int]) -> Tensor:
    """Centres of equal cells, (product of counts, D) float32.

    Args:
        edges_mm: Of each axis.
        counts: Cells on each axis; the first axis changes fastest, the last slowest, all ascending.
    """
    axes = [
        low + (torch.arange(count, dtype=torch.float64) + 0.5) * ((high - low) / count)
        for (low, high), count in zip(edges_mm, counts, strict=True)
    ]
    return torch.cartesian_prod(*axes[::-1]).flip(1).float()
