"""Letters: B batch, C microphones, P pairs, L lags, Q points of a pair."""

import math
import random

import pytest
import torch

from gerbil_tune.config.architectures import MicSetNetConfig
from gerbil_tune.errors import ConfigError
from gerbil_tune.geometry import RecordingSetup, microphone_pairs
from gerbil_tune.models.architecture import OutputShape
from gerbil_tune.models.features.features import Features, InputShapes
from gerbil_tune.models.micset_net import MicSetNet
from gerbil_tune.units import distance_to_delay_s

SMALL = MicSetNetConfig(num_channels=8, num_blocks=2, kernel_size=5, width=16, num_heads=2)
OUTPUTS = OutputShape(5)
NUM_LAGS = 101


def make_setup(num_microphones=4, seed=0):
    place = random.Random(seed).uniform
    microphones_mm = tuple(
        (place(-150, 150), place(-100, 100), place(50, 300)) for _ in range(num_microphones)
    )
    return RecordingSetup(num_microphones, 50_000.0, (300.0, 200.0), microphones_mm)


def make_network(setup, config=SMALL, planes_per_pair=1, num_lags=NUM_LAGS):
    torch.manual_seed(0)
    num_planes = planes_per_pair * len(microphone_pairs(setup.num_microphones))
    shapes = InputShapes(setup.num_microphones, 1000, num_planes, num_lags, 0, (0, 0))
    return MicSetNet(config, setup, shapes, OUTPUTS).eval()


def make_gcc(num_microphones=4, planes_per_pair=1, num_events=3, num_lags=NUM_LAGS):
    num_planes = planes_per_pair * len(microphone_pairs(num_microphones))
    generator = torch.Generator().manual_seed(1)
    return torch.randn(num_events, num_planes, num_lags, generator=generator)


def read(network, gcc_BPL):
    return network(Features(torch.full((len(gcc_BPL),), 500), gcc_BPL=gcc_BPL))


