"""Letters: B batch, K keypoints, Y rows and X columns of a map, V rows and U columns of a head's grid."""

import math

import numpy as np
import pytest
import torch

from gerbil_tune.config.architectures import SrpNetConfig
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.architecture import OutputShape
from gerbil_tune.models.features.features import Features, InputShapes
from gerbil_tune.models.srp_net import SrpNet

SETUP = RecordingSetup(4, 50_000.0, (240.0, 160.0))
MAP_SHAPE, MAP_EXTENT_MM = (8, 12), (-120.0, 120.0, -80.0, 80.0)
GRID_SHAPE, GRID_EXTENT_MM = (10, 14), (-140.0, 140.0, -100.0, 100.0)
SAME_GRID = OutputShape(2 * 8 * 12, MAP_SHAPE, MAP_EXTENT_MM)
WIDER_GRID = OutputShape(2 * 10 * 14, GRID_SHAPE, GRID_EXTENT_MM)
SMALL = SrpNetConfig(num_channels=8, num_blocks=2, kernel_size=3, hidden=16)
HEADS = {"gaussian": OutputShape(5), "same grid": SAME_GRID, "wider grid": WIDER_GRID}

every_head = pytest.mark.parametrize("outputs", HEADS.values(), ids=HEADS)


def make_shapes(map_shape=MAP_SHAPE, map_planes=3, map_extent_mm=MAP_EXTENT_MM):
    return InputShapes(4, 1000, 6, 101, map_planes, map_shape, map_extent_mm)


def make_network(outputs, config=SMALL, **shapes):
    torch.manual_seed(0)
    return SrpNet(config, SETUP, make_shapes(**shapes), outputs)


def make_maps(num_events=3, shape=MAP_SHAPE, seed=1):
    generator = torch.Generator().manual_seed(seed)
    maps_BFYX = torch.randn(num_events, 3, *shape, generator=generator)
    return Features(torch.full((num_events,), 500), maps_BFYX=maps_BFYX)


def centres_mm(size, low_mm, high_mm):
    return low_mm + (np.arange(size) + 0.5) * (high_mm - low_mm) / size


@every_head
def test_one_row_of_outputs_an_event(outputs):
    assert make_network(outputs)(make_maps()).shape == (3, outputs.num_outputs)


@every_head
def test_events_do_not_depend_on_each_other(outputs):
    network, maps = make_network(outputs).eval(), make_maps()
    together = network(maps)
    for event in range(3):
        alone = network(maps.rows(slice(event, event + 1)))
        torch.testing.assert_close(alone[0], together[event], rtol=1e-5, atol=1e-5)


