"""What every architecture promises; a new one in the registry is tested without a line here."""

import shutil
from pathlib import Path
from typing import get_args

import pytest
import torch

from gerbil_tune.config.architectures import ModelConfig
from gerbil_tune.config.schema import (
    AudioGain,
    ChannelZScore,
    EventZScore,
    ExperimentConfig,
    LocationGain,
    LocationIsotropic,
    LocationPerAxis,
    ScalingConfig,
)
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.bundle import (
    WEIGHTS,
    load_bundle,
    save_bundle,
    save_weights,
    weights_name,
)
from gerbil_tune.models.calibrated import Calibration
from gerbil_tune.models.localizer import Localizer
from gerbil_tune.models.registry import ARCHITECTURES

ARENA_MM = (572.0, 356.0)
MICROPHONES_MM = tuple((x, y, 100.0) for x in (-286.0, 286.0) for y in (-178.0, 178.0))
SETUP = RecordingSetup(4, 50_000.0, ARENA_MM, MICROPHONES_MM)
LENGTHS = (900, 2000, 100, 1400)
AUDIO_SCALINGS = [AudioGain(), EventZScore(), ChannelZScore()]
LOCATION_SCALINGS = [LocationGain(), LocationIsotropic(), LocationPerAxis()]

BUILT_HERE = [kind for kind in sorted(ARCHITECTURES) if not kind.startswith("legacy-")]
"""Those whose first weights are our own; the others come with trained ones."""

every_kind = pytest.mark.parametrize("kind", sorted(ARCHITECTURES))


def by_kind(sections):
    return pytest.mark.parametrize("scaling", sections, ids=lambda section: section.kind)


LAGS = {"num_channels": 8, "num_blocks": 2, "hidden": 16}
CONV = {
    "channels": [8, 8, 12],
    "kernel_sizes": [9, 9, 9],
    "downsample": [False, True, True],
    "dilations": [1, 1, 1],
}
LEGACY = {"activation": "vocalocator", **CONV, "crop_length": 512}
SMALL = {
    "conformer": {
        "width": 16,
        "num_layers": 2,
        "num_heads": 2,
        "stem_channels": 8,
        "stem_strides": [4, 4],
    },
    "corrnet": {"conv": CONV, "lags": LAGS, "hidden": 16},
    "densenet": {"num_stages": 7},
    "gcc-net": {"lags": LAGS},
    "legacy-corrnet": {**LEGACY, "correlation_length": 64, "hidden": 16},
    "legacy-simplenet": LEGACY,
    "legacy-wavenet": {"num_blocks": 3, "channels": 8, "kernel_size": 3, "crop_length": 512},
    "micset-net": {"num_channels": 8, "num_blocks": 2, "width": 16, "num_heads": 2},
    "resnet": {"num_channels": 8, "num_stages": 2, "blocks_per_stage": 1},
    "simplenet": {"conv": CONV},
    "srp-net": {"num_channels": 8, "num_blocks": 2, "kernel_size": 3, "hidden": 16},
    "wavenet": {"num_channels": 8, "num_blocks": 3, "hidden": 16},
}
"""Options that make each architecture small; those of a new one may be missing."""


def make_config(kind, **sections):
    training = {"precision": "float32"}
    model = {"kind": kind, **SMALL.get(kind, {})}
    return ExperimentConfig(**{"model": model, "training": training, **sections})


def make_model(kind, setup=SETUP, **sections):
    torch.manual_seed(1)
    return Localizer(make_config(kind, **sections), setup).eval()


def lively_model(kind, **sections):
    """A model whose output depends on its input as that of a trained one does."""
    model = make_model(kind, **sections)
    with torch.no_grad():
        model.network.readout.weight.mul_(30.0)
    return model


def make_events(lengths=LENGTHS, num_samples=None, seed=0):
    """Noise bursts that reach the microphones at different times; zero after each event's length."""
    generator = torch.Generator().manual_seed(seed)
    num_samples = num_samples or max(lengths)
    audio_BTC = torch.zeros(len(lengths), num_samples, 4)
    for audio_TC, length in zip(audio_BTC, lengths, strict=True):
        source = torch.randn(length + 60, generator=generator)
        delays = torch.randint(0, 60, (4,), generator=generator).tolist()
        for channel, delay in enumerate(delays):
            audio_TC[:length, channel] = 0.01 * source[delay : delay + length]
    return audio_BTC, torch.tensor(lengths)


@torch.no_grad()
def predict(model, audio_BTC, lengths_B):
    density = model.density(model(audio_BTC, lengths_B))
    return density.mean_mm_BKD, density.covariance_mm2_BKDD


def assert_same_prediction(actual, expected, rtol=1e-4, atol_mm=0.01):
    for got, wanted in zip(actual, expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=rtol, atol=atol_mm)


def loss_of(model, audio_BTC, lengths_B):
    density = model.density(model(audio_BTC, lengths_B))
    locations = torch.tensor([40.0, -30.0]).expand_as(density.mean_mm_BKD)
    return model.loss(density, locations).mean()


def test_registry_and_schema_name_the_same_kinds():
    union, _ = get_args(ModelConfig)
    tags = {member.model_fields["kind"].default for member in get_args(union)}
    assert tags == set(ARCHITECTURES)


@every_kind
def test_output_is_float32_of_the_heads_size(kind):
    model = make_model(kind)
    raw_BO = model(*make_events())
    assert raw_BO.shape == (len(LENGTHS), model.head.num_outputs)
    assert raw_BO.dtype == torch.float32


@every_kind
def test_gradient_reaches_every_parameter(kind):
    """DDP hangs or raises on a parameter that takes no part in the loss."""
    model = make_model(kind).train()
    loss_of(model, *make_events()).backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None]
    without = [name for name, p in model.named_parameters() if not p.grad.any()]
    broken = [name for name, p in model.named_parameters() if not p.grad.isfinite().all()]
    assert (missing, without, broken) == ([], [], [])


