"""Letters: B batch, C channels, F planes, T samples."""

import pytest
import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from gerbil_tune.config.architectures import WaveNetConfig
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.architecture import OutputShape
from gerbil_tune.models.features.features import Features, InputShapes
from gerbil_tune.models.regularization import depth_probabilities
from gerbil_tune.models.scaling import time_mask
from gerbil_tune.models.wavenet import WaveNet

SETUP = RecordingSetup(3, 50_000.0, (572.0, 356.0))
LENGTHS = torch.tensor([301, 100, 1, 0])


def make_wavenet(*, window_length=1000, **config):
    defaults = {
        "num_channels": 6,
        "num_blocks": 4,
        "kernel_size": 3,
        "dilation_cycle": 3,
        "stem_kernel_size": 9,
        "stem_stride": 4,
        "hidden": 8,
    }
    torch.manual_seed(0)
    inputs = InputShapes(3, window_length, 0, 0, 0, (0, 0))
    return WaveNet(WaveNetConfig(**{**defaults, **config}), SETUP, inputs, OutputShape(5))


def noise(num_samples=301, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    x_BFT = torch.randn(len(LENGTHS), 3, 500, generator=generator)[..., :num_samples]
    return (x_BFT * time_mask(LENGTHS, num_samples)).to(dtype)


def convolved(x_BCT, conv, *, stride=1, dilation=1):
    total = dilation * (conv.kernel_size[0] - 1)
    padded = functional.pad(x_BCT, (total // 2, total - total // 2))
    return functional.conv1d(padded, conv.weight, conv.bias, stride=stride, dilation=dilation)


def plain_run(net, x_BFT, *, stride, dilations):
    """The network of van den Oord et al. on one whole event, without masks."""
    channels = net.stem.conv.out_channels
    x_BCT = convolved(x_BFT, net.stem.conv, stride=stride)
    skips = torch.zeros_like(x_BCT)
    for block, dilation in zip(net.blocks, dilations, strict=True):
        signal, gate = convolved(x_BCT, block.gated.conv, dilation=dilation).chunk(2, dim=1)
        mixed = convolved(signal.tanh() * gate.sigmoid(), block.mix)
        skips = skips + mixed[:, :channels]
        if block is not net.blocks[-1]:
            x_BCT = x_BCT + mixed[:, channels:]
    return net.readout(net.hidden(functional.gelu(skips).mean(2)))


@pytest.mark.parametrize("num_samples", [301, 449])
@pytest.mark.parametrize(("stem_stride", "kernel_size"), [(1, 3), (4, 2), (7, 3)])
def test_a_padded_batch_gives_what_a_plain_run_on_each_event_does(
    num_samples, stem_stride, kernel_size
):
    net = make_wavenet(stem_stride=stem_stride, kernel_size=kernel_size).double().eval()
    x_BFT = noise(num_samples, torch.float64)
    found = net(Features(LENGTHS, x_BFT))
    for i, length in enumerate(LENGTHS.tolist()):
        if length:
            expected = plain_run(
                net, x_BFT[i : i + 1, :, :length], stride=stem_stride, dilations=(1, 2, 4, 1)
            )
            torch.testing.assert_close(found[i : i + 1], expected)


@pytest.mark.parametrize(("kernel_size", "stem_stride"), [(3, 4), (5, 1)])
def test_receptive_field_is_that_of_the_dilations(kernel_size, stem_stride):
    net = make_wavenet(kernel_size=kernel_size, stem_stride=stem_stride).double()
    skips = []
    net.blocks[-1].register_forward_hook(lambda module, inputs, output: skips.append(output[1]))
    x_BFT = torch.randn(1, 3, 400, dtype=torch.float64, requires_grad=True)
    net(Features(torch.tensor([400]), x_BFT))
    frame = 200 // stem_stride
    skips[0][0, :, frame].sum().backward()
    touched = x_BFT.grad.abs().sum((0, 1)).nonzero().flatten()
    reach = (1 + 2 + 4 + 1) * (kernel_size - 1) // 2
    assert touched.min() == (frame - reach) * stem_stride - 4
    assert touched.max() == (frame + reach) * stem_stride + 4


@pytest.mark.parametrize("num_blocks", [1, 4])
def test_gradient_reaches_every_parameter(num_blocks):
    net = make_wavenet(num_blocks=num_blocks, dropout=0.1).train()
    net(Features(LENGTHS, noise())).square().mean().backward()
    without = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


@pytest.mark.parametrize("lengths", [(1,), (0,), (0, 1), (5, 0)])
def test_short_events_are_finite_with_gradients(lengths):
    net, lengths_B = make_wavenet().train(), torch.tensor(lengths)
    x_BFT = noise(9)[: len(lengths)] * time_mask(lengths_B, 9)
    raw_BO = net(Features(lengths_B, x_BFT))
    raw_BO.square().mean().backward()
    assert raw_BO.isfinite().all()
    assert all(p.grad.isfinite().all() for p in net.parameters())


def test_regularization_grows_with_depth_and_is_for_training_alone():
    net = make_wavenet(stochastic_depth=0.4, dropout=0.2)
    assert tuple(b.depth.probability for b in net.blocks) == depth_probabilities(0.4, 4)
    bare = make_wavenet()
    bare.load_state_dict(net.state_dict())
    features = Features(LENGTHS, noise())
    assert torch.equal(net.eval()(features), bare.eval()(features))
    assert not torch.allclose(net.train()(features), bare(features))


def test_operations_counted_by_hand():
    with torch.device("meta"):
        net = make_wavenet()
        with FlopCounterMode(display=False) as counter:
            net(Features(torch.full((2,), 400), torch.empty(2, 3, 400)))
    frames = 2 * 100
    stem, gated, last_mix = 9 * 3 * 6, 3 * 6 * 12, 6 * 6
    weights = stem + 4 * gated + 3 * 2 * last_mix + last_mix
    assert counter.get_total_flops() == 2 * (frames * weights + 2 * (6 * 8 + 8 * 5))


def test_bfloat16_is_near_float32():
    net, features = make_wavenet().eval(), Features(LENGTHS, noise())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = net(features)
    torch.testing.assert_close(found.float(), net(features), rtol=0.02, atol=0.02)
