"""Letters: B batch, C channels, T samples."""

import pytest
import torch
from torch import nn

from gerbil_tune.config.architectures import ConvStackConfig
from gerbil_tune.models import conv
from gerbil_tune.models.batch_norm import MaskedBatchNorm
from gerbil_tune.models.conv import (
    ChannelNorm,
    ConvStack,
    GatedConv1d,
    SameConv1d,
    make_norm,
    masked_mean,
)
from gerbil_tune.models.scaling import time_mask

LENGTHS = torch.tensor([301, 100, 1])


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def padded_noise(num_samples=301, num_channels=3):
    return noise(3, num_channels, 400)[..., :num_samples] * time_mask(LENGTHS, num_samples)


@pytest.mark.parametrize("num_samples", [1, 2, 7, 100, 101])
@pytest.mark.parametrize("kernel_size", [1, 2, 5, 51])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (2, 3)])
def test_gated_convolution_keeps_time_or_halves_it_rounded_up(
    num_samples, kernel_size, stride, dilation
):
    layer = GatedConv1d(3, 4, kernel_size=kernel_size, stride=stride, dilation=dilation)
    output, mask = layer(noise(2, 3, num_samples), torch.ones(2, 1, num_samples))
    times = -(-num_samples // stride)
    assert output.shape == (2, 4, times)
    assert mask.shape == (2, 1, times)


@pytest.mark.parametrize("stride", [1, 3, 8])
@pytest.mark.parametrize(("kernel_size", "dilation"), [(1, 1), (4, 1), (5, 3)])
def test_outputs_stand_at_multiples_of_the_stride(kernel_size, stride, dilation):
    layer = SameConv1d(1, 1, kernel_size=kernel_size, stride=stride, dilation=dilation, bias=False)
    nn.init.ones_(layer.conv.weight)
    x_BCT = torch.arange(1.0, 41.0).view(1, 1, 40)
    output, _ = layer(x_BCT, torch.ones(1, 1, 40))
    before = dilation * (kernel_size - 1) // 2
    for j, found in enumerate(output[0, 0].tolist()):
        taps = [j * stride - before + dilation * tap for tap in range(kernel_size)]
        assert found == sum(tap + 1 for tap in taps if 0 <= tap < 40)


@pytest.mark.parametrize("stride", [1, 2, 4, 7])
@pytest.mark.parametrize("length", [0, 1, 7, 8, 9])
def test_mask_keeps_an_output_for_each_begun_stride(length, stride):
    layer = SameConv1d(1, 1, kernel_size=3, stride=stride)
    mask = time_mask(torch.tensor([length]), 30)
    assert layer(torch.zeros(1, 1, 30), mask)[1].sum() == -(-length // stride)


@pytest.mark.parametrize("leak", [0.0, 0.05])
def test_gated_convolution_is_two_separate_ones(leak):
    """vocalocator: (0.95 tanh f + 0.05 f) sigmoid(g)."""
    layer = GatedConv1d(3, 4, kernel_size=5, leak=leak)
    x_BCT = noise(2, 3, 40)
    weight_f, weight_g = layer.conv.weight.chunk(2)
    bias_f, bias_g = layer.conv.bias.chunk(2)
    f = nn.functional.conv1d(x_BCT, weight_f, bias_f, padding=2)
    g = nn.functional.conv1d(x_BCT, weight_g, bias_g, padding=2)
    expected = ((1 - leak) * f.tanh() + leak * f) * g.sigmoid()
    torch.testing.assert_close(layer(x_BCT, torch.ones(2, 1, 40))[0], expected)


def test_channel_norm_is_layer_norm_over_channels():
    norm = ChannelNorm(6)
    nn.init.normal_(norm.gain)
    nn.init.normal_(norm.bias)
    x_BCT = noise(2, 6, 9)
    expected = nn.functional.layer_norm(
        x_BCT.transpose(1, 2), (6,), norm.gain[:, 0], norm.bias[:, 0]
    )
    torch.testing.assert_close(norm(x_BCT), expected.transpose(1, 2))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("batch", MaskedBatchNorm), ("layer", ChannelNorm), ("none", nn.Identity)],
)
def test_norm_by_its_name(kind, expected):
    assert type(make_norm(kind, 4)) is expected


def test_masked_mean_is_that_of_each_event_alone():
    x_BCT = padded_noise() + 7.0  # what a layer's bias leaves in the padding
    mean_BC = masked_mean(x_BCT, time_mask(LENGTHS, 301))
    expected = torch.stack(
        [row[:, :length].mean(1) for row, length in zip(x_BCT, LENGTHS, strict=True)]
    )
    torch.testing.assert_close(mean_BC, expected)


def make_stack(**config):
    defaults = {
        "channels": (4, 6, 8),
        "kernel_sizes": (5, 8, 3),
        "downsample": (False, True, True),
        "dilations": (1, 2, 3),
    }
    torch.manual_seed(0)
    return ConvStack(ConvStackConfig(**{**defaults, **config}), 3).eval()


@pytest.mark.parametrize("normalization", ["batch", "layer", "none"])
def test_stack_does_not_depend_on_padding(normalization):
    stack = make_stack(normalization=normalization)
    for norm in stack.norms:
        if normalization == "batch":  # as after training: zeros do not stay zeros
            nn.init.normal_(norm.running_mean)
            nn.init.normal_(norm.bias)
    expected = stack(padded_noise(), LENGTHS)
    torch.testing.assert_close(stack(padded_noise(400), LENGTHS), expected)
    for i, length in enumerate(LENGTHS.tolist()):
        alone = stack(padded_noise()[i : i + 1, :, :length], LENGTHS[i : i + 1])
        torch.testing.assert_close(alone, expected[i : i + 1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("normalization", ["batch", "layer", "none"])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_stack_without_gradients_is_the_same(monkeypatch, normalization, dtype):
    """There it works in memory that it uses again, and some events at a time."""
    monkeypatch.setattr(conv, "_NUMBERS_AT_ONCE", 2000)
    stack = make_stack(normalization=normalization)
    audio = padded_noise()
    with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
        expected = stack(audio, LENGTHS)
        with torch.no_grad():
            first, second = stack(audio, LENGTHS), stack(audio.flip(0), LENGTHS)
            again = stack(audio, LENGTHS)
    assert torch.equal(again, first)
    assert not torch.equal(second, first)
    tolerance = 1e-5 if dtype is None else 0.02
    torch.testing.assert_close(first, expected, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(audio, padded_noise(), rtol=0.0, atol=0.0)


@pytest.mark.parametrize(
    ("multiplier", "widths"), [(1.0, [4, 6, 8]), (1.5, [6, 9, 12]), (0.01, [1, 1, 1])]
)
def test_width_multiplier_scales_every_layer(multiplier, widths):
    stack = make_stack(width_multiplier=multiplier)
    assert [layer.conv.out_channels // 2 for layer in stack.layers] == widths
    assert stack.num_outputs == widths[-1]
    assert stack(padded_noise(), LENGTHS).shape == (3, widths[-1])
