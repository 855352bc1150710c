import pytest
import torch

from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.arena import arena_edges_mm, cell_centres_mm, num_cells


@pytest.mark.parametrize(
    ("arena_mm", "num_axes", "height_mm"),
    [((572.0, 366.0, 300.0), 2, None), ((572.0, 366.0, 300.0), 3, 300.0), ((366.0, 572.0), 3, 572.0)],
)  # fmt: skip
def test_floor_is_about_its_centre_and_height_from_the_floor(arena_mm, num_axes, height_mm):
    edges = arena_edges_mm(RecordingSetup(4, 125e3, arena_mm, num_axes=num_axes))
    assert edges[:2] == tuple((-width / 2, width / 2) for width in arena_mm[:2])
    assert edges[2:] == (() if height_mm is None else ((0.0, height_mm),))


@pytest.mark.parametrize(("width_mm", "count"), [(1.0, 1), (40.0, 1), (40.1, 2), (120.0, 3)])
def test_cells_are_no_wider_than_asked(width_mm, count):
    assert num_cells((-width_mm / 2, width_mm / 2), 40.0) == count


def test_first_axis_of_centres_is_the_fastest():
    centres = cell_centres_mm([(-30.0, 30.0), (0.0, 40.0)], [3, 2])
    expected = [[-20.0, 10], [0, 10], [20, 10], [-20, 30], [0, 30], [20, 30]]
    torch.testing.assert_close(centres, torch.tensor(expected))
