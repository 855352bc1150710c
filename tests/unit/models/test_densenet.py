"""Letters: B batch, C channels, T samples."""

import pytest
import torch
from torch import nn

from gerbil_tune.config.architectures import DenseNetConfig
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.architecture import OutputShape
from gerbil_tune.models.densenet import DenseNet, kernel_sizes, masked_average_pool
from gerbil_tune.models.features.features import Features, InputShapes
from gerbil_tune.models.scaling import time_mask

SETUP = RecordingSetup(4, 125_000.0, (572.0, 356.0))
INPUTS = InputShapes(4, 1000, 0, 0, 0, (0, 0))


def make_densenet(**config):
    torch.manual_seed(0)
    config = DenseNetConfig(**{"num_stages": 3, "growth": 5, "kernel_size": 9, **config})
    return DenseNet(config, SETUP, INPUTS, OutputShape(5)).eval()


def test_default_kernels_are_those_of_2022():
    assert kernel_sizes(DenseNetConfig()) == (51,) * 8 + (49, 37, 19, 9)


@pytest.mark.parametrize("num_stages", range(1, 15))
@pytest.mark.parametrize("kernel_size", [3, 5, 25, 51, 101])
def test_kernels_are_odd_and_never_grow(num_stages, kernel_size):
    sizes = kernel_sizes(DenseNetConfig(num_stages=num_stages, kernel_size=kernel_size))
    assert len(sizes) == num_stages
    assert all(size % 2 == 1 for size in sizes)
    assert list(sizes) == sorted(sizes, reverse=True)
    assert 1 <= sizes[0] <= kernel_size


def test_each_stage_halves_time_and_adds_the_growth():
    net = make_densenet()
    shapes = []
    for norm in net.norms:
        norm.register_forward_hook(lambda module, inputs, output: shapes.append(output.shape))
    lengths_B = torch.tensor([101, 40])
    raw_BO = net(Features(lengths_B, torch.zeros(2, 4, 101)))
    assert shapes == [(2, 9, 51), (2, 14, 26), (2, 19, 13)]
    assert raw_BO.shape == (2, 5)


def test_skip_path_carries_the_average_pooled_input():
    net = make_densenet(num_stages=1, normalization="none")
    x_BCT = torch.randn(2, 4, 100, generator=torch.Generator().manual_seed(0))
    outputs = []
    net.norms[0].register_forward_hook(lambda module, inputs, output: outputs.append(output))
    net(Features(torch.tensor([100, 100]), x_BCT))
    torch.testing.assert_close(outputs[0][:, :4], nn.functional.avg_pool1d(x_BCT, 2))


@pytest.mark.parametrize("num_samples", [1, 2, 9, 10])
def test_pool_of_whole_rows_is_torchs(num_samples):
    x_BCT = torch.randn(2, 3, num_samples, generator=torch.Generator().manual_seed(0))
    pooled = masked_average_pool(x_BCT, torch.ones(2, 1, num_samples))
    torch.testing.assert_close(pooled, nn.functional.avg_pool1d(x_BCT, 2, ceil_mode=True))


@pytest.mark.parametrize("length", [0, 1, 2, 5, 6, 11])
def test_pool_of_a_padded_row_is_that_of_the_row_alone(length):
    x_BCT = torch.randn(1, 3, 12, generator=torch.Generator().manual_seed(0))
    pooled = masked_average_pool(x_BCT, time_mask(torch.tensor([length]), 12))
    kept = -(-length // 2)
    if length:
        alone = nn.functional.avg_pool1d(x_BCT[..., :length], 2, ceil_mode=True)
        torch.testing.assert_close(pooled[..., :kept], alone)
    assert not pooled[..., kept:].any()


@pytest.mark.parametrize("normalization", ["batch", "layer", "none"])
def test_output_does_not_depend_on_padding(normalization):
    net = make_densenet(normalization=normalization)
    lengths_B = torch.tensor([101, 37])
    x_BCT = torch.randn(2, 4, 150, generator=torch.Generator().manual_seed(0))
    x_BCT = x_BCT * time_mask(lengths_B, 150)
    expected = net(Features(lengths_B, x_BCT[..., :101]))
    torch.testing.assert_close(net(Features(lengths_B, x_BCT)), expected)
    alone = net(Features(lengths_B[1:], x_BCT[1:, :, :37]))
    torch.testing.assert_close(alone, expected[1:])
