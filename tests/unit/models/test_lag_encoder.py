"""Letters: B batch, P planes, L lags."""

import pytest
import torch

from gerbil_tune.config.schema import LagEncoderConfig
from gerbil_tune.models.lag_encoder import LagEncoder


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
