"""Tiles against torch's own convolution.

Letters: B batch, C input channels, O output channels, T samples, K taps.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from gerbil_tune.models import fast_conv, tiled_conv
from gerbil_tune.models.fast_conv import conv1d
from gerbil_tune.models.tiled_conv import best_tiling

NUM_TAPS = 33


@pytest.fixture
def always_tiles(monkeypatch):
    """Take tiles for whatever can be cut into them."""
    monkeypatch.setattr(fast_conv, "_WORTH", float("inf"))
    monkeypatch.setattr(fast_conv, "_has_amx", lambda: False)


def noise(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=dtype)


def direct(x_BCT, weight_OCK, bias_O, *, stride=1, dilation=1, padding=(0, 0)):
    return functional.conv1d(
        functional.pad(x_BCT, padding), weight_OCK, bias_O, stride, 0, dilation
    )


def is_tiled(y_BOT):
    return type(y_BOT.grad_fn).__name__ == "_TiledBackward"


def worthwhile(dtype, num_samples=700):
    """Arguments of a convolution that tiles are taken for."""
    weight_OCK = noise(128, 64, NUM_TAPS, seed=1, dtype=dtype).requires_grad_()
    return noise(2, 64, num_samples, dtype=dtype), weight_OCK, noise(128, seed=2, dtype=dtype)


@st.composite
def convolutions(draw):
    num_taps, stride = draw(st.integers(1, 70)), draw(st.integers(1, 3))
    padding = draw(st.tuples(st.integers(0, 40), st.integers(0, 40)))
    shortest = max(1, num_taps - sum(padding))
    num_samples = draw(st.integers(shortest, shortest + 300))
    num_events, num_channels, num_outputs = draw(st.tuples(*[st.integers(1, 5)] * 3))
    x_BCT = noise(num_events, num_channels, num_samples)
    weight_OCK = noise(num_outputs, num_channels, num_taps, seed=1)
    bias_O = draw(st.sampled_from([None, noise(num_outputs, seed=2)]))
    return (x_BCT, weight_OCK, bias_O), {"stride": stride, "padding": padding}


@settings(deadline=None, max_examples=60)
@given(convolutions())
def test_it_is_the_direct_convolution_and_so_are_its_gradients(convolution):
    arguments, options = convolution
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fast_conv, "_WORTH", float("inf"))
        inputs = [tensor.clone().requires_grad_() for tensor in arguments if tensor is not None]
        padded_with_none = (*inputs, None)[:3]
        result = conv1d(*padded_with_none, **options)
        expected = direct(*padded_with_none, **options)
        assert is_tiled(result)
        torch.testing.assert_close(result, expected)
        assert result.is_contiguous()
        weights = noise(*result.shape, seed=3)
        gradients = torch.autograd.grad(result, inputs, weights)
        torch.testing.assert_close(gradients, torch.autograd.grad(expected, inputs, weights))


@pytest.mark.parametrize("stride", [1, 2])
def test_gradients_are_those_of_finite_differences(always_tiles, stride):
    inputs = noise(2, 2, 50), noise(3, 2, NUM_TAPS, seed=1), noise(3, seed=2)
    for tensor in inputs:
        tensor.requires_grad_()

    def convolve(*tensors):
        return conv1d(*tensors, stride=stride, padding=(3, 20))

    assert torch.autograd.gradcheck(convolve, inputs, fast_mode=True)


@pytest.mark.parametrize("wanted", [0, 1, 2])
def test_only_the_gradients_that_are_wanted(always_tiles, wanted):
    inputs = [noise(2, 2, 90), noise(3, 2, NUM_TAPS, seed=1), noise(3, seed=2)]
    inputs[wanted].requires_grad_()
    conv1d(*inputs).square().sum().backward()
    gradient = inputs[wanted].grad
    inputs[wanted].grad = None
    direct(*inputs).square().sum().backward()
    torch.testing.assert_close(gradient, inputs[wanted].grad)


@pytest.mark.parametrize("stride", [1, 2])
def test_events_and_outputs_in_parts(always_tiles, monkeypatch, stride):
    inputs = [noise(5, 3, 300), noise(7, 3, NUM_TAPS, seed=1), noise(7, seed=2)]
    for tensor in inputs:
        tensor.requires_grad_()
    expected = direct(*inputs, stride=stride)
    expected_gradients = torch.autograd.grad(expected.square().sum(), inputs)
    monkeypatch.setattr(tiled_conv, "_FEWEST_BYTES", 1)
    monkeypatch.setattr(tiled_conv, "_MOST_BYTES", 200_000)
    monkeypatch.setattr(tiled_conv, "_KERNEL_BYTES", 12_000)
    result = conv1d(*inputs, stride=stride)
    torch.testing.assert_close(result, expected)
    gradients = torch.autograd.grad(result.square().sum(), inputs)
    torch.testing.assert_close(gradients, expected_gradients)


def test_memory_that_is_used_again_leaves_no_trace(always_tiles, monkeypatch):
    """Whatever a part finds there, NaN as well, does not count."""
    arguments = noise(2, 3, 300), noise(7, 3, NUM_TAPS, seed=1), None
    expected = conv1d(*arguments)

    class Poisoned(tiled_conv.BufferPool):
        def empty(self, shape, dtype):
            return super().empty(shape, dtype).fill_(float("nan"))

    monkeypatch.setattr(tiled_conv, "_POOL", Poisoned())
    assert torch.equal(conv1d(*arguments), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_digits(monkeypatch, dtype):
    """Against float64; bfloat16 has 8 digits, and some roundings follow each other."""
    arguments = worthwhile(dtype)
    monkeypatch.setattr(fast_conv, "_has_amx", lambda: False)
    result = conv1d(*arguments)
    assert is_tiled(result)
    expected = direct(*(tensor.double() for tensor in arguments))
    error = (result - expected).norm() / expected.norm()
    assert error < 3 * torch.finfo(dtype).eps


def test_autocast_computes_in_its_type_and_gives_gradients_of_the_weights():
    x_BCT, weight_OCK, bias_O = worthwhile(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        result = conv1d(x_BCT, weight_OCK, bias_O)
    assert result.dtype == torch.bfloat16
    result.float().square().sum().backward()
    assert weight_OCK.grad.dtype == torch.float32
    (expected,) = torch.autograd.grad(direct(x_BCT, weight_OCK, bias_O).square().sum(), weight_OCK)
    assert (weight_OCK.grad - expected).norm() < 0.02 * expected.norm()


def test_the_same_again_bit_by_bit():
    def run():
        x_BCT, weight_OCK, bias_O = worthwhile(torch.float32)
        result = conv1d(x_BCT, weight_OCK, bias_O)
        (gradient,) = torch.autograd.grad(result.square().sum(), weight_OCK)
        return result.detach(), gradient

    first, second = run(), run()
    assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))


def test_an_event_does_not_depend_on_padding_or_company(always_tiles):
    x_BCT, weight_OCK, bias_O = worthwhile(torch.float32)
    together = conv1d(x_BCT, weight_OCK, bias_O, padding=(16, 16))
    x_BCT[1] = float("nan")
    longer_BCT = functional.pad(x_BCT, (0, 1000))
    for other_BCT in (x_BCT[:1], x_BCT, longer_BCT):
        alone = conv1d(other_BCT, weight_OCK, bias_O, padding=(16, 16))
        # As close as rounding relative to the largest value in a tile is.
        torch.testing.assert_close(alone[0, :, :700], together[0], rtol=1e-5, atol=1e-4)


def test_some_events_at_a_time_where_no_gradients_are_wanted(monkeypatch):
    monkeypatch.setattr(fast_conv, "_PART_BYTES", 2 * 4 * 8 * 40)
    arguments = noise(7, 3, 40), noise(8, 3, 5, seed=1), noise(8, seed=2)
    with torch.no_grad():
        result = conv1d(*arguments, padding=(2, 2))
    torch.testing.assert_close(result, direct(*arguments, padding=(2, 2)))


@pytest.mark.parametrize(
    ("shape_OCK", "num_samples", "options"),
    [
        ((128, 64, NUM_TAPS), 8192, {"dilation": 2}),
        ((128, 64, 3), 8192, {}),
        ((32, 4, NUM_TAPS), 8192, {}),
        ((128, 64, NUM_TAPS), 40, {}),
    ],
    ids=["dilation", "few taps", "few channels", "short"],
)
def test_direct_where_tiles_save_little(shape_OCK, num_samples, options):
    weight_OCK = noise(*shape_OCK, dtype=torch.float32).requires_grad_()
    x_BCT = noise(1, shape_OCK[1], num_samples, dtype=torch.float32)
    result = conv1d(x_BCT, weight_OCK, None, **options)
    assert not is_tiled(result)
    assert torch.equal(result, direct(x_BCT, weight_OCK, None, **options))


def test_tiles_where_they_save_much():
    assert is_tiled(conv1d(*worthwhile(torch.float32)))


@pytest.mark.parametrize(
    ("dtype", "num_samples", "expected"),
    [(torch.bfloat16, 700, False), (torch.bfloat16, 6000, True), (torch.float32, 700, True)],
)
def test_tiles_must_save_more_in_bfloat16_beside_amx(monkeypatch, dtype, num_samples, expected):
    monkeypatch.setattr(fast_conv, "_has_amx", lambda: True)
    assert is_tiled(conv1d(*worthwhile(dtype, num_samples))) == expected


def test_shapes_alone_go_the_direct_way():
    with torch.device("meta"):
        x_BCT, weight_OCK = torch.empty(4, 64, 8192), torch.empty(128, 64, NUM_TAPS)
    assert conv1d(x_BCT, weight_OCK, None, stride=2).shape == (4, 128, 4080)


def test_without_events():
    x_BCT, weight_OCK, bias_O = worthwhile(torch.float32)
    result = conv1d(x_BCT[:0], weight_OCK, bias_O)
    result.sum().backward()
    assert result.shape == (0, 128, 668)
    assert not weight_OCK.grad.any()


def test_a_kernel_longer_than_the_input_is_refused_as_torch_does():
    with pytest.raises(RuntimeError, match="ernel size"):
        conv1d(noise(1, 64, 20), noise(128, 64, NUM_TAPS), None)


def test_mixed_types_are_refused_as_torch_does():
    x_BCT, weight_OCK, _ = worthwhile(torch.float32)
    with pytest.raises(RuntimeError, match="type"):
        conv1d(x_BCT.double(), weight_OCK, None)


@pytest.mark.parametrize(("num_taps", "stride"), [(33, 1), (33, 2), (51, 2), (7, 1), (257, 1)])
def test_a_tile_holds_its_output_and_the_taps(num_taps, stride):
    tiling = best_tiling(64, 64, num_taps, stride)
    overlap = tiling.tile_length - tiling.output_length
    assert -(-num_taps // stride) - 1 <= overlap <= tiling.output_length


def test_no_tiling_for_a_kernel_beyond_the_longest_tile():
    assert best_tiling(64, 64, 258, 1) is None
    x_BCT, weight_OCK = noise(1, 2, 600), noise(2, 2, 300, seed=1)
    assert torch.equal(conv1d(x_BCT, weight_OCK, None), direct(x_BCT, weight_OCK, None))


@pytest.mark.filterwarnings("ignore")  # the compiler asks tensors for what they warn about
def test_a_compiled_network_takes_it_as_it_is():
    arguments = worthwhile(torch.float32)
    try:
        result = torch.compile(conv1d, backend="eager")(*arguments)
    finally:
        torch.compiler.reset()
    assert is_tiled(result)
    assert torch.equal(result, conv1d(*arguments))
