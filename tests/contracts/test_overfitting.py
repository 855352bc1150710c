"""Every architecture can learn 64 clean events by heart: nothing between audio and location is lost."""

import math

import pytest
import torch

from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.localizer import Localizer
from gerbil_tune.units import distance_to_delay_s
from tests.contracts.test_architectures import BUILT_HERE

ARENA_MM = (572.0, 356.0)
MICROPHONES_MM = tuple((x, y, 360.0) for x in (-286.0, 286.0) for y in (-178.0, 178.0))
SETUP = RecordingSetup(4, 125_000.0, ARENA_MM, MICROPHONES_MM)
NUM_EVENTS, NUM_SAMPLES, BATCH = 64, 2048, 16
MOST_STEPS = 1500
WANTED_MM = 5.0
CONV = {
    "channels": [16, 16, 32, 32],
    "kernel_sizes": [17, 17, 17, 17],
    "downsample": [True, True, True, True],
    "dilations": [1, 1, 1, 1],
}
LAGS = {"num_channels": 16, "num_blocks": 3, "hidden": 64, "dropout": 0.0}
MODELS = {
    "conformer": {
        "width": 32,
        "num_layers": 2,
        "num_heads": 2,
        "feedforward_factor": 2,
        "stem_channels": 32,
        "dropout": 0.0,
    },
    "corrnet": {"conv": CONV, "lags": LAGS, "hidden": 64},
    "densenet": {"num_stages": 8, "growth": 12, "kernel_size": 15},
    "gcc-net": {"lags": LAGS},
    "micset-net": {
        "num_channels": 16,
        "width": 32,
        "num_layers": 1,
        "num_heads": 2,
        "dropout": 0.0,
    },
    "resnet": {"num_channels": 16, "num_stages": 3, "blocks_per_stage": 1},
    "simplenet": {"conv": CONV},
    "srp-net": {"num_channels": 16, "num_blocks": 2, "kernel_size": 3, "hidden": 64},
    "wavenet": {"num_channels": 24, "num_blocks": 4, "hidden": 64, "kernel_size": 5},
}
"""Small; one that is missing here is tried with its defaults."""


def clean_events():
    """Noise bursts at random places, as four microphones hear them in the free field; and the places."""
    generator = torch.Generator().manual_seed(0)
    arena = torch.tensor(ARENA_MM)
    places = (torch.rand(NUM_EVENTS, 2, generator=generator) - 0.5) * 0.9 * arena
    points = torch.nn.functional.pad(places, (0, 1), value=40.0)
    distances = torch.linalg.vector_norm(
        points[:, None] - torch.tensor(MICROPHONES_MM)[None], dim=-1
    )
    delays = distances * distance_to_delay_s(1.0) * SETUP.sample_rate_hz
    source = torch.randn(NUM_EVENTS, NUM_SAMPLES, generator=generator)
    source *= torch.hann_window(NUM_SAMPLES)
    spectrum = torch.fft.rfft(source, n=2 * NUM_SAMPLES)[:, None]
    turns = torch.arange(spectrum.shape[-1]) / (2 * NUM_SAMPLES)
    shifted = spectrum * torch.exp(-2j * math.pi * turns * delays[..., None])
    audio_BCT = torch.fft.irfft(shifted)[..., :NUM_SAMPLES] * (200.0 / distances[..., None])
    return audio_BCT.transpose(1, 2).contiguous(), places[:, None]


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", BUILT_HERE)
def test_it_learns_clean_events_by_heart(kind):
    torch.manual_seed(0)
    config = ExperimentConfig(
        model={"kind": kind, **MODELS.get(kind, {})},
        features={"maps": {"cell_mm": 40.0}},
        training={"precision": "float32"},
    )
    model = Localizer(config, SETUP)
    audio_BTC, places_BKD = clean_events()
    lengths_B = torch.full((NUM_EVENTS,), NUM_SAMPLES)
    features = model.extractor(audio_BTC, lengths_B)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, MOST_STEPS)
    median_mm = math.inf
    for step in range(MOST_STEPS):
        rows = torch.randperm(NUM_EVENTS)[:BATCH]
        density = model.density(model.read(features.rows(rows)))
        optimizer.zero_grad()
        model.loss(density, places_BKD[rows]).mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 49:
            median_mm = median_error_mm(model, features, places_BKD)
            if median_mm < WANTED_MM:
                return
    pytest.fail(f"the median error is {median_mm:.1f} mm after {MOST_STEPS} steps")


@torch.no_grad()
def median_error_mm(model, features, places_BKD):
    model.eval()
    found_BKD = model.density(model.read(features)).mean_mm_BKD
    model.train()
    return torch.linalg.vector_norm(found_BKD - places_BKD, dim=-1).median().item()