def permuted(gcc_BPL, setup, order):
    """What an array would give whose channel i is this one's channel order[i]."""
    pairs = microphone_pairs(setup.num_microphones)
    planes = []
    for repeat in range(gcc_BPL.shape[1] // len(pairs)):
        for first, second in pairs:
            one, other = order[first], order[second]
            plane = pairs.index((min(one, other), max(one, other))) + repeat * len(pairs)
            lags_BL = gcc_BPL[:, plane]
            planes.append(lags_BL.flip(-1) if one > other else lags_BL)
    microphones_mm = tuple(setup.microphones_mm[channel] for channel in order)
    other_setup = RecordingSetup(
        setup.num_microphones, setup.sample_rate_hz, setup.arena_mm, microphones_mm
    )
    return torch.stack(planes, dim=1), other_setup


@pytest.mark.parametrize("planes_per_pair", [1, 2], ids=["plain", "with envelopes"])
@pytest.mark.parametrize("order", [(1, 0, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)])
def test_the_order_of_the_microphones_makes_no_difference(order, planes_per_pair):
    setup = make_setup()
    network = make_network(setup, planes_per_pair=planes_per_pair)
    gcc_BPL = make_gcc(planes_per_pair=planes_per_pair)
    image_BPL, other_setup = permuted(gcc_BPL, setup, order)
    other = make_network(other_setup, planes_per_pair=planes_per_pair)
    other.load_state_dict(network.state_dict())
    expected = read(network, gcc_BPL)
    torch.testing.assert_close(read(other, image_BPL), expected, rtol=0, atol=1e-5)
    without_places = read(network, image_BPL)
    assert (without_places - expected).abs().max() > 1e-3, "the places must matter"
    # The lags' signs must matter too, or turning them round would test nothing.
    assert (read(network, gcc_BPL.flip(-1)) - expected).abs().max() > 1e-3


@pytest.mark.parametrize("num_microphones", [2, 8, 24])
def test_weights_fit_an_array_of_another_size(num_microphones):
    network = make_network(make_setup(4))
    other = make_network(make_setup(num_microphones, seed=1))
    other.load_state_dict(network.state_dict())
    raw = read(other, make_gcc(num_microphones, num_events=2))
    assert raw.shape == (2, OUTPUTS.num_outputs)
    assert raw.isfinite().all()


def test_weights_fit_any_number_of_lags():
    other = make_network(make_setup(), num_lags=301)
    other.load_state_dict(make_network(make_setup()).state_dict())
    assert read(other, make_gcc(num_lags=301)).isfinite().all()


def test_a_larger_copy_of_arena_and_array_has_the_same_places_and_directions():
    """Twice as large at half the sample rate: the same lags in samples."""
    setup = make_setup()
    larger = RecordingSetup(
        4,
        setup.sample_rate_hz / 2,
        tuple(2 * width for width in setup.arena_mm),
        tuple(tuple(2 * x for x in place) for place in setup.microphones_mm),
    )
    network, other = make_network(setup), make_network(larger)
    other.load_state_dict(network.state_dict())
    expected = read(network, make_gcc())
    torch.testing.assert_close(read(other, make_gcc()), expected, rtol=0, atol=1e-5)


def test_without_positions_it_says_where_to_write_them():
    with pytest.raises(ConfigError, match="attribute microphones_mm"):
        make_network(RecordingSetup(4, 50_000.0, (300.0, 200.0)))


@pytest.mark.parametrize("kernel_size", [1, 4, 7])
@pytest.mark.parametrize(("num_blocks", "num_lags"), [(1, 3), (3, 141), (6, 141)])
def test_any_kernel_and_number_of_blocks(kernel_size, num_blocks, num_lags):
    config = SMALL.model_copy(update={"kernel_size": kernel_size, "num_blocks": num_blocks})
    network = make_network(make_setup(), config, num_lags=num_lags)
    assert read(network, make_gcc(num_lags=num_lags)).isfinite().all()


@pytest.mark.parametrize("kernel_size", [4, 5])
@pytest.mark.parametrize("num_blocks", [1, 3])
def test_points_of_a_pair_are_parts_of_its_longest_lag(kernel_size, num_blocks):
    """A ramp over lags, halved as the blocks do it, is read back as the lag of each point."""
    setup, num_lags = make_setup(), 601  # so many that the ends are far from every point
    config = SMALL.model_copy(update={"kernel_size": kernel_size, "num_blocks": num_blocks})
    network = make_network(setup, config, num_lags=num_lags)
    ramp_11L = (torch.arange(num_lags, dtype=torch.float32) - num_lags // 2)[None, None]
    kernel = torch.full((1, 1, kernel_size), 1 / kernel_size)
    for _ in range(num_blocks):
        ramp_11L = torch.nn.functional.conv1d(ramp_11L, kernel, stride=2, padding=kernel_size // 2)
    found_PQ = ramp_11L[0, 0] @ network.encoder.resampling_PMQ
    for (i, j), found_Q in zip(microphone_pairs(4), found_PQ, strict=True):
        distance_mm = math.dist(setup.microphones_mm[i], setup.microphones_mm[j])
        longest = distance_to_delay_s(distance_mm) * setup.sample_rate_hz
        expected_Q = torch.linspace(-1.1, 1.1, len(found_Q)) * longest
        torch.testing.assert_close(found_Q, expected_Q, rtol=0, atol=0.01)


def test_events_do_not_depend_on_each_other():
    network, gcc_BPL = make_network(make_setup()), make_gcc()
    together = read(network, gcc_BPL)
    for event in range(3):
        alone = read(network, gcc_BPL[event : event + 1])
        torch.testing.assert_close(alone[0], together[event], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("planes_per_pair", [1, 2])
@pytest.mark.parametrize("num_layers", [0, 1])
def test_gradient_reaches_every_parameter(planes_per_pair, num_layers):
    config = SMALL.model_copy(update={"num_layers": num_layers})
    network = make_network(make_setup(), config, planes_per_pair).train()
    raw = read(network, make_gcc(planes_per_pair=planes_per_pair))
    (raw * torch.randn(raw.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
    assert [name for name, p in network.named_parameters() if not p.grad.any()] == []


def test_runs_on_the_meta_device():
    with torch.device("meta"):
        network = make_network(make_setup())
        assert read(network, torch.empty(2, 6, NUM_LAGS)).shape == (2, OUTPUTS.num_outputs)


def test_autocast_is_near_float32():
    network, gcc_BPL = make_network(make_setup()), make_gcc()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        raw = read(network, gcc_BPL)
    torch.testing.assert_close(raw.float(), read(network, gcc_BPL), rtol=0.05, atol=0.05)
