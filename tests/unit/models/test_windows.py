"""Letters: B batch, F planes, T samples, H hidden."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gerbil_tune.config.architectures import (
    ConformerConfig,
    ConvStackConfig,
    CorrNetConfig,
    DenseNetConfig,
    LagEncoderConfig,
    ResNetConfig,
    SimpleNetConfig,
    WaveNetConfig,
)
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.architecture import OutputShape
from gerbil_tune.models.conformer import Conformer
from gerbil_tune.models.conv import ConvStack, masked_mean
from gerbil_tune.models.corrnet import CorrNet
from gerbil_tune.models.densenet import DenseNet
from gerbil_tune.models.features.features import Features, InputShapes
from gerbil_tune.models.resnet import ResNet
from gerbil_tune.models.scaling import time_mask
from gerbil_tune.models.simplenet import SimpleNet
from gerbil_tune.models.wavenet import WaveNet
from gerbil_tune.models.windows import pooled_over_windows

SETUP = RecordingSetup(3, 50_000.0, (572.0, 356.0))
WINDOW = 40
LENGTHS = torch.tensor([130, 80, 81, 0, 1, 40])
STACK = ConvStackConfig(
    channels=(4, 5), kernel_sizes=(5, 4), downsample=(True, False), dilations=(1, 2)
)


def noise(lengths_B, num_samples, num_planes=3):
    generator = torch.Generator().manual_seed(0)
    x_BFT = torch.randn(len(lengths_B), num_planes, 400, generator=generator)[..., :num_samples]
    return x_BFT * time_mask(lengths_B, num_samples)


def make_encoder():
    torch.manual_seed(0)
    return ConvStack(STACK, 3)


def test_it_is_a_loop_over_windows():
    encoder, x_BFT = make_encoder(), noise(LENGTHS, 130)
    expected = []
    for x_FT, length in zip(x_BFT, LENGTHS.tolist(), strict=True):
        vectors, counts = [], []
        for start in range(0, max(length, 1), WINDOW):
            stop = max(min(start + WINDOW, length), 1)
            counts.append(min(stop, length) - start)
            vectors.append(encoder(x_FT[None, :, start:stop], torch.tensor(counts[-1:]))[0])
        weights = torch.tensor(counts) / max(length, 1) if length else torch.ones(1)
        expected.append((torch.stack(vectors) * weights[:, None]).sum(0))
    found = pooled_over_windows(encoder, x_BFT, LENGTHS, WINDOW)
    torch.testing.assert_close(found, torch.stack(expected))


def test_windows_without_samples_are_not_run():
    seen = []

    def encoder(x_BFT, lengths_B):
        seen.append((tuple(x_BFT.shape), sorted(lengths_B.tolist())))
        return masked_mean(x_BFT, time_mask(lengths_B, x_BFT.shape[2]))

    pooled_over_windows(encoder, noise(LENGTHS, 130), LENGTHS, WINDOW)
    # 130 = 3 * 40 + 10, 80 = 2 * 40, 81 = 2 * 40 + 1; the event without samples has one row.
    assert seen == [((12, 3, WINDOW), [0, 1, 1, 10, *[40] * 8])]


@pytest.mark.parametrize("num_samples", [WINDOW, WINDOW - 1, 1])
def test_short_batches_are_encoded_as_they_are(num_samples):
    lengths_B = LENGTHS.clamp(max=num_samples)
    encoder, x_BFT = make_encoder(), noise(lengths_B, num_samples)
    found = pooled_over_windows(encoder, x_BFT, lengths_B, WINDOW)
    assert torch.equal(found, encoder(x_BFT, lengths_B))


def test_padding_and_company_do_not_matter():
    encoder = make_encoder()
    together = pooled_over_windows(encoder, noise(LENGTHS, 130), LENGTHS, WINDOW)
    far = pooled_over_windows(encoder, noise(LENGTHS, 333), LENGTHS, WINDOW)
    torch.testing.assert_close(far, together)
    for i, length in enumerate(LENGTHS.tolist()):
        alone_BFT = noise(LENGTHS, 130)[i : i + 1, :, : max(length, 1)]
        alone = pooled_over_windows(encoder, alone_BFT, LENGTHS[i : i + 1], WINDOW)
        torch.testing.assert_close(alone, together[i : i + 1])


@given(
    lengths=st.lists(st.integers(0, 60), min_size=1, max_size=5),
    window_length=st.integers(1, 70),
    padding=st.integers(0, 20),
)
@settings(deadline=None, max_examples=60)
def test_means_of_windows_make_the_mean_of_the_event(lengths, window_length, padding):
    lengths_B = torch.tensor(lengths)
    x_BFT = noise(lengths_B, max(1, *lengths) + padding)

    def mean(x_BFT, lengths_B):
        return masked_mean(x_BFT, time_mask(lengths_B, x_BFT.shape[2]))

    found = pooled_over_windows(mean, x_BFT, lengths_B, window_length)
    torch.testing.assert_close(found, mean(x_BFT, lengths_B))


def test_gradients_are_those_of_the_weighted_sum():
    lengths_B = torch.tensor([25, 0])
    x_BFT = noise(lengths_B, 30).requires_grad_()

    def total(x_BFT, lengths_B):
        return x_BFT.sum(2)

    pooled_over_windows(total, x_BFT, lengths_B, 10).sum().backward()
    by_window = torch.tensor([0.4, 0.4, 0.2]).repeat_interleave(10)
    torch.testing.assert_close(x_BFT.grad[0], by_window.expand(3, 30))
    assert x_BFT.grad.isfinite().all()


NETWORKS = [
    (SimpleNet, SimpleNetConfig(conv=STACK)),
    (DenseNet, DenseNetConfig(num_stages=3, growth=4, kernel_size=5)),
    (CorrNet, CorrNetConfig(conv=STACK, lags=LagEncoderConfig(num_blocks=1), hidden=8)),
    (WaveNet, WaveNetConfig(num_channels=4, num_blocks=2, hidden=8)),
    (ResNet, ResNetConfig(num_channels=4, num_stages=2, blocks_per_stage=1)),
    (Conformer, ConformerConfig(width=8, num_layers=1, num_heads=2, stem_strides=(4,))),
]


@pytest.mark.parametrize(
    ("architecture", "config"), NETWORKS, ids=[config.kind for _, config in NETWORKS]
)
def test_networks_see_long_events_in_windows(architecture, config):
    torch.manual_seed(0)
    inputs = InputShapes(3, WINDOW, 3, 21, 0, (0, 0))
    network = architecture(config, SETUP, inputs, OutputShape(5)).eval()
    once_B, twice_B = torch.tensor([WINDOW, WINDOW]), torch.tensor([2 * WINDOW, 2 * WINDOW])
    x_BFT, gcc_BPL = noise(once_B, WINDOW), noise(once_B, 21)
    expected = network(Features(once_B, x_BFT, gcc_BPL))
    found = network(Features(twice_B, x_BFT.repeat(1, 1, 2), gcc_BPL))
    assert expected.shape == (2, 5)
    torch.testing.assert_close(found, expected)
