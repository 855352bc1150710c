"""What sets the Gaussian heads apart; what all heads promise is in tests/contracts/test_heads.py."""

import math

import numpy as np
import pytest
import torch

from gerbil_tune.config.heads import (
    GaussianFixedConfig,
    GaussianFullConfig,
    GaussianJointConfig,
    GaussianSphericalConfig,
    PointConfig,
)
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.heads.registry import build_head


def make_head(config, num_keypoints=1, num_axes=2):
    keypoints = ("nose", "head", "tail")[:num_keypoints]
    setup = RecordingSetup(4, 125e3, (572.0, 366.0, 400.0), keypoints=keypoints, num_axes=num_axes)
    return build_head(config, setup)


def softplus(value):
    return math.log1p(math.exp(value))


def test_lower_triangle_is_read_row_by_row():
    head = make_head(GaussianFullConfig(min_sd_mm=1e-9), num_axes=3)
    raw = torch.tensor([[0.0, 0, 0, 1, 2, 3, 4, 5, 6]])
    tril = head(raw, torch.ones(3)).scale_tril_mm_BKMDD[0, 0, 0]
    expected = [[softplus(1), 0, 0], [2, softplus(3), 0], [4, 5, softplus(6)]]
    torch.testing.assert_close(tril, torch.tensor(expected))


def test_joint_raw_outputs_are_all_means_then_one_triangle():
    """vocalocator's GAUSSIAN_4D_ORIENTED: 14 numbers, x and y of node 0, of node 1, the triangle."""
    head = make_head(GaussianJointConfig(min_sd_mm=1e-9), num_keypoints=2)
    assert head.num_outputs == 14
    raw = torch.arange(14.0)[None] / 10
    density = head(raw, torch.tensor([100.0, 200.0]))
    torch.testing.assert_close(density.mean_mm_BKD, torch.tensor([[[0.0, 20.0], [20.0, 60.0]]]))
    rows, columns = np.tril_indices(4)
    tril = torch.zeros(4, 4)
    tril[rows, columns] = raw[0, 4:]
    tril.diagonal().copy_(torch.nn.functional.softplus(tril.diagonal()))
    tril = torch.tensor([100.0, 200.0, 100.0, 200.0])[:, None] * tril
    torch.testing.assert_close(density.joint_scale_tril_mm_BEE[0], tril)
    assert make_head(GaussianJointConfig(), num_keypoints=2, num_axes=3).num_outputs == 27


def test_joint_density_of_raw_outputs_is_that_of_a_multivariate_normal():
    head = make_head(GaussianJointConfig(), num_keypoints=2, num_axes=3)
    generator = torch.Generator().manual_seed(0)
    raw = torch.randn(6, head.num_outputs, generator=generator)
    density = head(raw, torch.tensor([286.0, 183.0, 150.0]))
    places = 300 * torch.rand(6, 2, 3, generator=generator)
    expected = torch.distributions.MultivariateNormal(
        density.mean_mm_BKD.flatten(1).double(),
        scale_tril=density.joint_scale_tril_mm_BEE.double(),
    ).log_prob(places.flatten(1).double())
    torch.testing.assert_close(
        density.log_density_BK(places).sum(1).double(), expected, rtol=1e-4, atol=1e-4
    )


def test_covariance_scales_with_the_units_of_both_axes():
    """S = A L (A L)^T, so a rotation of network units does not mix axes of different size."""
    head = make_head(GaussianFullConfig(min_sd_mm=1e-9))
    raw = torch.randn(5, 5, generator=torch.Generator().manual_seed(0))
    units = torch.tensor([286.0, 183.0])
    in_units = head(raw, torch.ones(2)).covariance_mm2_BKDD
    in_mm = head(raw, units).covariance_mm2_BKDD
    torch.testing.assert_close(in_mm, in_units * units[:, None] * units[None, :])


