"""Letters: B batch, K keypoints, D axes."""

import math

import pytest
import torch
from torch.distributions import Wishart

from gerbil_tune.config.losses import LossConfig
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.density import JointDensity, LocationDensity
from gerbil_tune.models.losses import make_loss, wishart_penalty

ARENA_MM = (560.0, 360.0, 300.0)
REFERENCE_MM = 90.0  # a quarter of the smallest width of two axes
AREA_MM2 = 560.0 * 360.0


def loss_of(density, locations, **config):
    num_keypoints, num_axes = locations.shape[1:]
    keypoints = ("nose", "head", "tail")[:num_keypoints]
    setup = RecordingSetup(4, 125e3, ARENA_MM[:num_axes], keypoints=keypoints, num_axes=num_axes)
    return make_loss(LossConfig(**config), setup).to(locations.dtype)(density, locations)


def make_density(batch=3, keypoints=2, num_axes=2, components=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, keypoints, components)
    tril = 10 * torch.randn(*shape, num_axes, num_axes, generator=generator).tril(-1)
    sd = 20 + 30 * torch.rand(*shape, num_axes, generator=generator)
    means = 60 * torch.randn(*shape, num_axes, generator=generator)
    weights = torch.randn(shape, generator=generator).log_softmax(-1)
    return LocationDensity(weights, means, tril + torch.diag_embed(sd)).to(dtype=torch.float64)


def make_joint(batch=3, keypoints=2):
    generator = torch.Generator().manual_seed(1)
    size = 2 * keypoints
    tril = 10 * torch.randn(batch, size, size, generator=generator).tril(-1) + 25 * torch.eye(size)
    mean = 60 * torch.randn(batch, keypoints, 2, generator=generator)
    return JointDensity.joint_gaussian(mean.double(), tril.double())


def make_places(density, scale_mm=80.0):
    generator = torch.Generator().manual_seed(7)
    shape = density.mean_mm_BKD.shape
    return scale_mm * torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("make", [make_density, make_joint])
def test_nll_is_minus_the_mean_log_density(make):
    density = make()
    places = make_places(density)
    expected = -density.log_density_BK(places).mean(1)
    torch.testing.assert_close(loss_of(density, places), expected)


@pytest.mark.parametrize("options", [{}, {"kind": "squared"}, {"kind": "huber"},
                                     {"label_noise": 0.1, "label_smoothing": 0.1,
                                      "covariance_prior": 1.0}])  # fmt: skip
@pytest.mark.parametrize("num_axes", [2, 3])
def test_loss_is_one_number_an_event_in_the_type_of_the_density(options, num_axes):
    density = make_density(num_axes=num_axes, components=3).to(dtype=torch.float32)
    losses = loss_of(density, make_places(density).float(), **options)
    assert losses.shape == (3,)
    assert losses.dtype == torch.float32


@pytest.mark.parametrize("components", [1, 3])
def test_squared_error_is_over_the_square_of_a_quarter_of_the_arena(components):
    density = make_density(components=components)
    places = make_places(density)
    squared_mm2 = (density.mean_mm_BKD - places).square().sum(-1)
    expected = squared_mm2.mean(1) / (2 * REFERENCE_MM**2)
    torch.testing.assert_close(loss_of(density, places, kind="squared"), expected)


def test_squared_error_is_the_nll_of_a_fixed_gaussian_but_for_a_constant():
    density = make_density()
    places = make_places(density)
    fixed = LocationDensity.gaussian(
        density.mean_mm_BKD,
        REFERENCE_MM * torch.eye(2, dtype=torch.float64).expand(3, 2, 2, 2),
    )
    constant = math.log(2 * math.pi * REFERENCE_MM**2)
    expected = loss_of(fixed, places) - constant
    torch.testing.assert_close(loss_of(density, places, kind="squared"), expected)


@pytest.mark.parametrize(
    ("distance_mm", "expected_mm2"),
    [(0.0, 0.0), (12.0, 72.0), (20.0, 200.0), (50.0, 20 * (50 - 10)), (1e6, 20 * (1e6 - 10))],
)
def test_huber_loss_is_squared_up_to_its_distance_then_linear(distance_mm, expected_mm2):
    direction = torch.tensor([0.6, -0.8], dtype=torch.float64)
    mean = (distance_mm * direction)[None, None].requires_grad_()
    density = LocationDensity.gaussian(mean, torch.eye(2, dtype=torch.float64)[None, None])
    places = torch.zeros(1, 1, 2, dtype=torch.float64)
    losses = loss_of(density, places, kind="huber", huber_mm=20.0)
    expected = torch.tensor([expected_mm2], dtype=torch.float64) / REFERENCE_MM**2
    torch.testing.assert_close(losses, expected)
    losses.sum().backward()
    slope = min(distance_mm, 20.0) / REFERENCE_MM**2
    torch.testing.assert_close(mean.grad[0, 0], slope * direction)


