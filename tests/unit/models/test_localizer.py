"""Letters: B batch, C microphones, T samples."""

import pytest
import torch

from gerbil_tune.config.features import GccConfig
from gerbil_tune.config.schema import ExperimentConfig, ScalingConfig
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.localizer import Localizer, autocast_dtype
from gerbil_tune.models.registry import ARCHITECTURES

MICROPHONES_MM = ((-286.0, 0.0, 100.0), (286.0, 0.0, 100.0), (0.0, 178.0, 100.0))
SETUP = RecordingSetup(3, 50_000.0, (572.0, 356.0), MICROPHONES_MM)
KINDS = [kind for kind in sorted(ARCHITECTURES) if not kind.startswith("legacy-")]
CPU = torch.device("cpu")


def make_config(kind="gcc-net", **sections):
    return ExperimentConfig(**{"model": {"kind": kind}, **sections})


@pytest.mark.parametrize("kind", KINDS)
def test_features_are_those_that_the_architecture_uses(kind):
    model = Localizer(make_config(kind), SETUP)
    features = model.extractor(torch.randn(2, 700, 3), torch.tensor([700, 300]))
    assert type(model.network) is ARCHITECTURES[kind]
    given = {"waveform": features.waveform_BFT, "gcc": features.gcc_BPL, "maps": features.maps_BFYX}
    assert {name for name, part in given.items() if part is not None} == model.network.uses


def test_correlations_are_of_the_scaled_audio():
    """Plain correlation sees loudness: per-channel scores make a loud microphone as loud as the rest."""
    audio_BTC = torch.randn(1, 700, 3) * torch.tensor([1.0, 1.0, 50.0])
    features = {"gcc": GccConfig(exponent=0.0)}

    def planes(kind):
        config = make_config(features=features, scaling=ScalingConfig(audio={"kind": kind}))
        gcc_BPL = Localizer(config, SETUP).extractor(audio_BTC, torch.tensor([700])).gcc_BPL
        return gcc_BPL[0].square().mean(1)

    assert planes("event_zscore")[0] < 0.01
    assert planes("channel_zscore")[0] > 0.3


def test_envelopes_double_the_planes_of_the_network():
    config = make_config(features={"gcc": GccConfig(envelope=True)})
    model = Localizer(config, SETUP).eval()
    assert model(torch.randn(2, 700, 3), torch.tensor([700, 300])).shape == (2, 5)


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_is_one_of_the_network(kind):
    """The network alone is what workers share: a parameter elsewhere would drift apart."""
    model = Localizer(make_config(kind), SETUP)
    assert {id(p) for p in model.parameters()} == {id(p) for p in model.network.parameters()}
    assert {name.partition(".")[0] for name in model.state_dict()} == {"network"}


@pytest.mark.parametrize("kind", KINDS)
def test_reading_features_is_the_same_as_reading_audio(kind):
    model = Localizer(make_config(kind, training={"precision": "float32"}), SETUP).eval()
    audio_BTC, lengths_B = torch.randn(2, 700, 3), torch.tensor([700, 300])
    audio_BTC[1, 300:] = 0
    features = model.extractor(audio_BTC, lengths_B)
    expected = model(audio_BTC, lengths_B)
    assert torch.equal(model.read(features), expected)
    assert torch.equal(model.read(features, torch.nn.Sequential(model.network)), expected)


@pytest.mark.parametrize(
    ("precision", "expected"), [("float32", None), ("bfloat16", torch.bfloat16)]
)
def test_precision_is_as_configured(precision, expected):
    config = make_config(training={"precision": precision})
    assert autocast_dtype(config, CPU) is expected


def test_precision_auto_keeps_the_lag_network_in_float32_on_a_cpu():
    assert autocast_dtype(make_config(), CPU) is None
    assert autocast_dtype(make_config("simplenet"), CPU) in (None, torch.bfloat16)