@every_kind
@by_kind(AUDIO_SCALINGS)
def test_prediction_does_not_depend_on_padding_or_company(kind, scaling):
    model = lively_model(kind, scaling=ScalingConfig(audio=scaling))
    audio_BTC, lengths_B = make_events()
    together = predict(model, audio_BTC, lengths_B)
    spread_mm = together[0].std(0).max()
    assert spread_mm > 0.3, "the events must differ for this to test anything"
    far = predict(model, *make_events(num_samples=4711))
    assert_same_prediction(far, together)
    for i, length in enumerate(LENGTHS):
        alone = predict(model, audio_BTC[i : i + 1, :length], lengths_B[i : i + 1])
        assert_same_prediction(alone, [part[i : i + 1] for part in together])


@every_kind
def test_pcm_is_the_same_as_its_float_value(kind):
    model = lively_model(kind)
    audio_BTC, lengths_B = make_events()
    pcm_BTC = (audio_BTC * 32768).round().clamp(-32768, 32767).to(torch.int16)
    float_BTC = pcm_BTC.float() / 32768
    expected = predict(model, float_BTC, lengths_B)
    assert_same_prediction(predict(model, pcm_BTC, lengths_B), expected, rtol=0.0, atol_mm=0.0)


@every_kind
@by_kind(AUDIO_SCALINGS)
def test_silent_and_short_events_are_finite_with_gradients(kind, scaling):
    model = make_model(kind, scaling=ScalingConfig(audio=scaling)).train()
    audio_BTC, lengths_B = make_events((500, 300, 1, 100))
    audio_BTC[1] = 0
    for part in predict(model, audio_BTC, lengths_B):
        assert part.isfinite().all()
    loss_of(model, audio_BTC, lengths_B).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@every_kind
@pytest.mark.parametrize("lengths", [(1,), (100,), (1, 1), (0, 7)])
def test_batches_of_short_events_alone(kind, lengths):
    for part in predict(make_model(kind), *make_events(lengths)):
        assert part.isfinite().all()


@every_kind
def test_state_dict_round_trip(kind):
    events = make_events()
    model, other = lively_model(kind), Localizer(make_config(kind), SETUP).eval()
    other.load_state_dict(model.state_dict())
    assert_same_prediction(predict(other, *events), predict(model, *events), 0.0, 0.0)


@every_kind
def test_bundle_round_trip(kind, tmp_path: Path):
    model = lively_model(kind)
    for which in WEIGHTS:
        save_weights(tmp_path / weights_name(which), model.state_dict())
    folder = save_bundle(
        tmp_path / "trained_models",
        config=make_config(kind),
        setup=SETUP,
        weights_folder=tmp_path,
        metrics={},
        calibration=Calibration(2.25),
        provenance={},
    )
    events = make_events()
    bundle = load_bundle(Path(shutil.move(folder, tmp_path / "elsewhere")))
    density = bundle.predict_batch(*events)
    mean, covariance = predict(model, *events)
    torch.testing.assert_close(density.mean_mm_BKD, mean, rtol=0, atol=0)
    torch.testing.assert_close(density.covariance_mm2_BKDD, 2.25 * covariance, rtol=1e-5, atol=1e-2)
    assert bundle.config == make_config(kind)
    assert bundle.setup == SETUP


@every_kind
def test_one_network_call_a_forward(kind):
    model = make_model(kind)
    calls = dict.fromkeys(("network", "readout"), 0)

    def count(name):
        calls[name] += 1

    model.network.register_forward_hook(lambda *_: count("network"))
    model.network.readout.register_forward_hook(lambda *_: count("readout"))
    predict(model, *make_events())
    assert calls == {"network": 1, "readout": 1}


@every_kind
@pytest.mark.parametrize(("keypoints", "num_axes"), [(("nose",), 3), (("nose", "head", "tail"), 2)])
def test_keypoints_and_axes(kind, keypoints, num_axes):
    arena_mm = (*ARENA_MM, 300.0)[:num_axes]
    setup = RecordingSetup(4, 50_000.0, arena_mm, MICROPHONES_MM, keypoints, num_axes)
    mean, covariance = predict(make_model(kind, setup), *make_events())
    assert mean.shape == (len(LENGTHS), len(keypoints), num_axes)
    assert covariance.shape == (len(LENGTHS), len(keypoints), num_axes, num_axes)


@pytest.mark.parametrize("kind", BUILT_HERE)
@by_kind(LOCATION_SCALINGS)
@pytest.mark.parametrize("audio", AUDIO_SCALINGS, ids=lambda section: section.kind)
def test_starts_at_the_arenas_centre_and_a_quarter_of_it_wide(kind, scaling, audio):
    model = make_model(kind, scaling=ScalingConfig(audio=audio, location=scaling))
    mean, covariance = predict(model, *make_events())
    half_mm = torch.tensor(ARENA_MM) / 2
    assert (mean.abs() < 0.25 * half_mm).all()
    sd_mm = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    quarter_mm = min(ARENA_MM) / 4
    assert (sd_mm > 0.6 * quarter_mm).all()
    assert (sd_mm < 1.6 * quarter_mm).all()


@every_kind
def test_bfloat16_gives_float32_predictions_near_those_of_float32(kind):
    events = make_events()
    model = make_model(kind)
    expected, _ = predict(model, *events)
    model.autocast_dtype = torch.bfloat16
    mean, covariance = predict(model, *events)
    assert (mean.dtype, covariance.dtype) == (torch.float32, torch.float32)
    torch.testing.assert_close(mean, expected, rtol=0.02, atol=10.0)
