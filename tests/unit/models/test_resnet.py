"""Letters: B batch, C channels, F planes, T samples."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from gerbil_tune.config.architectures import ResNetConfig
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.architecture import OutputShape
from gerbil_tune.models.features.features import Features, InputShapes
from gerbil_tune.models.regularization import depth_probabilities
from gerbil_tune.models.resnet import ResNet
from gerbil_tune.models.scaling import time_mask

SETUP = RecordingSetup(3, 50_000.0, (572.0, 356.0))
LENGTHS = torch.tensor([301, 100, 1, 0])

every_norm = pytest.mark.parametrize("normalization", ["batch", "layer", "none"])


def make_resnet(**config):
    defaults = {
        "num_channels": 4,
        "num_stages": 3,
        "blocks_per_stage": 2,
        "kernel_size": 3,
        "stem_kernel_size": 9,
        "stem_stride": 4,
    }
    torch.manual_seed(0)
    inputs = InputShapes(3, 1000, 0, 0, 0, (0, 0))
    net = ResNet(ResNetConfig(**{**defaults, **config}), SETUP, inputs, OutputShape(5))
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d):  # as after training: zeros do not stay zeros
            nn.init.normal_(module.running_mean)
            nn.init.normal_(module.bias)
    return net


def noise(num_samples=301, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    x_BFT = torch.randn(len(LENGTHS), 3, 500, generator=generator)[..., :num_samples]
    return (x_BFT * time_mask(LENGTHS, num_samples)).to(dtype)


def convolved(x_BCT, conv, stride=1):
    total = conv.kernel_size[0] - 1
    padded = functional.pad(x_BCT, (total // 2, total - total // 2))
    return functional.conv1d(padded, conv.weight, conv.bias, stride=stride)


def plain_run(net, x_BFT, *, stem_stride, strides):
    """Pre-activation residual blocks on one whole event, without masks."""
    x_BCT = convolved(x_BFT, net.stem.conv, stem_stride)
    for block, stride in zip(net.blocks, strides, strict=True):
        active = functional.gelu(block.norm_in(x_BCT))
        branch = convolved(active, block.conv_in.conv, stride)
        branch = convolved(functional.gelu(block.norm_out(branch)), block.conv_out.conv)
        if stride > 1:
            x_BCT = convolved(active, block.shortcut.conv, stride)
        x_BCT = x_BCT + branch
    return net.readout(functional.gelu(net.norm(x_BCT)).mean(2))


@pytest.mark.parametrize("num_samples", [301, 449])
@pytest.mark.parametrize(("stem_stride", "kernel_size"), [(1, 3), (4, 4), (5, 1)])
@every_norm
def test_a_padded_batch_gives_what_a_plain_run_on_each_event_does(
    normalization, stem_stride, kernel_size, num_samples
):
    net = make_resnet(normalization=normalization, stem_stride=stem_stride, kernel_size=kernel_size)
    net.double().eval()
    x_BFT = noise(num_samples, torch.float64)
    found = net(Features(LENGTHS, x_BFT))
    for i, length in enumerate(LENGTHS.tolist()):
        if length:
            expected = plain_run(
                net,
                x_BFT[i : i + 1, :, :length],
                stem_stride=stem_stride,
                strides=(1, 1, 2, 1, 2, 1),
            )
            torch.testing.assert_close(found[i : i + 1], expected)


@pytest.mark.parametrize("num_samples", [301, 64, 1])
def test_stages_halve_time_and_double_channels(num_samples):
    net, shapes = make_resnet(), []
    for block in net.blocks:
        block.register_forward_hook(lambda module, inputs, output: shapes.append(output[0].shape))
    net(Features(torch.full((2,), num_samples), torch.zeros(2, 3, num_samples)))
    first = -(-num_samples // 4)
    second, third = -(-first // 2), -(-first // 4)
    times = [(4, first)] * 2 + [(8, second)] * 2 + [(16, third)] * 2
    assert [tuple(shape[1:]) for shape in shapes] == times


@every_norm
def test_gradient_reaches_every_parameter(normalization):
    net = make_resnet(normalization=normalization, dropout=0.1).train()
    net(Features(LENGTHS, noise())).square().mean().backward()
    largest = {
        name: 0.0 if p.grad is None else p.grad.abs().max() for name, p in net.named_parameters()
    }
    assert [name for name, gradient in largest.items() if gradient < 1e-6] == []


@every_norm
@pytest.mark.parametrize("lengths", [(1,), (0,), (0, 1), (5, 0)])
def test_short_events_are_finite_with_gradients(normalization, lengths):
    net, lengths_B = make_resnet(normalization=normalization).train(), torch.tensor(lengths)
    x_BFT = noise(9)[: len(lengths)] * time_mask(lengths_B, 9)
    raw_BO = net(Features(lengths_B, x_BFT))
    raw_BO.square().mean().backward()
    assert raw_BO.isfinite().all()
    assert all(p.grad.isfinite().all() for p in net.parameters())


def test_regularization_grows_with_depth_and_is_for_training_alone():
    net = make_resnet(stochastic_depth=0.6, dropout=0.2)
    assert tuple(b.depth.probability for b in net.blocks) == depth_probabilities(0.6, 6)
    bare = make_resnet()
    bare.load_state_dict(net.state_dict())
    features = Features(LENGTHS, noise())
    assert torch.equal(net.eval()(features), bare.eval()(features))
    assert not torch.allclose(net.train()(features), bare(features))


def test_a_branch_left_out_leaves_its_shortcut():
    net = make_resnet(stochastic_depth=0.999_999, num_stages=1, blocks_per_stage=1).train()
    x_BCT, mask_B1T = torch.randn(3, 4, 20), torch.ones(3, 1, 20)
    torch.testing.assert_close(net.blocks[0](x_BCT, mask_B1T)[0], x_BCT, rtol=0, atol=0)


def test_operations_counted_by_hand():
    with torch.device("meta"):
        net = make_resnet(num_stages=2, blocks_per_stage=1)
        with FlopCounterMode(display=False) as counter:
            net(Features(torch.full((2,), 400), torch.empty(2, 3, 400)))
    stem, first = 9 * 3 * 4, 2 * (3 * 4 * 4)
    second = 3 * 4 * 8 + 3 * 8 * 8 + 4 * 8
    weights = 100 * (stem + first) + 50 * second + 8 * 5
    assert counter.get_total_flops() == 2 * 2 * weights


@every_norm
def test_bfloat16_is_near_float32(normalization):
    net, features = make_resnet(normalization=normalization), Features(LENGTHS, noise())
    net.eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = net(features)
    torch.testing.assert_close(found.float(), net(features), rtol=0.03, atol=0.03)