@pytest.mark.parametrize("units", [(286.0, 183.0), (1000.0, 1000.0)])
@pytest.mark.parametrize(
    ("config", "sd_mm"), [(GaussianFixedConfig(sd_mm=20.0), 20.0), (PointConfig(), 366.0 / 4)]
)
def test_constant_standard_deviation_is_in_mm_whatever_a_unit_is(units, config, sd_mm):
    """The predecessors made 239 mm of 20 mm: they divided a variance by a width."""
    density = make_head(config)(torch.tensor([[0.5, -0.5]]), torch.tensor(units))
    expected = (sd_mm**2 * torch.eye(2))[None, None]
    torch.testing.assert_close(density.covariance_mm2_BKDD, expected, rtol=2e-6, atol=0)
    torch.testing.assert_close(density.mean_mm_BKD, torch.tensor([[[units[0] / 2, -units[1] / 2]]]))


@pytest.mark.parametrize("raw_sd", [-1e4, -50.0, 0.0])
@pytest.mark.parametrize(
    "config", [GaussianFullConfig, GaussianJointConfig, GaussianSphericalConfig]
)
def test_standard_deviation_is_at_least_the_smallest(raw_sd, config):
    head = make_head(config(min_sd_mm=1.0))
    raw = torch.full((1, head.num_outputs), raw_sd)
    if head.num_outputs == 5:
        raw[:, 3] = 0.0
    density = head(raw, torch.full((2,), 286.0))
    sd_mm = density.covariance_mm2_BKDD.diagonal(dim1=-2, dim2=-1).sqrt()
    assert (sd_mm >= 1.0).all()
    assert density.log_density_BK(torch.zeros(1, 1, 2)).isfinite().all()


@pytest.mark.parametrize("num_axes", [2, 3])
@pytest.mark.parametrize("size_mm", [1e2, 1e5, 1e12])
def test_covariance_is_positive_definite_however_narrow(num_axes, size_mm):
    """A network that diverges states needles; rounding to float32 would leave them no width at all."""
    head = make_head(GaussianFullConfig(min_sd_mm=1.0), num_axes=num_axes)
    generator = torch.Generator().manual_seed(0)
    raw = torch.randn(500, head.num_outputs, generator=generator)
    raw[:, num_axes + torch.tensor([0, 2, 5][:num_axes])] = -100.0
    density = head(raw, torch.full((num_axes,), size_mm))
    np.linalg.cholesky(density.covariance_mm2_BKDD.double().numpy())
    density = head(raw.clamp_min(0.0), torch.full((num_axes,), 286.0))
    exact = density.scale_tril_mm_BKMDD[:, :, 0].double()
    torch.testing.assert_close(
        density.covariance_mm2_BKDD.double(), exact @ exact.mT, rtol=1e-5, atol=1e-2
    )


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_gradient_outside_the_arena_points_back(axis, side):
    raw = torch.zeros(1, 5)
    raw[0, axis] = 5.0 * side
    raw.requires_grad_()
    density = make_head(GaussianFullConfig())(raw, torch.full((2,), 286.0))
    (-density.log_density_BK(torch.zeros(1, 1, 2))).sum().backward()
    assert raw.grad[0, axis] * side > 0.1


def test_first_output_is_the_wanted_standard_deviation_at_the_centre():
    head = make_head(GaussianFullConfig(min_sd_mm=1e-9), num_keypoints=2, num_axes=3)
    readout = torch.nn.Linear(7, head.num_outputs)
    units = torch.tensor([286.0, 183.0, 1.0])
    head.initialize_readout(readout, 91.5 / units)
    density = head(readout(torch.zeros(4, 7)), units)
    torch.testing.assert_close(density.mean_mm_BKD, torch.zeros(4, 2, 3))
    sd = torch.diag_embed(torch.full((4, 2, 3), 91.5))
    torch.testing.assert_close(density.scale_tril_mm_BKMDD[:, :, 0], sd)
