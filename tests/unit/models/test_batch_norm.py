"""Letters: B batch, C channels, T samples. Over several workers it is tested in the integration tests."""

import pytest
import torch
from torch import nn

from gerbil_tune.models.batch_norm import MaskedBatchNorm, use_statistics_of
from gerbil_tune.models.scaling import time_mask

LENGTHS = torch.tensor([7, 3, 12])


def make(num_channels=4):
    torch.manual_seed(0)
    norm = MaskedBatchNorm(num_channels)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm


def noise(num_samples=12):
    generator = torch.Generator().manual_seed(1)
    return 5 + 3 * torch.randn(3, 4, 40, generator=generator)[..., :num_samples]


def test_without_padding_it_is_that_of_torch():
    norm, expected = make(), nn.BatchNorm1d(4)
    expected.load_state_dict(norm.state_dict())
    x_BCT = noise().requires_grad_()
    for _ in range(3):
        torch.testing.assert_close(norm(x_BCT), expected(x_BCT))
    (norm(x_BCT) ** 3).sum().backward()
    found, x_BCT.grad = x_BCT.grad, None
    (expected(x_BCT) ** 3).sum().backward()
    torch.testing.assert_close(found, x_BCT.grad, rtol=1e-4, atol=1e-4)
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(norm.state_dict()[name], value)
    torch.testing.assert_close(norm.eval()(x_BCT), expected.eval()(x_BCT))


def test_padding_counts_for_nothing():
    results = []
    for num_samples in (12, 40):
        norm, mask_B1T = make(), time_mask(LENGTHS, num_samples)
        y_BCT = norm(noise(num_samples), mask_B1T) * mask_B1T
        results.append((y_BCT[..., :12], norm.running_mean, norm.running_var))
    for short, long in zip(*results, strict=True):
        torch.testing.assert_close(short, long)
    inside = torch.cat([row[:, :n] for row, n in zip(noise(), LENGTHS, strict=True)], dim=1)
    torch.testing.assert_close(results[0][1], 0.1 * inside.mean(1))
    torch.testing.assert_close(results[0][2], 0.9 + 0.1 * inside.var(1))


def test_frozen_statistics_are_used_and_stay_as_they_are():
    norm = make()
    norm(noise())
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    use_statistics_of(norm, "running")
    found = norm(noise())
    assert all(torch.equal(before[name], value) for name, value in norm.state_dict().items())
    torch.testing.assert_close(found, norm.eval()(noise()))


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_a_large_offset_does_not_cancel(scale):
    x_BCT = noise() * scale + 1e4 * scale
    y_BCT = make()(x_BCT) - make().bias[:, None]
    spread = y_BCT.transpose(0, 1).flatten(1).std(1) / make().weight.abs()
    torch.testing.assert_close(spread, torch.ones(4), rtol=0.05, atol=0)


def test_one_value_a_channel_is_no_error():
    norm = make()
    assert norm(torch.ones(1, 4, 1)).isfinite().all()
    assert norm.running_var.isfinite().all()


def test_it_computes_in_float32_under_autocast():
    norm = make()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y_BCT = norm(noise().bfloat16())
    assert y_BCT.dtype == torch.bfloat16
    torch.testing.assert_close(y_BCT.float(), make()(noise().bfloat16().float()).bfloat16().float())
