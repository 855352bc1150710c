"""Letters: B batch, C channels, F planes, T samples or frames, H hidden, N heads, E numbers of a head."""

import pytest
import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from gerbil_tune.config.architectures import ConformerConfig
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.architecture import OutputShape
from gerbil_tune.models.conformer import (
    Conformer,
    ConformerLayer,
    ConvolutionModule,
    RotaryAttention,
    make_frames,
    rotated,
)
from gerbil_tune.models.features.features import Features, InputShapes
from gerbil_tune.models.regularization import depth_probabilities
from gerbil_tune.models.scaling import time_mask

SETUP = RecordingSetup(3, 50_000.0, (572.0, 356.0))
LENGTHS = torch.tensor([301, 100, 1, 0])
SMALL = {
    "width": 12,
    "num_layers": 2,
    "num_heads": 2,
    "feedforward_factor": 2,
    "kernel_size": 5,
    "stem_channels": 6,
    "stem_kernel_size": 5,
    "stem_strides": (4, 3),
    "dropout": 0.0,
}


def make_conformer(**config):
    torch.manual_seed(0)
    inputs = InputShapes(3, 1000, 0, 0, 0, (0, 0))
    return Conformer(ConformerConfig(**{**SMALL, **config}), SETUP, inputs, OutputShape(5))


