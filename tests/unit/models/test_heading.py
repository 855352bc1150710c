"""Letters: B batch, D axes, E all axes of all keypoints."""

import math

import pytest
import torch

from gerbil_tune.models.density import JointDensity
from gerbil_tune.models.event_noise import EventNoise
from gerbil_tune.models.heading import Heading, heading


def make_joint(keypoints=2, num_axes=2, batch=4):
    generator = torch.Generator().manual_seed(0)
    size = keypoints * num_axes
    tril = 8 * torch.randn(batch, size, size, generator=generator).tril(-1) + 20 * torch.eye(size)
    mean = 50 * torch.randn(batch, keypoints, num_axes, generator=generator)
    return JointDensity.joint_gaussian(mean.double(), tril.double())


@pytest.mark.parametrize(("keypoints", "num_axes"), [(2, 2), (3, 2), (2, 3)])
def test_the_vector_between_keypoints_has_their_joint_covariance(keypoints, num_axes):
    density = make_joint(keypoints, num_axes)
    back = keypoints - 1
    found = heading(density, front=0, back=back)
    draws = density.sample(40_000, EventNoise.counted(len(density.log_weights_BKM), 3))
    vectors = (draws[:, :, 0] - draws[:, :, back])[..., :2]
    error = (vectors.mean(0) - found.vector_mm_B2).abs()
    assert (error < 6 * vectors.std(0) / 200).all()
    for event, covariance in enumerate(found.covariance_mm2_B22):
        torch.testing.assert_close(vectors[:, event].T.cov(), covariance, rtol=0.05, atol=30.0)


@pytest.mark.parametrize("angle", [0.0, 0.5, math.pi / 2, 3.0, -2.0])
def test_angle_is_from_the_back_to_the_front(angle):
    back = torch.tensor([30.0, -20.0])
    front = back + 40 * torch.tensor([math.cos(angle), math.sin(angle)])
    density = JointDensity.joint_gaussian(torch.stack([front, back])[None], torch.eye(4)[None])
    found = heading(density, front=0, back=1).angle_rad_B
    torch.testing.assert_close(found, torch.tensor([angle]))


def integrated(found, angle, *, farthest):
    """Log density at an angle, by summing the Gaussian times r over the radius."""
    radius = torch.linspace(0.0, farthest, 20_001, dtype=torch.float64)
    places = radius[:, None] * torch.stack([angle.cos(), angle.sin()])
    normal = torch.distributions.MultivariateNormal(
        found.vector_mm_B2[0], covariance_matrix=found.covariance_mm2_B22[0]
    )
    log_mass = normal.log_prob(places)[1:] + radius[1:].log()
    return log_mass.logsumexp(0) + math.log(farthest / 20_000)


@pytest.mark.parametrize("mean", [(0.0, 0.0), (30.0, -10.0), (200.0, 90.0)])
@pytest.mark.parametrize("angle", [0.4, -0.35, 2.0, -3.0])
def test_log_density_is_the_integral_over_the_radius(mean, angle):
    found = Heading(
        torch.tensor([mean], dtype=torch.float64),
        torch.tensor([[[400.0, 150.0], [150.0, 200.0]]], dtype=torch.float64),
    )
    angle_B = torch.tensor([angle], dtype=torch.float64)
    expected = integrated(found, angle_B[0], farthest=500.0)
    torch.testing.assert_close(found.log_density_B(angle_B)[0], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("distance", [0.0, 1.0, 30.0, 49.0, 51.0, 1000.0])
def test_density_over_the_circle_is_one_and_finite_everywhere(distance):
    found = Heading(
        torch.tensor([[distance, 0.0]], dtype=torch.float64),
        torch.eye(2, dtype=torch.float64)[None],
    )
    angles = torch.arange(-10_000, 10_000, dtype=torch.float64) * (math.pi / 10_000)
    log_density = found.log_density_B(angles[:, None])[:, 0]
    assert log_density.isfinite().all()
    mass = log_density.exp().mean() * 2 * math.pi
    torch.testing.assert_close(mass, torch.ones((), dtype=torch.float64), rtol=1e-9, atol=0)


def test_density_opposite_to_a_sure_heading_joins_its_series_smoothly():
    """Where the mean is fifty standard deviations behind, the formula changes to a series."""
    means = torch.tensor([49.999, 50.001], dtype=torch.float64)
    found = Heading(
        torch.stack([means, torch.zeros(2, dtype=torch.float64)], 1),
        torch.eye(2, dtype=torch.float64).expand(2, 2, 2),
    )
    opposite = found.log_density_B(torch.tensor(math.pi, dtype=torch.float64))
    # exp(-d² / 2) / (2 pi) times 1 / d² and smaller terms
    exact = -means.square() / 2 - math.log(2 * math.pi) - 2 * means.log()
    torch.testing.assert_close(opposite - exact, torch.full_like(exact, -0.0012), rtol=0.01, atol=0)
