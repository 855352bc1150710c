"""The head against the predecessors' golden values, torch.distributions and its own promises."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from gerbil_tune.config.schema import (
    GaussianFullConfig,
    LocationGain,
    LocationIsotropic,
    LocationPerAxis,
)
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.heads import GaussianFullHead, GaussianPrediction
from gerbil_tune.models.scaling import LocationScale

ARENA_MM = (572.0, 366.0)
GOLDEN_RAW = torch.tensor([[0.25, -0.5, -1.0, 0.3, 0.2]])
GOLDEN_LOG_DENSITY = -0.720816  # at the network's (0.1, -0.2)


def make_head(num_keypoints=1, num_axes=2, min_sd_mm=1e-9):
    config = GaussianFullConfig(min_sd_mm=min_sd_mm)
    return GaussianFullHead(config, num_keypoints=num_keypoints, num_axes=num_axes)


def mm_per_unit(scaling):
    return LocationScale(scaling, RecordingSetup(4, 125_000.0, ARENA_MM)).mm_per_unit_D


def read_golden(scaling):
    """The golden raw numbers in mm, and their log density where it is known."""
    units = mm_per_unit(scaling)
    prediction = make_head()(GOLDEN_RAW, units)
    location_mm = torch.tensor([0.1, -0.2]) * units
    expected = GOLDEN_LOG_DENSITY - units.log().sum()
    return prediction, prediction.log_density_BK(location_mm[None, None]), expected


def test_vocalocators_golden_values():
    prediction, log_density, expected = read_golden(LocationIsotropic())
    torch.testing.assert_close(prediction.mean_mm_BKD, torch.tensor([[[71.5, -143.0]]]))
    covariance = torch.tensor([[[[8026.877, 7687.066], [7687.066, 59467.79]]]])
    torch.testing.assert_close(prediction.covariance_mm2_BKDD, covariance, rtol=1e-5, atol=0)
    torch.testing.assert_close(log_density, expected.reshape(1, 1), rtol=0, atol=2e-5)


def test_gerbilizers_golden_values():
    """Its mean is (357.5, 91.5) mm from the corner."""
    prediction, log_density, expected = read_golden(LocationPerAxis())
    corner_mm = torch.tensor(ARENA_MM) / 2
    torch.testing.assert_close(
        prediction.mean_mm_BKD + corner_mm, torch.tensor([[[357.5, 91.5]]]), rtol=1e-6, atol=0
    )
    covariance = torch.tensor([[[[8026.877, 4918.647], [4918.647, 24347.363]]]])
    torch.testing.assert_close(prediction.covariance_mm2_BKDD, covariance, rtol=1e-5, atol=0)
    torch.testing.assert_close(log_density, expected.reshape(1, 1), rtol=0, atol=2e-5)


def test_location_gain_is_units_over_millimetres():
    torch.testing.assert_close(mm_per_unit(LocationGain(gain=0.004)), torch.full((2,), 250.0))


@pytest.mark.parametrize("num_axes", [2, 3])
def test_log_density_is_that_of_a_multivariate_normal(num_axes):
    generator = torch.Generator().manual_seed(num_axes)
    head = make_head(num_keypoints=3, num_axes=num_axes, min_sd_mm=1.0)
    raw_BO = torch.randn(20, head.num_outputs, generator=generator)
    units = torch.tensor([286.0, 183.0, 150.0])[:num_axes]
    prediction = head(raw_BO, units)
    locations = (torch.rand(20, 3, num_axes, generator=generator) - 0.5) * 600
    expected = torch.distributions.MultivariateNormal(
        prediction.mean_mm_BKD.double(), scale_tril=prediction.scale_tril_mm_BKDD.double()
    ).log_prob(locations.double())
    torch.testing.assert_close(
        prediction.log_density_BK(locations), expected.float(), rtol=1e-4, atol=1e-4
    )


def test_lower_triangle_is_read_row_by_row():
    head = make_head(num_axes=3)
    raw = torch.tensor([[0.0, 0, 0, 1, 2, 3, 4, 5, 6]])
    tril = head(raw, torch.ones(3)).scale_tril_mm_BKDD[0, 0]

    def softplus(value):
        return math.log1p(math.exp(value))

    expected = [[softplus(1), 0, 0], [2, softplus(3), 0], [4, 5, softplus(6)]]
    torch.testing.assert_close(tril, torch.tensor(expected))


def test_covariance_scales_with_the_units_of_both_axes():
    """S = A L (A L)^T, so a rotation of network units does not mix axes of different size."""
    raw = torch.randn(5, 5, generator=torch.Generator().manual_seed(0))
    units = torch.tensor([286.0, 183.0])
    in_units = make_head()(raw, torch.ones(2)).covariance_mm2_BKDD
    in_mm = make_head()(raw, units).covariance_mm2_BKDD
    torch.testing.assert_close(in_mm, in_units * units[:, None] * units[None, :])


@pytest.mark.parametrize("raw_sd", [-1e4, -50.0, 0.0])
def test_standard_deviation_is_at_least_the_smallest(raw_sd):
    raw = torch.tensor([[0.0, 0.0, raw_sd, 0.0, raw_sd]], requires_grad=True)
    prediction = make_head(min_sd_mm=1.0)(raw, torch.full((2,), 286.0))
    sd_mm = prediction.covariance_mm2_BKDD.diagonal(dim1=-2, dim2=-1).sqrt()
    assert (sd_mm >= 1.0).all()
    assert prediction.log_density_BK(torch.zeros(1, 1, 2)).isfinite().all()


@pytest.mark.parametrize("num_axes", [2, 3])
@pytest.mark.parametrize("size_mm", [1e2, 1e5, 1e12])
def test_covariance_is_positive_definite_however_narrow(num_axes, size_mm):
    """A network that diverges states needles; rounding to float32 would leave them no width at all."""
    generator = torch.Generator().manual_seed(0)
    raw = torch.randn(500, make_head(num_axes=num_axes).num_outputs, generator=generator)
    diagonal = num_axes + torch.tensor([0, 2, 5][:num_axes])
    raw[:, diagonal] = -100.0
    head = make_head(num_axes=num_axes, min_sd_mm=1.0)
    prediction = head(raw, torch.full((num_axes,), size_mm))
    np.linalg.cholesky(prediction.covariance_mm2_BKDD.double().numpy())
    prediction = head(raw.clamp_min(0.0), torch.full((num_axes,), 286.0))
    exact = prediction.scale_tril_mm_BKDD.double()
    torch.testing.assert_close(
        prediction.covariance_mm2_BKDD.double(), exact @ exact.mT, rtol=1e-5, atol=1e-2
    )


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_gradient_outside_the_arena_points_back(axis, side):
    """Gerbilizer clamped the mean inside the likelihood: no gradient once it had left the arena."""
    raw = torch.zeros(1, 5)
    raw[0, axis] = 5.0 * side
    raw.requires_grad_()
    prediction = make_head()(raw, torch.full((2,), 286.0))
    (-prediction.log_density_BK(torch.zeros(1, 1, 2))).sum().backward()
    assert raw.grad[0, axis] * side > 0.1


def test_first_output_is_the_wanted_standard_deviation_at_the_centre():
    head = make_head(num_keypoints=2, num_axes=3, min_sd_mm=1e-9)
    readout = nn.Linear(7, head.num_outputs)
    weights = readout.weight.detach().clone()
    units = torch.tensor([286.0, 183.0, 1.0])
    head.initialize_readout(readout, 91.5 / units)
    prediction = head(readout(torch.zeros(4, 7)), units)
    torch.testing.assert_close(prediction.mean_mm_BKD, torch.zeros(4, 2, 3))
    sd = torch.diag_embed(torch.full((4, 2, 3), 91.5))
    torch.testing.assert_close(prediction.scale_tril_mm_BKDD, sd)
    factor = readout.weight.detach() / weights
    assert (factor > 0).all()
    assert (factor < 91.5 / 286.0).all()


def test_density_integrates_to_one_over_the_plane():
    prediction = GaussianPrediction(
        torch.tensor([[[10.0, -20.0]]]), torch.tensor([[[[30.0, 0.0], [15.0, 20.0]]]])
    )
    axis_mm = torch.arange(-250.0, 250.0, 2.0)
    grid_mm = torch.cartesian_prod(axis_mm, axis_mm)[:, None]
    mass = prediction.log_density_BK(grid_mm).exp().sum() * 2.0**2
    torch.testing.assert_close(mass, torch.tensor(1.0), rtol=1e-4, atol=0)


def test_raw_outputs_of_half_precision_are_read_in_float32():
    prediction = make_head()(GOLDEN_RAW.bfloat16(), torch.full((2,), 286.0))
    assert prediction.mean_mm_BKD.dtype == torch.float32
    assert prediction.scale_tril_mm_BKDD.dtype == torch.float32
