"""Imported networks compute what the programs that trained them computed."""

import itertools

import numpy as np
import pytest
import scipy.signal
import torch

from gerbil_tune.config.architectures import (
    LegacyCorrNetConfig,
    LegacySimpleNetConfig,
    LegacyWaveNetConfig,
)
from gerbil_tune.config.legacy_checkpoint import describe_network, read_legacy_config
from gerbil_tune.errors import ConfigError
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.architecture import OutputShape
from gerbil_tune.models.features.features import Features, InputShapes
from gerbil_tune.models.legacy.corrnet import LegacyCorrNet
from gerbil_tune.models.legacy.crop import first_samples, normalized, with_correlations
from gerbil_tune.models.legacy.layers import make_layers, shortest_crop
from gerbil_tune.models.legacy.simplenet import LegacySimpleNet
from gerbil_tune.models.legacy.wavenet import LegacyWaveNet
from gerbil_tune.models.legacy_weights import load_legacy_model
from tests.unit.models.legacy.predecessors import (
    NETWORKS,
    golden_input_BTC,
    save_run,
    state_dict,
)

SETUP = RecordingSetup(4, 125_000.0, (572.0, 366.0))
INPUTS = InputShapes(4, 64, 6, 1, 0, (0, 0))
OUTPUTS = OutputShape(5)
STACK = {
    "channels": (3, 4),
    "kernel_sizes": (5, 4),
    "downsample": (True, False),
    "dilations": (1, 2),
}
CONFIGS = {
    "simple": LegacySimpleNetConfig(activation="gerbilizer", crop_length=64, **STACK),
    "simple with correlations": LegacySimpleNetConfig(
        activation="gerbilizer", crop_length=64, correlations=True, **STACK
    ),
    "corr": LegacyCorrNetConfig(
        activation="vocalocator", crop_length=64, correlation_length=8, hidden=6, **STACK
    ),
    "wavenet": LegacyWaveNetConfig(num_blocks=2, channels=4, kernel_size=3, crop_length=64),
    "wavenet with pairs": LegacyWaveNetConfig(
        num_blocks=2,
        channels=4,
        kernel_size=3,
        crop_length=64,
        correlation_pairs=((0, 1), (1, 3)),
        correlation_length=8,
        correlation_hidden=6,
    ),
}
CLASSES = {
    "legacy-simplenet": LegacySimpleNet,
    "legacy-corrnet": LegacyCorrNet,
    "legacy-wavenet": LegacyWaveNet,
}

every_network = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


def build(config):
    torch.manual_seed(0)
    return CLASSES[config.kind](config, SETUP, INPUTS, OUTPUTS)


def imported(name, folder):
    tree, era, shapes, *_ = NETWORKS[name]
    path = save_run(folder, tree, state_dict(shapes))
    network = describe_network(read_legacy_config(path), era, "lab")
    return load_legacy_model(network, path.with_name("best_weights.pt")).network


def noise_BCT(num_events=3, num_samples=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_events, 4, num_samples, generator=generator)


def features(waveform_BFT):
    return Features(torch.full((len(waveform_BFT),), waveform_BFT.shape[2]), waveform_BFT)


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_are_those_of_the_program_that_trained_it(name, tmp_path):
    *_, num_parameters, expected = NETWORKS[name]
    network = imported(name, tmp_path)
    assert sum(parameter.numel() for parameter in network.parameters()) == num_parameters
    with torch.no_grad():
        raw_BO = network.read(golden_input_BTC().mT)
    torch.testing.assert_close(raw_BO, torch.tensor(expected), rtol=1e-5, atol=5e-7)


def test_corrnet_sees_the_correlations_that_it_was_trained_on(tmp_path):
    network = imported("vocalocator-corr", tmp_path)
    seen = network.correlate(golden_input_BTC().mT)[0]
    assert seen.shape == (384,)
    expected = torch.tensor([166.204, 24.5327, 34.5595, -195.385])
    torch.testing.assert_close(seen[:4], expected, rtol=1e-5, atol=0)
    assert float(seen.sum()) == pytest.approx(6534.29, rel=1e-5)


