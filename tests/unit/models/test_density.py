"""Letters: B batch, K keypoints, M components, D axes, E all axes of all keypoints, S draws."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from gerbil_tune.models.cholesky import lower_factor
from gerbil_tune.models.density import JointDensity, LocationDensity
from gerbil_tune.models.event_noise import EventNoise

BOX_MM = torch.tensor([[-300.0, -200.0, 0.0], [300.0, 200.0, 250.0]], dtype=torch.float64)
every_number_of_axes = pytest.mark.parametrize("num_axes", [1, 2, 3, 6])


def make_factors(*shape, generator, low_mm=5.0):
    tril = 20 * torch.randn(*shape, generator=generator, dtype=torch.float64).tril(-1)
    diagonal = low_mm + 30 * torch.rand(shape[:-1], generator=generator, dtype=torch.float64)
    return tril + torch.diag_embed(diagonal)


def make_mixture(batch=2, keypoints=2, components=3, num_axes=2, background=False, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, keypoints, components)
    log_weights = torch.randn(*shape[:2], components + background, generator=generator).double()
    log_weights = log_weights.log_softmax(-1)
    means = 80 * torch.randn(*shape, num_axes, generator=generator, dtype=torch.float64)
    return LocationDensity(
        log_weights[..., :components],
        means,
        make_factors(*shape, num_axes, num_axes, generator=generator),
        log_weights[..., -1] if background else None,
        BOX_MM[:, :num_axes] if background else None,
    )


def make_joint(batch=3, keypoints=2, num_axes=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    size = keypoints * num_axes
    mean = 80 * torch.randn(batch, keypoints, num_axes, generator=generator, dtype=torch.float64)
    return JointDensity.joint_gaussian(mean, make_factors(batch, size, size, generator=generator))


def make_grid(batch=4, keypoints=2, log_weights=None):
    """Centres and kernel shared by all events, as of a head over a grid."""
    axis = torch.arange(-300.0, 301.0, 20.0)
    centres = torch.cartesian_prod(axis, axis)
    shape = (batch, keypoints, len(centres))
    if log_weights is None:
        log_weights = torch.randn(shape, generator=torch.Generator().manual_seed(3)) * 4
    kernel = torch.diag(torch.tensor([10.0, 8.0]))
    return LocationDensity(
        log_weights.log_softmax(-1), centres.expand(*shape, 2), kernel.expand(*shape, 2, 2)
    )


def as_torch(density):
    """The components alone, as torch.distributions knows them."""
    return MixtureSameFamily(
        Categorical(logits=density.log_weights_BKM, validate_args=False),
        MultivariateNormal(density.means_mm_BKMD, scale_tril=density.scale_tril_mm_BKMDD),
    )


def places_near(density, *lead):
    generator = torch.Generator().manual_seed(9)
    shape = (*lead, *density.means_mm_BKMD.shape[:2], density.num_axes)
    return 150 * torch.randn(shape, generator=generator, dtype=torch.float64)


@every_number_of_axes
@pytest.mark.parametrize("lead", [(), (5,), (2, 3)])
def test_log_density_is_that_of_a_mixture_of_multivariate_normals(num_axes, lead):
    density = make_mixture(num_axes=num_axes)
    places = places_near(density, *lead)
    torch.testing.assert_close(density.log_density_BK(places), as_torch(density).log_prob(places))


def test_a_background_is_uniform_inside_its_box_and_nothing_outside():
    density = make_mixture(num_axes=3, background=True)
    inside, outside = torch.tensor([[10.0, 20, 240], [10.0, 20, 260]], dtype=torch.float64)
    places = torch.stack([inside, outside])[:, None, None].expand(-1, 2, 2, -1)
    log_components = density.log_weights_BKM.logsumexp(-1) + as_torch(density).log_prob(places)
    torch.testing.assert_close(density.log_density_BK(places)[1], log_components[1])
    uniform = density.log_background_BK.exp() / (600 * 400 * 250)
    torch.testing.assert_close(
        density.log_density_BK(places)[0].exp(), log_components[0].exp() + uniform
    )


@given(
    st.floats(-2, 6), st.floats(-2, 6), st.floats(-0.999, 0.999), st.floats(-3, 4), st.floats(0, 6)
)
@settings(max_examples=60, deadline=None)
def test_float32_holds_for_standard_deviations_from_a_hundredth_of_a_mm_to_a_kilometre(
    log_sd_x, log_sd_y, correlation, log_offset, angle
):
    sd_x, sd_y = 10**log_sd_x, 10**log_sd_y
    factor = [[sd_x, 0.0], [correlation * sd_y, math.sqrt(1 - correlation**2) * sd_y]]
    place = 10**log_offset * torch.tensor([[[math.cos(angle), math.sin(angle)]]])
    single = LocationDensity.gaussian(torch.zeros(1, 1, 2), torch.tensor([[factor]]))
    found = single.log_density_BK(place)
    assert found.dtype == torch.float32
    double = single.to(dtype=torch.float64)
    torch.testing.assert_close(
        found.double(), as_torch(double).log_prob(place.double()), rtol=3e-4, atol=1e-3
    )


@every_number_of_axes
def test_moments_are_those_of_the_components_and_of_their_means(num_axes):
    density = make_mixture(num_axes=num_axes)
    reference = as_torch(density)
    torch.testing.assert_close(density.mean_mm_BKD, reference.mean)
    covariance = density.covariance_mm2_BKDD
    torch.testing.assert_close(
        covariance.diagonal(dim1=-2, dim2=-1), reference.variance, rtol=3e-6, atol=0
    )
    tril, weights = density.scale_tril_mm_BKMDD, density.log_weights_BKM.exp()
    second = tril @ tril.mT + torch.einsum("...i,...j->...ij", *[density.means_mm_BKMD] * 2)
    mean = density.mean_mm_BKD
    expected = (weights[..., None, None] * second).sum(2) - mean[..., :, None] * mean[..., None, :]
    torch.testing.assert_close(covariance, expected, rtol=1e-5, atol=1e-2)


def test_moments_with_a_background_are_those_of_many_places():
    """Integrated over a fine grid, on which the Gaussians are well resolved."""
    density = make_mixture(batch=1, keypoints=1, background=True)
    axis = torch.arange(-597.5, 600, 5.0, dtype=torch.float64)
    places = torch.cartesian_prod(axis, axis)[:, None, None]
    mass = density.log_density_BK(places).exp()[..., None] * 25.0
    torch.testing.assert_close(mass.sum(), torch.ones((), dtype=torch.float64), rtol=1e-5, atol=0)
    mean = (mass * places).sum(0)[0]
    torch.testing.assert_close(density.mean_mm_BKD[0], mean, rtol=1e-4, atol=1e-2)
    apart = places - mean
    covariance = (mass[..., None] * apart[..., :, None] * apart[..., None, :]).sum(0)[0]
    torch.testing.assert_close(density.covariance_mm2_BKDD[0], covariance, rtol=1e-4, atol=1.0)


@pytest.mark.parametrize("make", [make_mixture, make_joint])
@pytest.mark.parametrize("background", [False, True])
def test_draws_have_the_mean_and_covariance_that_are_stated(make, background):
    options = {"background": background} if make is make_mixture else {}
    density = make(**options)
    num_draws = 20_000
    draws = density.sample(num_draws, EventNoise.counted(len(density.log_weights_BKM), 5))
    assert draws.shape == (num_draws, *density.mean_mm_BKD.shape)
    assert_moments(draws, density, num_draws)


def assert_moments(draws, density, num_draws):
    """Within six standard errors."""
    covariance = density.covariance_mm2_BKDD
    variance = covariance.diagonal(dim1=-2, dim2=-1)
    error = (draws.mean(0) - density.mean_mm_BKD).abs()
    assert (error < 6 * (variance / num_draws).sqrt()).all()
    apart = draws - density.mean_mm_BKD
    product = apart[..., :, None] * apart[..., None, :]
    assert ((product.mean(0) - covariance).abs() < 6 * product.std(0) / num_draws**0.5).all()


def test_draws_of_the_background_fill_its_box_alone():
    density = make_mixture(components=1, background=True)
    surely = LocationDensity(
        torch.full_like(density.log_weights_BKM, -torch.inf),
        density.means_mm_BKMD,
        density.scale_tril_mm_BKMDD,
        torch.zeros_like(density.log_background_BK),
        density.box_mm_2D,
    )
    draws = surely.sample(2000, EventNoise.counted(len(surely.log_weights_BKM), 0))
    low, high = draws.amin((0, 1, 2)), draws.amax((0, 1, 2))
    torch.testing.assert_close(torch.stack([low, high]), BOX_MM[:, :2], rtol=0.01, atol=0)
    assert (low >= BOX_MM[0, :2]).all()
    assert (high <= BOX_MM[1, :2]).all()


def test_the_same_generator_gives_the_same_draws():
    density = make_mixture(background=True)
    first, again = (
        density.sample(10, EventNoise.counted(len(density.log_weights_BKM), 4)) for _ in range(2)
    )
    torch.testing.assert_close(first, again, rtol=0, atol=0)


def test_draws_of_a_joint_density_have_its_covariance_between_keypoints():
    density = make_joint()
    draws = density.sample(20_000, EventNoise.counted(len(density.log_weights_BKM), 1)).flatten(2)
    tril = density.joint_scale_tril_mm_BEE
    for event, covariance in enumerate(tril @ tril.mT):
        torch.testing.assert_close(draws[:, event].T.cov(), covariance, rtol=0.05, atol=60.0)


@pytest.mark.parametrize("num_axes", [2, 3])
@pytest.mark.parametrize("narrow_mm", [1e-6, 1e-2])
def test_covariance_of_needles_in_a_row_is_positive_definite(num_axes, narrow_mm):
    """Components on a line and no wider than rounding leave the mixture no width across it."""
    direction = torch.tensor([1.0, 0.7, -0.3])[:num_axes]
    place = 500 * torch.randn(200, 1, 5, 1, generator=torch.Generator().manual_seed(0))
    density = LocationDensity(
        torch.full((200, 1, 5), -math.log(5.0)),
        place * direction,
        narrow_mm * torch.eye(num_axes).expand(200, 1, 5, -1, -1),
    )
    np.linalg.cholesky(density.covariance_mm2_BKDD.double().numpy())


def test_score_of_a_gaussian_is_the_squared_mahalanobis_distance():
    density = make_mixture(components=1, num_axes=3)
    places = places_near(density, 4)
    offset = (places - density.means_mm_BKMD[:, :, 0])[..., None]
    whitened = torch.linalg.solve(density.scale_tril_mm_BKMDD[:, :, 0], offset)
    score = density.score_BK(places)
    torch.testing.assert_close(score, whitened.square().sum((-2, -1)))
    below = 2 * (density.peak_log_density_BK - density.log_density_BK(places))
    torch.testing.assert_close(score, below)


@pytest.mark.parametrize("background", [False, True])
def test_score_is_twice_the_way_down_from_the_peak_and_never_negative(background):
    density = make_mixture(background=background)
    places = places_near(density, 50)
    score = density.score_BK(places)
    assert (score >= 0).all()
    below = 2 * (density.peak_log_density_BK - density.log_density_BK(places))
    torch.testing.assert_close(score, below.clamp_min(0))
    at_means = density.log_density_BK(density.means_mm_BKMD.movedim(2, 0))
    torch.testing.assert_close(density.peak_log_density_BK, at_means.amax(0))


def test_peak_of_many_components_is_the_highest_of_their_means():
    """Also where it is not the heaviest component: neighbours add to one another."""
    density = make_grid()
    at_means = density.log_density_BK(density.means_mm_BKMD.movedim(2, 0))
    torch.testing.assert_close(density.peak_log_density_BK, at_means.amax(0))


def test_peak_is_at_least_the_density_of_the_background():
    density = make_mixture(components=1, background=True)
    wide = LocationDensity(
        torch.full_like(density.log_weights_BKM, math.log(0.01)),
        density.means_mm_BKMD + 5000.0,
        density.scale_tril_mm_BKMDD * 1000,
        torch.full_like(density.log_background_BK, math.log(0.99)),
        density.box_mm_2D,
    )
    expected = torch.full((2, 2), math.log(0.99 / (600 * 400)), dtype=torch.float64)
    torch.testing.assert_close(wide.peak_log_density_BK, expected)
    torch.testing.assert_close(
        wide.score_BK(torch.zeros(2, 2, 2, dtype=torch.float64)), 0 * expected, rtol=0, atol=1e-3
    )


@pytest.mark.parametrize("temperature", [0.3, 2.5, torch.tensor(4.0, dtype=torch.float64)])
def test_temperature_widens_components_and_evens_their_weights(temperature):
    density = make_mixture(background=True)
    warm = density.tempered(temperature)
    for before, after in zip(covariances(density), covariances(warm), strict=True):
        torch.testing.assert_close(after, before * temperature)
    before = torch.cat([density.log_weights_BKM, density.log_background_BK[..., None]], 2).exp()
    after = torch.cat([warm.log_weights_BKM, warm.log_background_BK[..., None]], 2).exp()
    power = before ** (1 / temperature)
    torch.testing.assert_close(after, power / power.sum(2, keepdim=True))


def covariances(density):
    return (density.scale_tril_mm_BKMDD @ density.scale_tril_mm_BKMDD.mT).flatten(0, 2)


def test_a_mixture_of_densities_has_the_mean_of_their_densities():
    members = [make_mixture(seed=1), make_mixture(components=2, background=True, seed=2)]
    members.append(make_mixture(components=1, background=True, seed=3))
    mixture = LocationDensity.mixture_of(members)
    places = places_near(mixture, 6)
    each = torch.stack([member.log_density_BK(places).exp() for member in members])
    torch.testing.assert_close(mixture.log_density_BK(places).exp(), each.mean(0))


def test_a_mixture_of_one_density_is_that_density():
    density = make_mixture(background=True)
    same = LocationDensity.mixture_of([density])
    places = places_near(density)
    torch.testing.assert_close(same.log_density_BK(places), density.log_density_BK(places))


def test_a_mixture_of_joint_densities_mixes_their_marginals():
    members = [make_joint(seed=1), make_joint(seed=2)]
    mixture = LocationDensity.mixture_of(members)
    places = places_near(mixture)
    each = torch.stack([member.marginals().log_density_BK(places).exp() for member in members])
    torch.testing.assert_close(mixture.log_density_BK(places).exp(), each.mean(0))


@pytest.mark.parametrize(
    "rows", [slice(1, 3), torch.tensor([2, 0]), torch.tensor([False, True, True, False])]
)
@pytest.mark.parametrize("make", [make_mixture, make_joint, make_grid])
def test_rows_are_the_chosen_events(make, rows):
    density = make(batch=4)
    chosen = density.rows(rows)
    assert type(chosen) is type(density)
    places = places_near(density).to(density.means_mm_BKMD.dtype)
    torch.testing.assert_close(
        chosen.log_density_BK(places[rows]), density.log_density_BK(places)[rows]
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda density: density.tempered(2.0),
        lambda density: density.rows(torch.tensor([0, 2, 1])),
        lambda density: density.rows(slice(0, 3)),
        lambda density: density.to(dtype=torch.float64),
        lambda density: LocationDensity.mixture_of([density, density]),
    ],
)
def test_what_all_events_share_is_never_copied_for_them(change):
    changed = change(make_grid(batch=8))
    for tensor in (changed.means_mm_BKMD, changed.scale_tril_mm_BKMDD):
        assert tensor.stride()[:2] == (0, 0)
        assert tensor.shape[:2] == changed.log_weights_BKM.shape[:2]


def test_other_type_and_device():
    density = make_mixture(background=True).to(dtype=torch.float32)
    assert density.log_density_BK(torch.zeros(2, 2, 2)).dtype == torch.float32
    assert density.covariance_mm2_BKDD.dtype == torch.float32
    nowhere = density.to("meta")
    assert nowhere.log_density_BK(torch.zeros(7, 2, 2, 2, device="meta")).shape == (7, 2, 2)
    assert nowhere.covariance_mm2_BKDD.shape == (2, 2, 2, 2)
    assert nowhere.peak_log_density_BK.device.type == "meta"


@pytest.mark.parametrize("background", [False, True])
def test_gradients_are_those_of_finite_differences(background):
    density = make_mixture(batch=1, keypoints=1, components=2, background=background)
    place = torch.tensor([[[30.0, -40.0]]], dtype=torch.float64)
    raw = [density.log_weights_BKM, density.means_mm_BKMD, density.scale_tril_mm_BKMDD]
    raw += [density.log_background_BK] * background

    def quantities(weights, means, tril, log_background=None):
        built = LocationDensity(weights, means, tril.tril(), log_background, density.box_mm_2D)
        return built.log_density_BK(place), built.mean_mm_BKD, built.covariance_mm2_BKDD

    inputs = [tensor.clone().requires_grad_() for tensor in raw]
    assert torch.autograd.gradcheck(quantities, inputs)


def test_gradients_are_finite_however_unlikely_a_place_is():
    density = make_mixture(background=True).to(dtype=torch.float32)
    leaves = [density.log_weights_BKM, density.means_mm_BKMD, density.scale_tril_mm_BKMDD]
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]
    built = LocationDensity(*leaves, density.log_background_BK, density.box_mm_2D)
    built.log_density_BK(torch.full((2, 2, 2), 1e7)).sum().backward()
    for leaf in leaves:
        assert leaf.grad.isfinite().all()
    assert (leaves[1].grad.abs().sum((2, 3)) > 0).all()


@pytest.mark.parametrize(("keypoints", "num_axes"), [(1, 2), (2, 2), (2, 3), (3, 3)])
def test_joint_density_is_that_of_one_multivariate_normal(keypoints, num_axes):
    density = make_joint(keypoints=keypoints, num_axes=num_axes)
    places = places_near(density, 4)
    reference = MultivariateNormal(
        density.mean_mm_BKD.flatten(1), scale_tril=density.joint_scale_tril_mm_BEE
    )
    found = density.log_density_BK(places)
    torch.testing.assert_close(found.sum(-1), reference.log_prob(places.flatten(2)))
    torch.testing.assert_close(found.amin(-1), found.amax(-1))
    torch.testing.assert_close(
        density.peak_log_density_BK.sum(-1), reference.log_prob(density.mean_mm_BKD.flatten(1))
    )


def test_fields_of_a_joint_density_are_its_marginals():
    density = make_joint(keypoints=3, num_axes=2)
    tril = density.joint_scale_tril_mm_BEE
    covariance = tril @ tril.mT
    for keypoint in range(3):
        part = slice(2 * keypoint, 2 * keypoint + 2)
        expected = torch.linalg.cholesky(covariance[:, part, part])
        torch.testing.assert_close(density.scale_tril_mm_BKMDD[:, keypoint, 0], expected)
    marginals = density.marginals()
    assert type(marginals) is LocationDensity
    places = places_near(density)
    torch.testing.assert_close(density.score_BK(places), marginals.score_BK(places))


def test_temperature_multiplies_the_joint_covariance():
    density = make_joint()
    warm = density.tempered(3.0)
    tril, warm_tril = density.joint_scale_tril_mm_BEE, warm.joint_scale_tril_mm_BEE
    torch.testing.assert_close(warm_tril @ warm_tril.mT, 3.0 * tril @ tril.mT)
    torch.testing.assert_close(warm.covariance_mm2_BKDD, 3.0 * density.covariance_mm2_BKDD)


def test_only_single_gaussians_are_gaussian():
    assert make_mixture(components=1).is_gaussian
    assert make_joint().is_gaussian
    assert not make_mixture(components=2).is_gaussian
    assert not make_mixture(components=1, background=True).is_gaussian


@pytest.mark.parametrize("ratio", [1.0, 1e4, 1e-4])
def test_lower_factor_keeps_the_digits_of_the_narrow_axis(ratio):
    """By way of the product in float32, the narrow axis would be lost."""
    generator = torch.Generator().manual_seed(2)
    rows = torch.randn(50, 3, 6, generator=generator)
    rows[:, 1] = rows[:, 0] + ratio * rows[:, 1]
    found, exact = lower_factor(rows).double(), rows.double()
    expected = torch.linalg.cholesky(exact @ exact.mT)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=2e-3)
    torch.testing.assert_close(found[:, 1, 1], expected[:, 1, 1], rtol=5e-3, atol=0)
