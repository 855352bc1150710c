"""Letters: B batch, K keypoints, F planes, Z levels, Y rows and X columns."""

import pytest
import torch
from torch import nn

from gerbil_tune.config.heads import GridConfig
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.heads.registry import build_head


def make_head(num_keypoints=1, num_axes=2, arena_mm=(300.0, 200.0, 90.0), **config):
    keypoints = ("nose", "head", "tail")[:num_keypoints]
    setup = RecordingSetup(4, 125e3, arena_mm[:num_axes], keypoints=keypoints, num_axes=num_axes)
    return build_head(GridConfig(**{"cell_mm": 40.0, "margin_mm": 10.0, **config}), setup)


def state_cell(head, *index):
    """The density that is sure of one cell, by its index among the raw outputs as images."""
    shape = (head.num_keypoints, -1, *head.output_shape.grid_shape)
    raw = torch.zeros(1, head.num_outputs)
    raw.reshape(shape)[index] = 1000.0
    return head(raw, torch.ones(head.centres_mm_MD.shape[1]))


def test_cells_divide_the_arena_and_its_margin_evenly():
    head = make_head()
    assert head.output_shape.grid_shape == (6, 8)  # 220 mm and 320 mm in cells of 40 mm at most
    assert head.output_shape.grid_extent_mm == (-160.0, 160.0, -110.0, 110.0)
    assert head.num_outputs == 48
    x_mm, y_mm = head.centres_mm_MD.reshape(6, 8, 2).unbind(-1)
    torch.testing.assert_close(x_mm, torch.linspace(-140.0, 140.0, 8).expand(6, 8))
    torch.testing.assert_close(y_mm, torch.linspace(-91.6667, 91.6667, 6)[:, None].expand(6, 8))


@pytest.mark.parametrize(
    ("index", "expected_mm"),
    [
        ((0, 0, 0, 0), (-140.0, -91.6667)),
        ((1, 0, 0, 7), (140.0, -91.6667)),
        ((1, 0, 5, 0), (-140.0, 91.6667)),
    ],
)
def test_rows_of_an_image_are_y_and_columns_are_x(index, expected_mm):
    density = state_cell(make_head(num_keypoints=2), *index)
    mean_mm = density.mean_mm_BKD[0, index[0]]
    torch.testing.assert_close(mean_mm, torch.tensor(expected_mm), rtol=1e-5, atol=1e-3)
    # The other keypoint is as it was.
    torch.testing.assert_close(
        density.mean_mm_BKD[0, 1 - index[0]], torch.zeros(2), rtol=0, atol=1e-3
    )


def test_further_images_are_levels_from_the_floor_up():
    head = make_head(num_keypoints=2, num_axes=3)
    assert head.num_outputs == 2 * 3 * 6 * 8  # 90 mm in levels of 30 mm
    for level, height_mm in enumerate((15.0, 45.0, 75.0)):
        density = state_cell(head, 1, level, 5, 7)
        expected = torch.tensor([140.0, 91.6667, height_mm])
        torch.testing.assert_close(density.mean_mm_BKD[0, 1], expected, rtol=1e-5, atol=1e-3)


def test_kernel_is_in_cells_as_they_are():
    density = state_cell(make_head(num_axes=3, kernel_cells=0.6), 0, 1, 2, 3)
    sd_mm = density.covariance_mm2_BKDD[0, 0].diagonal().sqrt()
    expected = 0.6 * torch.tensor([40.0, 220.0 / 6, 30.0])
    torch.testing.assert_close(sd_mm, expected, rtol=1e-5, atol=0)


def test_a_width_of_whole_cells_has_no_cell_more():
    head = make_head(arena_mm=(30.3, 19.9), cell_mm=0.1, margin_mm=0.0)
    assert head.output_shape.grid_shape == (199, 303)


def test_a_convolution_of_kernel_one_gives_the_raw_outputs():
    head = make_head(num_keypoints=2, num_axes=3)
    readout = nn.Conv2d(5, 6, 1)
    head.initialize_readout(readout, torch.ones(3))
    raw = readout(torch.zeros(2, 5, *head.output_shape.grid_shape)).flatten(1)
    density = head(raw, torch.ones(3))
    uniform = torch.full_like(density.log_weights_BKM, 1 / 144)
    torch.testing.assert_close(density.log_weights_BKM.exp(), uniform)
    assert readout.weight.abs().max() > 0


def test_all_events_share_the_centres():
    head = make_head(num_keypoints=2)
    density = head(torch.zeros(64, head.num_outputs), torch.ones(2))
    assert density.means_mm_BKMD.stride()[:2] == (0, 0)
    assert density.scale_tril_mm_BKMDD.stride()[:3] == (0, 0, 0)