def test_wavenet_sees_the_correlations_that_it_was_trained_on(tmp_path):
    network = imported("vocalocator-wavenet-pairs", tmp_path)
    seen = network.correlate(golden_input_BTC().mT)[0].flatten()
    assert seen.shape == (128,)
    expected = torch.tensor([-15.8419, -16.3862, -16.9291, -17.4702])
    torch.testing.assert_close(seen[:4], expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("num_samples", [10, 64, 100])
def test_the_crop_is_the_beginning_and_ends_in_zeros(num_samples):
    audio_BCT = noise_BCT(num_samples=num_samples)
    crop_BCT = first_samples(features(audio_BCT), 64)
    assert crop_BCT.shape == (3, 4, 64)
    kept = min(num_samples, 64)
    assert torch.equal(crop_BCT[..., :kept], audio_BCT[..., :kept])
    assert not crop_BCT[..., kept:].any()


def test_a_crop_is_normalized_over_all_of_it():
    crop_BCT = 3 + 5 * noise_BCT()
    crop_BCT[..., 40:] = 0
    for crop, result in zip(crop_BCT.numpy(), normalized(crop_BCT).numpy(), strict=True):
        np.testing.assert_allclose(result, (crop - crop.mean()) / crop.std(ddof=1), atol=1e-6)


@pytest.mark.parametrize("num_samples", [63, 64])
def test_correlations_are_further_channels(num_samples):
    crop_BCT = 2 + noise_BCT(num_samples=num_samples)
    whole_BCT = with_correlations(crop_BCT)
    assert whole_BCT.shape == (3, 10, num_samples)
    torch.testing.assert_close(whole_BCT[:, :4], normalized(crop_BCT))
    for crop, result in zip(crop_BCT.numpy(), whole_BCT[:, 4:].numpy(), strict=True):
        pairs = itertools.combinations(crop.astype(np.float64), 2)
        lags = np.stack([scipy.signal.correlate(a, b, "same") for a, b in pairs])
        np.testing.assert_allclose(result, (lags - lags.mean()) / lags.std(ddof=1), atol=1e-4)


def test_corrnet_correlations_are_half_a_crop_away_from_zero_lag():
    crop_BCT = noise_BCT(1)
    seen_LP = build(CONFIGS["corr"]).correlate(crop_BCT).reshape(8, 6)
    first, second = crop_BCT[0, 0], crop_BCT[0, 3]
    expected = [float((first * second.roll(lag)).sum()) for lag in range(28, 36)]
    torch.testing.assert_close(seen_LP[:, 2], torch.tensor(expected), rtol=1e-4, atol=1e-4)


def test_wavenet_correlations_are_of_the_middle_and_around_zero_lag():
    crop_BCT = noise_BCT(1)
    crop_BCT[0, 3] = crop_BCT[0, 1].roll(-2)
    seen_PL = build(CONFIGS["wavenet with pairs"]).correlate(crop_BCT)[0]
    first, second = crop_BCT[0, 1, 28:36], crop_BCT[0, 3, 28:36]
    expected = [
        sum(float(first[t + lag] * second[t]) for t in range(8) if 0 <= t + lag < 8)
        for lag in range(-4, 4)
    ]
    torch.testing.assert_close(seen_PL[1], torch.tensor(expected), rtol=1e-4, atol=1e-4)


@every_network
def test_only_the_crop_counts(config):
    network = build(config).eval()
    audio_BCT = noise_BCT(num_samples=64)
    with torch.no_grad():
        expected = network(features(audio_BCT))
        longer = network(features(torch.cat([audio_BCT, noise_BCT(seed=1)], dim=2)))
        louder = network(features(1000 * audio_BCT))
        alone = network(features(audio_BCT[:1]))
    assert expected.shape == (3, 5)
    assert expected.std(0).max() > 1e-3
    assert torch.equal(longer, expected)
    torch.testing.assert_close(louder, expected, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(alone, expected[:1], rtol=1e-4, atol=1e-5)


@every_network
def test_it_can_be_trained_on(config):
    network = build(config).train()
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    network(features(noise_BCT(6))).square().sum().backward()
    without = [name for name, p in network.named_parameters() if not p.grad.any()]
    assert without == []
    for name, buffer in network.named_buffers():
        assert not torch.equal(buffer, before[name]), name


@every_network
def test_silence_is_finite(config):
    network = build(config).train()
    audio_BCT = torch.zeros(2, 4, 1)
    raw_BO = network(features(audio_BCT))
    raw_BO.sum().backward()
    assert raw_BO.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


def test_the_shortest_crop_gives_one_value():
    layers = make_layers(CONFIGS["simple"], in_channels=4).eval()
    shortest = shortest_crop(CONFIGS["simple"])
    assert layers(noise_BCT(num_samples=shortest)).shape[2] == 1
    with pytest.raises(RuntimeError):
        layers(noise_BCT(num_samples=shortest - 1))


def test_the_receptive_fields_of_the_predecessors_defaults():
    """As stated for their programs: 1909 and 1985 samples."""
    gerbilizer = LegacySimpleNetConfig(
        activation="gerbilizer",
        channels=(16, 16, 16, 32, 32, 32, 64),
        kernel_sizes=(19, 7, 39, 41, 23, 29, 33),
        downsample=(False, True, True, True, True, True, False),
        dilations=(1,) * 7,
        crop_length=8192,
    )
    vocalocator = LegacySimpleNetConfig(
        activation="vocalocator",
        channels=(16, 16, 32, 32, 64, 64, 128, 128, 256, 256),
        kernel_sizes=(33,) * 10,
        downsample=(False, True) * 5,
        dilations=(1,) * 10,
        crop_length=8192,
    )
    assert shortest_crop(gerbilizer) == 1909
    assert shortest_crop(vocalocator) == 1985


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("simple", {"crop_length": 10}, r"model/crop_length must be at least 17.* but is 10"),
        ("corr", {"correlation_length": 7}, r"correlation_length must be even .* 7 and 64"),
        ("corr", {"correlation_length": 66}, r"correlation_length must .* 66 and 64"),
        ("wavenet with pairs", {"correlation_length": 9}, r"must be even .* 9 and 64"),
        ("wavenet with pairs", {"correlation_pairs": ((0, 4),)}, r"names channel 4, .* 0 to 3"),
    ],
)
def test_sizes_that_their_programs_could_not_run_are_refused(name, changes, message):
    with pytest.raises(ConfigError, match=message):
        build(CONFIGS[name].model_copy(update=changes))


@every_network
def test_other_channels_than_the_microphones_are_refused(config):
    inputs = InputShapes(8, 64, 6, 1, 0, (0, 0))
    with pytest.raises(ConfigError, match="8 channels of 4 microphones"):
        CLASSES[config.kind](config, SETUP, inputs, OUTPUTS)
