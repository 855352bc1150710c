"""Densities as maps of the arena."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from gerbil_tune.errors import ConfigError
from gerbil_tune.evaluation.maps import cell_centres_mm, density_maps
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.density import JointDensity, LocationDensity

SETUP = RecordingSetup(4, 125_000.0, (572.0, 356.0))


def test_cells_fill_the_arena():
    x_mm, y_mm = cell_centres_mm(SETUP, 50.0)
    assert (len(x_mm), len(y_mm)) == (12, 8)
    assert x_mm[0] == pytest.approx(-286 + 572 / 24)
    assert y_mm[-1] == pytest.approx(178 - 356 / 16)
    exact, _ = cell_centres_mm(RecordingSetup(4, 1.0, (300.0, 300.0)), 0.3 * 100)
    assert len(exact) == 10


@pytest.mark.parametrize("step_mm", [0.0, -1.0, float("nan"), 0.4])
def test_cells_of_no_size_and_millions_of_them_are_refused(step_mm):
    with pytest.raises(ConfigError, match=r"at least 0\.45 mm"):
        cell_centres_mm(SETUP, step_mm)


def test_a_gaussian_is_what_its_formula_says_and_its_map_adds_up_to_one():
    tril = torch.tensor([[40.0, 0.0], [15.0, 20.0]])
    means = torch.tensor([[[30.0, -20.0]], [[-60.0, 10.0]]])
    density = LocationDensity.gaussian(means, tril.expand(2, 1, 2, 2))
    x_mm, y_mm = cell_centres_mm(SETUP, 8.0)
    found = density_maps(density, x_mm, y_mm)
    assert found.shape == (2, 1, len(y_mm), len(x_mm))
    assert found.dtype == np.float32
    places = np.stack(np.meshgrid(x_mm, y_mm), axis=-1)
    for mean, found_YX in zip(means[:, 0].numpy(), found[:, 0], strict=True):
        expected = multivariate_normal(mean, (tril @ tril.T).numpy()).pdf(places)
        np.testing.assert_allclose(found_YX, expected, rtol=1e-5, atol=1e-12)
        cell_mm2 = 572 / len(x_mm) * 356 / len(y_mm)
        assert found_YX.sum() * cell_mm2 == pytest.approx(1.0, abs=1e-3)


def test_a_mixture_with_a_background_is_their_sum():
    density = LocationDensity(
        torch.log(torch.tensor([[[0.5, 0.3]]])),
        torch.tensor([[[[0.0, 0.0], [100.0, 50.0]]]]),
        (20 * torch.eye(2)).expand(1, 1, 2, 2, 2),
        torch.log(torch.tensor([[0.2]])),
        torch.tensor([[-286.0, -178.0], [286.0, 178.0]]),
    )
    (found_YX,) = density_maps(density, np.array([0.0, 280.0]), np.array([0.0]))[:, 0]
    peak, uniform = 1 / (2 * np.pi * 400), 1 / (572 * 356)
    far = 0.3 * peak * np.exp(-(100**2 + 50**2) / 800)
    assert found_YX[0, 0] == pytest.approx(0.5 * peak + far + 0.2 * uniform, rel=1e-5)
    assert found_YX[0, 1] == pytest.approx(0.2 * uniform, rel=1e-3)


def test_of_keypoints_together_and_three_axes_it_is_the_marginal_in_the_plane():
    generator = torch.Generator().manual_seed(0)
    tril = torch.randn(1, 6, 6, generator=generator).tril() * 10 + 30 * torch.eye(6)
    density = JointDensity.joint_gaussian(torch.zeros(1, 2, 3), tril)
    x_mm, y_mm = np.array([-20.0, 5.0]), np.array([0.0, 10.0, 40.0])
    found_KYX = density_maps(density, x_mm, y_mm)[0]
    covariance = (tril @ tril.mT)[0].numpy().astype(np.float64)
    places = np.stack(np.meshgrid(x_mm, y_mm), axis=-1)
    for keypoint in range(2):
        corner = slice(3 * keypoint, 3 * keypoint + 2)
        expected = multivariate_normal([0, 0], covariance[corner, corner]).pdf(places)
        np.testing.assert_allclose(found_KYX[keypoint], expected, rtol=1e-4)
