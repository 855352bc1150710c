"""Letters: B batch, P planes, L lags, K knots."""

import numpy as np
import pytest
import torch

from gerbil_tune.config.architectures import LagEncoderConfig
from gerbil_tune.models.lag_encoder import LagEncoder
from gerbil_tune.models.lag_reweighting import LagReweighting


@pytest.mark.parametrize("num_lags", [3, 100, 541])
@pytest.mark.parametrize("kernel_size", [1, 4, 7])
@pytest.mark.parametrize("num_blocks", [1, 3, 6])
def test_any_size_gives_one_vector_an_event(num_lags, kernel_size, num_blocks):
    config = LagEncoderConfig(
        num_channels=4, num_blocks=num_blocks, kernel_size=kernel_size, hidden=9
    )
    encoder = LagEncoder(config, num_planes=6, num_lags=num_lags)
    assert encoder(torch.zeros(2, 6, num_lags)).shape == (2, encoder.num_outputs) == (2, 9)


def test_the_position_of_a_peak_is_not_pooled_away():
    torch.manual_seed(0)
    encoder = LagEncoder(LagEncoderConfig(), num_planes=1, num_lags=201).eval()
    peaks_BPL = torch.eye(201)[[40, 80, 120, 160], None]
    with torch.no_grad():
        vectors_BH = encoder(peaks_BPL)
    distances = torch.cdist(vectors_BH, vectors_BH)
    assert (distances + torch.eye(4) > 0.05).all()


def test_dropout_acts_in_training_alone():
    torch.manual_seed(0)
    encoder = LagEncoder(LagEncoderConfig(dropout=0.5), num_planes=2, num_lags=51)
    gcc_BPL = torch.randn(2, 2, 51)
    assert not torch.equal(encoder(gcc_BPL), encoder(gcc_BPL))
    encoder.eval()
    assert torch.equal(encoder(gcc_BPL), encoder(gcc_BPL))


def make_reweighting(num_planes=3, num_lags=41, num_knots=5, seed=None):
    """With random weights where a seed is given, else as it begins."""
    reweighting = LagReweighting(num_planes=num_planes, num_lags=num_lags, num_knots=num_knots)
    if seed is not None:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            reweighting.weight_PK.normal_(0.0, 3.0, generator=generator)
    return reweighting


def weights_of(reweighting):
    """The positive weights (P, K), by the definition of softplus."""
    return torch.log1p(torch.exp(reweighting.weight_PK.detach().double() + np.log(np.e - 1)))


@pytest.mark.parametrize("num_lags", [3, 40, 541])
@pytest.mark.parametrize("num_knots", [1, 2, 8])
def test_reweighting_begins_as_the_identity(num_lags, num_knots):
    gcc_BPL = torch.randn(2, 3, num_lags, generator=torch.Generator().manual_seed(0))
    reweighting = make_reweighting(num_lags=num_lags, num_knots=num_knots)
    torch.testing.assert_close(reweighting(gcc_BPL), gcc_BPL, rtol=0, atol=1e-5)


def test_an_encoder_with_frequency_bands_begins_like_one_without():
    gcc_BPL = torch.randn(2, 3, 41, generator=torch.Generator().manual_seed(0))
    plain = LagEncoder(LagEncoderConfig(), num_planes=3, num_lags=41).eval()
    banded = LagEncoder(LagEncoderConfig(frequency_bands=6), num_planes=3, num_lags=41).eval()
    missing, unexpected = banded.load_state_dict(plain.state_dict(), strict=False)
    assert (missing, unexpected) == (["reweighting.weight_PK"], [])
    torch.testing.assert_close(banded(gcc_BPL), plain(gcc_BPL), rtol=0, atol=1e-5)


def test_reweighting_is_a_linear_convolution_with_the_filter_of_each_plane():
    """Also at the ends of the lags, where a transform that is too short would wrap around."""
    num_planes, num_lags, num_knots = 2, 24, 4
    reweighting = make_reweighting(num_planes, num_lags, num_knots, seed=1)
    gcc_BPL = torch.randn(3, num_planes, num_lags, generator=torch.Generator().manual_seed(2))
    length = reweighting.fft_length
    knots_at = np.linspace(0.0, 0.5, num_knots)  # of the sample rate
    frequencies = np.fft.rfftfreq(length)
    for plane, weights_K in enumerate(weights_of(reweighting).numpy()):
        response_N = np.fft.irfft(np.interp(frequencies, knots_at, weights_K), n=length)
        filter_L = np.roll(response_N, num_lags - 1)[: 2 * num_lags - 1]
        for event, filtered_PL in enumerate(reweighting(gcc_BPL).detach().numpy()):
            full = np.convolve(gcc_BPL[event, plane].numpy(), filter_L)
            expected_L = full[num_lags - 1 : 2 * num_lags - 1]
            np.testing.assert_allclose(filtered_PL[plane], expected_L, atol=1e-4)


def test_equal_weights_are_a_gain():
    reweighting = make_reweighting(num_knots=5)
    with torch.no_grad():
        reweighting.weight_PK.copy_(torch.tensor([[2.0], [-1.0], [0.0]]).expand(3, 5))
    gcc_BPL = torch.randn(2, 3, 41, generator=torch.Generator().manual_seed(0))
    expected_BPL = gcc_BPL * weights_of(reweighting)[:, :1].float()
    torch.testing.assert_close(reweighting(gcc_BPL), expected_BPL, rtol=0, atol=1e-5)


def test_a_weight_acts_at_its_frequency_alone():
    """Five knots: the second is at an eighth of the sample rate, and nothing is left of it at a quarter."""
    reweighting = make_reweighting(num_planes=1, num_lags=401, num_knots=5)
    with torch.no_grad():
        reweighting.weight_PK[0, 1] = -30.0
    lags = torch.arange(-200, 201)
    taper_L = torch.hann_window(401, periodic=False)
    tones_B1L = torch.stack(
        [torch.cos(2 * torch.pi * lags * part) * taper_L for part in (1 / 8, 1 / 4)]
    )[:, None]
    power_B = reweighting(tones_B1L).square().mean((1, 2)) / tones_B1L.square().mean((1, 2))
    assert power_B[0] < 0.01
    assert power_B[1] > 0.99


@pytest.mark.parametrize(("num_lags", "num_knots"), [(41, 8), (5, 40)])
def test_gradient_reaches_every_weight(num_lags, num_knots):
    reweighting = make_reweighting(num_lags=num_lags, num_knots=num_knots)
    gcc_BPL = torch.randn(2, 3, num_lags, generator=torch.Generator().manual_seed(0))
    reweighting(gcc_BPL).square().sum().backward()
    assert (reweighting.weight_PK.grad.abs() > 1e-6).all()


def test_reweighting_is_float32_under_autocast():
    reweighting = make_reweighting(seed=3)
    gcc_BPL = torch.randn(2, 3, 41, generator=torch.Generator().manual_seed(0))
    expected_BPL = reweighting(gcc_BPL)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(reweighting(gcc_BPL), expected_BPL, rtol=0, atol=0)
