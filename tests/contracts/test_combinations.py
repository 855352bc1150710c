"""Every feature with every architecture that sees it and every head: what holds of them all.

A new architecture or head in its registry is tested without a line here.
"""

from pathlib import Path

import pytest
import torch

from gerbil_tune.models.bundle import load_bundle, save_bundle, save_weights, weights_name
from gerbil_tune.models.calibrated import Calibration
from gerbil_tune.models.heads.registry import HEADS
from gerbil_tune.models.localizer import Localizer
from gerbil_tune.models.registry import ARCHITECTURES
from tests.contracts.test_architectures import (
    BUILT_HERE,
    SETUP,
    make_config,
    make_events,
)

RAW = {"raw": True}
WAVEFORMS = {
    "raw": RAW,
    "analytic": {"raw": True, "quadrature": True},
    "envelope": {"raw": False, "envelope": True},
    "phase": {"raw": False, "phase": True},
    "log power": {"raw": False, "log_power": True},
    "all": {"raw": True, "quadrature": True, "envelope": True, "phase": True, "log_power": True},
}
FEATURES = {
    "waveform": {name: {"waveform": options} for name, options in WAVEFORMS.items()},
    "gcc": {
        "correlations": {"gcc": {"window_length": 256}},
        "with envelopes": {"gcc": {"window_length": 256, "envelope": True}},
    },
    "maps": {
        "one height": {"maps": {"window_length": 256, "cell_mm": 60.0, "num_bands": 2}},
        "two heights": {
            "maps": {
                "window_length": 256,
                "cell_mm": 60.0,
                "num_bands": 2,
                "heights_mm": [20.0, 60.0],
            }
        },
    },
}
HEAD_OPTIONS = {"grid": {"cell_mm": 60.0}, "mixture": {"num_components": 2, "background": True}}
COMBINATIONS = [
    (kind, name, features, head)
    for kind in BUILT_HERE
    for seen in sorted(ARCHITECTURES[kind].uses)
    for name, features in FEATURES[seen].items()
    for head in sorted(HEADS)
]
LENGTHS = (900, 1, 1700, 300)
WINDOW = 1000
"""Shorter than the longest event, which is seen in two windows."""


def build(kind, features, head):
    torch.manual_seed(3)
    config = make_config(
        kind,
        features=features,
        head={"kind": head, **HEAD_OPTIONS.get(head, {})},
        loss={"kind": "squared" if head == "point" else "nll"},
        data={"crop_length": WINDOW},
    )
    return config, Localizer(config, SETUP)


@pytest.mark.parametrize(
    ("kind", "name", "features", "head"),
    COMBINATIONS,
    ids=[f"{kind}-{name}-{head}" for kind, name, _, head in COMBINATIONS],
)
def test_the_contract_of_a_model(kind, name, features, head, tmp_path: Path):
    config, model = build(kind, features, head)
    audio_BTC, lengths_B = make_events(LENGTHS)
    check_training_step(model, audio_BTC, lengths_B)
    model.eval()
    with torch.no_grad():
        raw_BO = model(audio_BTC, lengths_B)
        assert raw_BO.shape == (len(LENGTHS), model.head.num_outputs)
        assert torch.equal(model(audio_BTC, lengths_B), raw_BO), "identical on repetition"
        check_company(model, audio_BTC, lengths_B, raw_BO)
        check_round_trip(config, model, audio_BTC, lengths_B, raw_BO, tmp_path)
        model.autocast_dtype = torch.bfloat16
        half_BO = model(audio_BTC, lengths_B)
    assert half_BO.dtype == torch.float32
    # To some units of the eight bits of a bfloat16, in what the network's outputs differ by.
    spread = (raw_BO - raw_BO.mean(0)).abs().max() + raw_BO.abs().max()
    assert (half_BO - raw_BO).abs().max() < 0.06 * spread


def check_training_step(model, audio_BTC, lengths_B):
    """One forward pass, and a finite gradient for every parameter."""
    calls = []
    hook = model.network.register_forward_hook(lambda *_: calls.append(1))
    density = model.train().density(model(audio_BTC, lengths_B))
    hook.remove()
    assert calls == [1]
    assert density.mean_mm_BKD.shape == (len(lengths_B), 1, 2)
    assert density.covariance_mm2_BKDD.isfinite().all()
    # Somewhere else for each event: a label that all heads begin with would pull at nothing.
    labels = torch.tensor([[40.0, -30.0], [-90.0, 60.0], [150.0, 20.0], [5.0, 110.0]])[:, None]
    loss_B = model.loss(density, labels)
    assert loss_B.shape == (len(lengths_B),)
    loss_B.mean().backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    assert [name for name, g in gradients.items() if g is None or not g.isfinite().all()] == []
    assert [name for name, g in gradients.items() if not g.any()] == []


def check_company(model, audio_BTC, lengths_B, raw_BO):
    """An event alone, as long as it is, gives what it gives among others."""
    tolerance = 1e-4 * raw_BO.abs().max().item()
    for i, length in enumerate(lengths_B.tolist()):
        alone_1O = model(audio_BTC[i : i + 1, :length], lengths_B[i : i + 1])
        torch.testing.assert_close(alone_1O, raw_BO[i : i + 1], rtol=1e-4, atol=tolerance)


def check_round_trip(config, model, audio_BTC, lengths_B, raw_BO, folder: Path):
    for which in ("init", "best", "final"):
        save_weights(folder / weights_name(which), model.state_dict())
    path = save_bundle(
        folder / "models",
        config=config,
        setup=SETUP,
        weights_folder=folder,
        metrics={},
        calibration=Calibration(),
        provenance={},
    )
    assert torch.equal(load_bundle(path).model(audio_BTC, lengths_B), raw_BO)