@every_head
def test_gradient_reaches_every_parameter(outputs):
    network = make_network(outputs)
    raw = network(make_maps())
    (raw * torch.randn(raw.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
    assert [name for name, p in network.named_parameters() if not p.grad.any()] == []


@every_head
def test_runs_on_the_meta_device(outputs):
    with torch.device("meta"):
        network = make_network(outputs)
        features = make_shapes().empty(SrpNet.uses, 2, 500)
        assert network(features).shape == (2, outputs.num_outputs)


@every_head
def test_autocast_is_near_float32(outputs):
    network, maps = make_network(outputs).eval(), make_maps()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        raw = network(maps)
    torch.testing.assert_close(raw.float(), network(maps), rtol=0.05, atol=0.05)


@every_head
def test_stochastic_depth_acts_in_training_alone(outputs):
    config = SMALL.model_copy(update={"stochastic_depth": 0.9, "num_blocks": 4})
    network, maps = make_network(outputs, config), make_maps(16)
    assert not torch.equal(network(maps), network(maps))
    network.eval()
    assert torch.equal(network(maps), network(maps))


def scores_of(network, outputs, scores_BKYX):
    """What becomes of the scores of its readout, which here are the maps themselves."""
    num_images = scores_BKYX.shape[1]
    with torch.no_grad():
        network.readout.bias.zero_()
        network.readout.weight.zero_()[:, -num_images:, 0, 0] = torch.eye(num_images)
        lengths_B = torch.full((len(scores_BKYX),), 500)
        raw = network(Features(lengths_B, maps_BFYX=scores_BKYX))
    return raw.unflatten(1, (num_images, *outputs.grid_shape))


def test_scores_of_the_maps_own_grid_pass_unchanged():
    scores_BKYX = torch.randn(3, 2, *MAP_SHAPE, generator=torch.Generator().manual_seed(3))
    raw = scores_of(make_network(SAME_GRID, map_planes=2), SAME_GRID, scores_BKYX)
    torch.testing.assert_close(raw, scores_BKYX, rtol=0, atol=0)


def plane_mm(shape, extent_mm):
    """A plane over the arena: 0.5 x - 2 y."""
    y_Y = centres_mm(shape[0], *extent_mm[2:])
    x_X = centres_mm(shape[1], *extent_mm[:2])
    return torch.tensor(0.5 * x_X - 2.0 * y_Y[:, None], dtype=torch.float32)


@pytest.mark.parametrize(
    ("grid_shape", "extent_mm"),
    [
        ((5, 9), (-90.0, 90.0, -60.0, 60.0)),
        ((31, 17), (-40.0, 110.0, -65.0, 0.0)),
        ((16, 24), (-110.0, 110.0, -70.0, 70.0)),
    ],
    ids=["coarser", "aside", "finer"],
)
def test_a_plane_is_the_same_plane_where_the_heads_cells_lie(grid_shape, extent_mm):
    outputs = OutputShape(int(np.prod(grid_shape)), grid_shape, extent_mm)
    scores_YX = plane_mm(MAP_SHAPE, MAP_EXTENT_MM)
    raw = scores_of(make_network(outputs, map_planes=1), outputs, scores_YX[None, None])
    torch.testing.assert_close(raw[0, 0], plane_mm(grid_shape, extent_mm), rtol=0, atol=1e-3)


def test_beyond_the_maps_a_score_is_that_of_the_nearest_cell():
    scores_YX = torch.randn(MAP_SHAPE, generator=torch.Generator().manual_seed(4))
    outputs = OutputShape(10 * 14, GRID_SHAPE, GRID_EXTENT_MM)
    raw_VU = scores_of(make_network(outputs, map_planes=1), outputs, scores_YX[None, None])[0, 0]
    # Cells of 20 mm: the grid has one more on each side, otherwise its cells are the maps'.
    torch.testing.assert_close(raw_VU[1:-1, 1:-1], scores_YX)
    torch.testing.assert_close(raw_VU[0, 1:-1], scores_YX[0])
    torch.testing.assert_close(raw_VU[1:-1, -1], scores_YX[:, -1])


def test_without_extents_grids_cover_the_same_ground():
    outputs = OutputShape(16 * 24, (16, 24))
    scores_YX = plane_mm(MAP_SHAPE, MAP_EXTENT_MM)
    network = make_network(outputs, map_planes=1, map_extent_mm=None)
    raw_VU = scores_of(network, outputs, scores_YX[None, None])[0, 0]
    expected_VU = plane_mm((16, 24), MAP_EXTENT_MM)
    torch.testing.assert_close(raw_VU[1:-1, 1:-1], expected_VU[1:-1, 1:-1], rtol=0, atol=1e-3)


def test_attention_tells_where_a_map_looks_and_how_widely():
    """The first attention map is made a Gaussian: its moments are known."""
    shape, mean, sd = (60, 80), (0.3, -0.2), (0.1, 0.15)
    network = make_network(OutputShape(5), map_shape=shape)
    x_X, y_Y = centres_mm(80, -1, 1), centres_mm(60, -1, 1)[:, None]
    logits_YX = -0.5 * (((x_X - mean[0]) / sd[0]) ** 2 + ((y_Y - mean[1]) / sd[1]) ** 2)
    channels_BCYX = torch.zeros(1, 11, *shape)
    channels_BCYX[0, 0] = torch.tensor(logits_YX)
    with torch.no_grad():
        network.summary.attention.weight.zero_()[0, 0] = 1.0
    found_A = attended(network, channels_BCYX)
    # A hundredth is added to the spread, in squares.
    expected = torch.tensor([*mean, *(math.hypot(s, 0.01) for s in sd), 0.0])
    torch.testing.assert_close(found_A[0], expected, rtol=0, atol=2e-3)


def attended(network, channels_BCYX):
    """Mean place, spread and covariance of each attention map, (A, 5), of one event."""
    seen = []
    hook = network.summary.hidden.register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0])
    )
    network.summary(channels_BCYX)
    hook.remove()
    return seen[0][0].unflatten(0, (4, -1))[:, :5]


def test_at_first_the_sharpest_attention_map_looks_at_the_peak():
    network = make_network(OutputShape(5))
    channels_BCYX = torch.zeros(1, 8 + 3, *MAP_SHAPE)
    channels_BCYX[0, 8:, 6, 3] = 4.0
    found_A = attended(network, channels_BCYX)
    expected = torch.tensor([(3 + 0.5) / 12 * 2 - 1, (6 + 0.5) / 8 * 2 - 1])
    torch.testing.assert_close(found_A[-1, :2], expected, rtol=0, atol=0.01)
    assert (found_A[:, 2:4].sum(1).diff() < 0).all(), "the others are flatter, in order"


@every_head
def test_it_can_tell_places_by_the_maps_alone(outputs):
    """Equal peaks at two places give different outputs, whichever head reads them."""
    maps_BFYX = torch.zeros(2, 3, *MAP_SHAPE)
    maps_BFYX[0, :, 2, 3] = maps_BFYX[1, :, 5, 8] = 4.0
    raw = make_network(outputs)(Features(torch.full((2,), 500), maps_BFYX=maps_BFYX))
    assert (raw[0] - raw[1]).abs().max() > 0.02


def test_the_default_has_some_250_000_parameters():
    network = make_network(OutputShape(5), SrpNetConfig())
    assert 200_000 < sum(p.numel() for p in network.parameters()) < 300_000