def noise(num_samples=301, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    x_BFT = torch.randn(len(LENGTHS), 3, 500, generator=generator)[..., :num_samples]
    return (x_BFT * time_mask(LENGTHS, num_samples)).to(dtype)


def frames_of(num_frames, numbers_per_head, *lengths):
    return make_frames(time_mask(torch.tensor(lengths), num_frames), numbers_per_head)


def turned(x_NTE):
    """Rotary embedding as RoFormer defines it: pairs of numbers as complex ones, times exp(i t rate)."""
    num_frames, pairs = x_NTE.shape[1], x_NTE.shape[2] // 2
    rates = 10_000.0 ** (-torch.arange(pairs, dtype=torch.float64) / pairs)
    angles = torch.arange(num_frames, dtype=torch.float64)[:, None] * rates
    numbers = torch.complex(x_NTE[..., :pairs], x_NTE[..., pairs:]) * torch.exp(1j * angles)
    return torch.cat((numbers.real, numbers.imag), dim=2)


def explicit_attention(attention, x_TH):
    """Softmax over the frames of one whole event."""
    query, key, value = (x_TH @ attention.project_in.weight.T).chunk(3, dim=1)
    query, key, value = (
        part.unflatten(1, (attention.num_heads, -1)).transpose(0, 1) for part in (query, key, value)
    )
    products = turned(query) @ turned(key).mT / query.shape[2] ** 0.5
    mixed_NTE = torch.softmax(products, dim=2) @ value
    return attention.project_out(mixed_NTE.transpose(0, 1).flatten(1))


def test_attention_is_a_softmax_over_the_frames_of_each_event():
    torch.manual_seed(0)
    attention, lengths = RotaryAttention(12, 3).double(), (20, 7, 1)
    x_BTH = torch.randn(3, 20, 12, dtype=torch.float64)
    found = attention(x_BTH, frames_of(20, 4, *lengths))
    for row, x_TH, length in zip(found, x_BTH, lengths, strict=True):
        expected = explicit_attention(attention, x_TH[:length])
        torch.testing.assert_close(row[:length], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [lambda: RotaryAttention(12, 3), lambda: ConvolutionModule(12, 5)])
def test_what_stands_in_the_padding_does_not_matter(make):
    torch.manual_seed(0)
    module, lengths = make(), (20, 7, 1)
    x_BTH = torch.randn(3, 20, 12)
    outside_BT1 = 1 - time_mask(torch.tensor(lengths), 20).transpose(1, 2)
    expected = module(x_BTH, frames_of(20, 4, *lengths))
    found = module(x_BTH + 1e3 * outside_BT1, frames_of(20, 4, *lengths))
    inside_BT = outside_BT1[..., 0] == 0
    torch.testing.assert_close(found[inside_BT], expected[inside_BT], rtol=0, atol=0)


def test_attention_looks_at_the_frames_of_an_event_and_at_one_of_none():
    keys_B11T = frames_of(5, 4, 5, 2, 0).keys_B11T
    assert keys_B11T[:, 0, 0].sum(1).tolist() == [5, 2, 1]


def test_products_of_rotated_numbers_know_the_distance_alone():
    query_E, key_E = torch.randn(2, 8, dtype=torch.float64)
    frames = frames_of(50, 8, 50)
    queries_TE, keys_TE = (rotated(x.expand(1, 1, 50, 8), frames)[0, 0] for x in (query_E, key_E))
    products_TT = queries_TE @ keys_TE.T
    torch.testing.assert_close(products_TT[0, 0], query_E @ key_E)
    for distance in (-20, -1, 3, 30):
        along = products_TT.diagonal(distance)
        torch.testing.assert_close(along, along[:1].expand_as(along), rtol=1e-5, atol=1e-5)
        assert (along[0] - products_TT[0, 0]).abs() > 1e-3


@pytest.mark.parametrize("numbers_per_head", [1, 5])
def test_an_odd_last_number_is_not_rotated(numbers_per_head):
    x_BNTE = torch.randn(2, 1, 9, numbers_per_head)
    found = rotated(x_BNTE, frames_of(9, numbers_per_head, 9, 3))
    assert found.shape == x_BNTE.shape
    assert torch.equal(found[..., -1], x_BNTE[..., -1])
    torch.testing.assert_close(found.norm(dim=3), x_BNTE.norm(dim=3))


def test_convolution_module_is_that_of_the_paper():
    torch.manual_seed(0)
    module, x_BTH = ConvolutionModule(6, 5), torch.randn(2, 9, 6)
    value, gate = functional.linear(x_BTH, module.expand.weight, module.expand.bias).chunk(2, 2)
    gated_BHT = (value * gate.sigmoid()).transpose(1, 2)
    weight, bias = module.depthwise.weight, module.depthwise.bias
    convolved_BHT = functional.conv1d(gated_BHT, weight, bias, padding=2, groups=6)
    active_BHT = functional.silu(functional.layer_norm(convolved_BHT.mT, (6,))).mT
    expected = functional.linear(active_BHT.mT, module.contract.weight, module.contract.bias)
    torch.testing.assert_close(module(x_BTH, frames_of(9, 6, 9, 9)), expected)


def test_a_layer_is_two_half_steps_around_attention_and_convolution():
    torch.manual_seed(0)
    layer = ConformerLayer(ConformerConfig(**SMALL), drop_probability=0.0)
    x_BTH, frames = torch.randn(2, 9, 12), frames_of(9, 6, 9, 4)
    y_BTH = x_BTH + layer.feed_in(x_BTH) / 2
    y_BTH = y_BTH + layer.attention(layer.attention_norm(y_BTH), frames)
    y_BTH = y_BTH + layer.convolution(layer.convolution_norm(y_BTH), frames)
    y_BTH = layer.norm(y_BTH + layer.feed_out(y_BTH) / 2)
    torch.testing.assert_close(layer(x_BTH, frames), y_BTH)


@pytest.mark.parametrize("stem_strides", [(4, 3), (1,), (2, 5, 1)])
def test_an_event_gives_the_same_alone_and_in_a_padded_batch(stem_strides):
    net = make_conformer(stem_strides=stem_strides).double().eval()
    x_BFT = noise(dtype=torch.float64)
    found = net(Features(LENGTHS, x_BFT))
    far = net(Features(LENGTHS, noise(449, torch.float64)))
    torch.testing.assert_close(far, found)
    for i, length in enumerate(LENGTHS.tolist()):
        alone = net(Features(LENGTHS[i : i + 1], x_BFT[i : i + 1, :, : max(length, 1)]))
        torch.testing.assert_close(alone, found[i : i + 1])
    assert found[:3].std(0).min() > 1e-4, "the events must differ for this to test anything"


@pytest.mark.parametrize(("num_samples", "num_frames"), [(301, 26), (24, 2), (1, 1)])
def test_frames_are_as_many_as_the_strides_allow(num_samples, num_frames):
    net, shapes = make_conformer(), []
    net.layers[0].register_forward_hook(lambda module, inputs, out: shapes.append(out.shape))
    net(Features(torch.full((2,), num_samples), torch.zeros(2, 3, num_samples)))
    assert shapes == [(2, num_frames, 12)]


def test_gradient_reaches_every_parameter():
    net = make_conformer(dropout=0.1).train()
    net(Features(LENGTHS, noise())).square().mean().backward()
    largest = {
        name: 0.0 if p.grad is None else p.grad.abs().max() for name, p in net.named_parameters()
    }
    assert [name for name, gradient in largest.items() if gradient < 1e-8] == []


@pytest.mark.parametrize("lengths", [(1,), (0,), (0, 1), (5, 0)])
def test_short_events_are_finite_with_gradients(lengths):
    net, lengths_B = make_conformer().train(), torch.tensor(lengths)
    x_BFT = noise(30)[: len(lengths)] * time_mask(lengths_B, 30)
    raw_BO = net(Features(lengths_B, x_BFT))
    raw_BO.square().mean().backward()
    assert raw_BO.isfinite().all()
    assert all(p.grad.isfinite().all() for p in net.parameters())


def test_regularization_grows_with_depth_and_is_for_training_alone():
    net = make_conformer(stochastic_depth=0.6, dropout=0.2)
    assert tuple(x.depth.probability for x in net.layers) == depth_probabilities(0.6, 2)
    bare = make_conformer()
    bare.load_state_dict(net.state_dict())
    features = Features(LENGTHS, noise())
    assert torch.equal(net.eval()(features), bare.eval()(features))
    assert not torch.allclose(net.train()(features), bare(features))


def test_operations_counted_by_hand():
    with torch.device("meta"):
        net = make_conformer(num_layers=1)
        with FlopCounterMode(display=False) as counter:
            net(Features(torch.full((2,), 240), torch.empty(2, 3, 240)))
    frames, width = 20, 12
    stem = 60 * 5 * 3 * 6 + 20 * 5 * 6 * 6 + 20 * 6 * width
    feed = 2 * (2 * width * 2 * width)
    attention = 4 * width * width + 2 * frames * width
    convolution = 2 * width * width + width * width + 5 * width
    weights = stem + frames * (feed + attention + convolution) + width * 5
    assert counter.get_total_flops() == 2 * 2 * weights


def test_bfloat16_is_near_float32():
    net, features = make_conformer().eval(), Features(LENGTHS, noise())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = net(features)
    torch.testing.assert_close(found.float(), net(features), rtol=0.03, atol=0.03)
