"""Spectra are kept as long as a weight stays as it is, and not a step longer."""

import gc
from collections.abc import Callable

import pytest
import torch
from torch import nn

from gerbil_tune.models.fast_conv import conv1d
from gerbil_tune.models.kernel_spectra import SpectraStore


def _layer() -> nn.Conv1d:
    torch.manual_seed(0)
    return nn.Conv1d(32, 64, 33)


def _step(
    make: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
) -> Callable[[nn.Conv1d], None]:
    def change(layer: nn.Conv1d) -> None:
        optimizer = make([layer.weight])
        layer.weight.grad = torch.ones_like(layer.weight)
        optimizer.step()

    return change


def _load(layer: nn.Conv1d) -> None:
    layer.load_state_dict({name: 2 * tensor for name, tensor in layer.state_dict().items()})


def _average(layer: nn.Conv1d) -> None:
    torch._foreach_lerp_([layer.weight.detach()], [torch.ones_like(layer.weight)], 0.5)


def _replace(layer: nn.Conv1d) -> None:
    layer.weight = nn.Parameter(2 * layer.weight.detach())


CHANGES = {
    "SGD": _step(lambda weights: torch.optim.SGD(weights, 0.1, momentum=0.7)),
    "SGD, fused": _step(lambda weights: torch.optim.SGD(weights, 0.1, fused=True)),
    "Adam, foreach": _step(lambda weights: torch.optim.Adam(weights, 0.1, foreach=True)),
    "AdamW, fused": _step(lambda weights: torch.optim.AdamW(weights, 0.1, fused=True)),
    "load_state_dict": _load,
    "average": _average,
    "replaced": _replace,
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("no_gradients", [torch.no_grad, torch.inference_mode])
def test_changed_weights_are_transformed_anew(
    name: str, no_gradients: Callable[[], torch.no_grad | torch.inference_mode]
) -> None:
    layer = _layer()
    x_BCT = torch.randn(2, 32, 500)
    with no_gradients():
        before = conv1d(x_BCT, layer.weight, layer.bias)
    CHANGES[name](layer)
    with no_gradients():
        after = conv1d(x_BCT, layer.weight, layer.bias)
        again = conv1d(x_BCT, layer.weight, layer.bias)
        expected = nn.functional.conv1d(x_BCT, layer.weight, layer.bias)
    torch.testing.assert_close(after, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    torch.testing.assert_close(again, after, rtol=0, atol=0)
    assert not torch.allclose(after, before, atol=1e-3)


def test_kept_spectra_change_no_digit() -> None:
    layer = _layer()
    x_BCT = torch.randn(2, 32, 500)
    with_gradients = conv1d(x_BCT, layer.weight, layer.bias)
    with torch.inference_mode():
        for _ in range(2):
            torch.testing.assert_close(
                conv1d(x_BCT, layer.weight, layer.bias), with_gradients, rtol=0, atol=0
            )


def test_they_go_with_the_weight_and_there_is_a_limit() -> None:
    store, spectra = SpectraStore(most_bytes=100), torch.zeros(20)  # 80 bytes
    first, second = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(3))
    store.keep(first, "a", spectra)
    store.keep(second, "a", spectra)
    assert store.find(first, "a") is spectra
    assert store.find(first, "b") is None
    assert store.find(second, "a") is None, "no room"
    del first
    gc.collect()
    store.keep(second, "a", spectra)
    assert store.find(second, "a") is spectra


def test_nothing_is_kept_of_tensors_that_are_made_for_a_call() -> None:
    store, weight = SpectraStore(), torch.zeros(3)
    store.keep(weight, "a", torch.zeros(20))
    assert store.find(weight, "a") is None