def test_label_noise_adds_a_uniform_density_over_the_arena():
    density = make_density(keypoints=1)
    places = make_places(density)
    likelihood = density.log_density_BK(places).exp()[:, 0]
    expected = -(0.9 * likelihood + 0.1 / AREA_MM2).log()
    torch.testing.assert_close(loss_of(density, places, label_noise=0.1), expected)


def test_label_noise_of_a_joint_density_is_of_all_keypoints_together():
    density = make_joint()
    places = make_places(density)
    likelihood = density.log_density_BK(places).sum(1).exp()
    expected = -(0.9 * likelihood + 0.1 / AREA_MM2**2).log() / 2
    torch.testing.assert_close(loss_of(density, places, label_noise=0.1), expected)


def test_label_noise_bounds_the_loss_and_the_pull_of_a_wrong_label():
    density = make_density(keypoints=1)
    mean = density.means_mm_BKMD.clone().requires_grad_()
    built = LocationDensity(density.log_weights_BKM, mean, density.scale_tril_mm_BKMDD)
    far = loss_of(built, torch.full((3, 1, 2), 1e6, dtype=torch.float64), label_noise=0.1)
    bound = torch.full((3,), math.log(AREA_MM2 / 0.1), dtype=torch.float64)
    torch.testing.assert_close(far, bound)
    far.sum().backward()
    assert mean.grad.isfinite().all()


@pytest.mark.parametrize("make", [make_density, make_joint])
def test_label_smoothing_asks_in_part_for_places_all_over_the_arena(make):
    density = make()
    places = make_places(density)
    x_mm = torch.linspace(-224.0, 224.0, 5, dtype=torch.float64)
    y_mm = torch.linspace(-144.0, 144.0, 5, dtype=torch.float64)
    each = density.marginals() if isinstance(density, JointDensity) else density
    anywhere = torch.stack(
        [-each.log_density_BK(torch.stack([x, y]).expand(3, 2, 2)) for x in x_mm for y in y_mm]
    ).mean((0, 2))
    expected = 0.8 * -density.log_density_BK(places).mean(1) + 0.2 * anywhere
    torch.testing.assert_close(loss_of(density, places, label_smoothing=0.2), expected)


def test_label_smoothing_of_a_mean_is_least_nearer_to_the_centre():
    """Of a Gaussian of fixed spread the best mean is the label's, drawn e of the way to the centre."""
    label = torch.tensor([[[100.0, 50.0]]], dtype=torch.float64)
    mean = (0.8 * label).requires_grad_()
    density = LocationDensity.gaussian(mean, 30 * torch.eye(2, dtype=torch.float64)[None, None])
    loss_of(density, label, label_smoothing=0.2).sum().backward()
    torch.testing.assert_close(mean.grad, torch.zeros_like(label), rtol=0, atol=1e-12)


@pytest.mark.parametrize("num_axes", [2, 3])
def test_covariance_prior_is_a_wishart_distribution_but_for_a_constant(num_axes):
    sd_mm, degrees = 40.0, num_axes + 2
    scale = sd_mm**2 / degrees * torch.eye(num_axes, dtype=torch.float64)
    reference = Wishart(torch.tensor(float(degrees), dtype=torch.float64), covariance_matrix=scale)
    torch.testing.assert_close(reference.mean, sd_mm**2 * torch.eye(num_axes, dtype=torch.float64))
    covariance = make_density(batch=6, num_axes=num_axes).covariance_mm2_BKDD
    penalty = wishart_penalty(covariance, mean_variance_mm2=sd_mm**2)
    constant = penalty + reference.log_prob(covariance)
    torch.testing.assert_close(constant, constant.mean().expand_as(constant))
    assert penalty.std() > 0.1


@pytest.mark.parametrize("components", [1, 3])
def test_covariance_prior_is_added_with_its_weight(components):
    density = make_density(components=components)
    places = make_places(density)
    added = loss_of(density, places, covariance_prior=0.3, covariance_prior_sd_mm=25.0) - loss_of(
        density, places
    )
    penalty = wishart_penalty(density.covariance_mm2_BKDD, mean_variance_mm2=625.0)
    torch.testing.assert_close(added, 0.3 * penalty.mean(1))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"kind": "squared"},
        {"kind": "huber", "huber_mm": 60.0},
        {"label_noise": 0.2},
        {"label_smoothing": 0.2},
        {"covariance_prior": 0.5},
        {"label_noise": 0.1, "label_smoothing": 0.1, "covariance_prior": 0.5},
    ],
)
def test_gradients_are_those_of_finite_differences(options):
    density = make_density(batch=1, components=2)
    places = make_places(density)

    def losses(weights, means, tril):
        return loss_of(LocationDensity(weights, means, tril.tril()), places, **options)

    inputs = [density.log_weights_BKM, density.means_mm_BKMD, density.scale_tril_mm_BKMDD]
    assert torch.autograd.gradcheck(losses, [tensor.clone().requires_grad_() for tensor in inputs])


def test_loss_has_no_state():
    setup = RecordingSetup(4, 125e3, ARENA_MM[:2])
    assert not make_loss(LossConfig(label_smoothing=0.1), setup).state_dict()
