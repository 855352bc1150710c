"""What a configuration costs, found out without training it.

The network is built and run on PyTorch's meta device, which has shapes but no numbers. Operations are counted
as PyTorch counts them: matrix products and convolutions, a multiplication and an addition each being one. The
features are counted by formula. Pointwise functions are left out.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.architecture import Architecture
from gerbil_tune.models.batch_norm import use_statistics_of
from gerbil_tune.models.features.cost import feature_cost
from gerbil_tune.models.features.extractor import FeatureExtractor
from gerbil_tune.models.features.features import Features
from gerbil_tune.models.heads.registry import build_head
from gerbil_tune.models.registry import ARCHITECTURES, build_architecture

_FLOAT_BYTES = 4
_MOMENTS = {"adamw": 2, "sgd": 1}


@dataclass(frozen=True, slots=True)
class ModelCost:
    """The cost of a configuration.

    Attributes:
        parameters: Trainable numbers.
        gflop_per_event: Of one forward pass on an event of crop length, from audio on, 1e9 operations.
        training_bytes: Estimated memory of training in one worker: weights, gradients, optimizer, the
            batch and what a step computes from it in float32; without what the program itself takes.
        features_gflop_per_event: The part of ``gflop_per_event`` that the features take.
    """

    parameters: int
    gflop_per_event: float
    training_bytes: int
    features_gflop_per_event: float


def model_cost(config: ExperimentConfig, setup: RecordingSetup, num_workers: int = 1) -> ModelCost:
    """Count parameters, operations and memory; takes some milliseconds.

    Args:
        config: The experiment.
        setup: The recording site.
        num_workers: Workers that share the global batch.
    """
    training = config.training
    per_worker_batch_size = max(1, training.global_batch_size // num_workers)
    at_once = math.ceil(per_worker_batch_size / training.accumulate_steps)
    return _cost(config, setup, at_once)


@lru_cache(maxsize=1024)
def _cost(config: ExperimentConfig, setup: RecordingSetup, events_at_once: int) -> ModelCost:
    uses = ARCHITECTURES[config.model.kind].uses
    extractor = FeatureExtractor(config, setup, uses)
    head = build_head(config.head, setup)
    with torch.device("meta"):
        network = build_architecture(config.model, setup, extractor.shapes, head.output_shape)
        features = extractor.shapes.empty(uses, events_at_once, config.data.crop_length)
        # Keeps as much as batch statistics do, and runs on this device.
        use_statistics_of(network, "running")
        operations, activation_bytes = _forward_cost(network, features)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    of_features = feature_cost(extractor, setup.num_microphones, config.data.crop_length)
    copies = 2 + _MOMENTS[config.optimizer.kind] + (config.training.ema_decay is not None)
    audio_bytes = events_at_once * setup.num_microphones * config.data.crop_length * _FLOAT_BYTES
    return ModelCost(
        parameters=parameters,
        gflop_per_event=(operations / events_at_once + of_features.operations) / 1e9,
        # The audio as it was read, and its scaled copy. Features are there before the network runs.
        training_bytes=copies * parameters * _FLOAT_BYTES
        + 2 * audio_bytes
        + max(activation_bytes, round(events_at_once * of_features.working_bytes)),
        features_gflop_per_event=of_features.operations / 1e9,
    )


def _forward_cost(network: Architecture, features: Features) -> tuple[int, int]:
    """Operations of a forward pass, and bytes at the worst moment of the backward pass.

    Those are all tensors that the forward pass keeps for it, and gradients of the largest one's size for what
    goes into and what comes out of a layer.
    """
    weights = {parameter.untyped_storage()._cdata for parameter in network.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage
        return tensor

    with (
        FlopCounterMode(display=False) as counter,
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        raw_BO = network(features)
    sizes = [storage.nbytes() for storage in kept.values()]
    del raw_BO  # the kept tensors' storages had to stay apart until here
    return counter.get_total_flops(), sum(sizes) + 2 * max(sizes, default=0)
