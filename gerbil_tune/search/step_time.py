"""How long a training step takes on this machine: measured, on real events."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.data.batches import EvaluationBatches
from gerbil_tune.data.events import EventSet
from gerbil_tune.data.splits.splits import Splits
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.cost import ModelCost, model_cost
from gerbil_tune.models.features.features import Features
from gerbil_tune.models.localizer import Localizer, autocast_dtype
from gerbil_tune.training.feature_bank import features_are_constant
from gerbil_tune.training.session import local_device

_MOST_EVENTS = 32
_GFLOP_AT_ONCE = 8.0
_PASSES = 3
"""A backward pass takes about twice a forward pass."""


@dataclass(frozen=True)
class StepTime:
    """Measured times of one configuration, for an event.

    Attributes:
        model: Which was measured.
        features_s: From the file to what the network sees.
        network_s: Forward and backward pass.
        network_gflop: Operations of the forward pass, 1e9.
    """

    model: Localizer
    features_s: float
    network_s: float
    network_gflop: float

    def epoch_s(self, config: ExperimentConfig, cost: ModelCost, splits: Splits) -> float:
        """Estimated time of an epoch of another configuration of the same architecture."""
        network_s = self.network_s * network_gflop(cost) / self.network_gflop
        num_training, num_validation = len(splits.train), len(splits.validation)
        keeps_features = features_are_constant(config, self.model.extractor, splits.train)
        num_read = 0 if keeps_features else num_training + num_validation
        return network_s * (num_training + num_validation / _PASSES) + self.features_s * num_read


def network_gflop(cost: ModelCost) -> float:
    """Operations of a forward pass without the features, 1e9."""
    return cost.gflop_per_event - cost.features_gflop_per_event


def measure_step(config: ExperimentConfig, setup: RecordingSetup, events: EventSet) -> StepTime:
    """Time one step of a configuration after a first that does not count; takes a second or so."""
    device = local_device()
    model = Localizer(config, setup).to(device)
    model.autocast_dtype = autocast_dtype(config, device)
    gflop = network_gflop(model_cost(config, setup))
    num_events = int(min(max(2, _GFLOP_AT_ONCE / gflop), _MOST_EVENTS, len(events)))
    chosen = np.linspace(0, len(events) - 1, num_events).astype(np.int64)
    batches = EvaluationBatches(
        events.subset(chosen),
        crop_length=config.data.crop_length,
        per_worker_batch_size=num_events,
        with_statistics=model.uses_statistics,
    )

    def extract() -> Features:
        batch = next(iter(batches)).to(device)
        with torch.no_grad():
            features: Features = model.extractor(
                batch.audio_BTC, batch.lengths_B, batch.mean_BC, batch.sd_BC, may_overwrite=True
            )
            return features

    features = extract()
    centre_BKD = torch.zeros(num_events, len(setup.keypoints), setup.num_axes, device=device)

    def step() -> None:
        loss_B = model.loss(model.density(model.read(features)), centre_BKD)
        loss_B.mean().backward()  # type: ignore[no-untyped-call]

    return StepTime(
        model=model,
        features_s=_second_time(extract) / num_events,
        network_s=_second_time(step) / num_events,
        network_gflop=gflop,
    )


def _second_time(work: Callable[[], object]) -> float:
    work()
    _finish()
    started = time.perf_counter()
    work()
    _finish()
    return time.perf_counter() - started


def _finish() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
