"""What a configuration costs, found out without training it.

The network is built and run on PyTorch's meta device, which has shapes but no numbers. Operations are counted
as PyTorch counts them: matrix products and convolutions, a multiplication and an addition each being one. The
correlations are counted by formula. Pointwise functions are left out.

Letters: B batch, C microphones, T samples, W windows, F frequencies, P pairs, L lags.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.geometry import RecordingSetup, microphone_pairs
from gerbil_tune.models.architecture import Architecture
from gerbil_tune.models.batch_norm import use_statistics_of
from gerbil_tune.models.features import Features, GeneralizedCrossCorrelation
from gerbil_tune.models.heads import GaussianFullHead
from gerbil_tune.models.registry import build_architecture

_FLOAT_BYTES = 4
_COMPLEX_BYTES = 8
_MOMENTS = {"adamw": 2, "sgd": 1}


@dataclass(frozen=True, slots=True)
class ModelCost:
    """The cost of a configuration.

    Attributes:
        parameters: Trainable numbers.
        gflop_per_event: Of one forward pass on an event of crop length, from audio on, 1e9 operations.
        training_bytes: Estimated memory of training in one worker: weights, gradients, optimizer, the
            batch and what a step computes from it in float32; without what the program itself takes.
        features_gflop_per_event: The part of ``gflop_per_event`` that the correlations take.
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
    gcc = GeneralizedCrossCorrelation(config.features.gcc, setup)
    head = GaussianFullHead(
        config.head, num_keypoints=len(setup.keypoints), num_axes=setup.num_axes
    )
    with torch.device("meta"):
        network = build_architecture(
            config.model,
            setup,
            lag_shape=(gcc.num_planes, gcc.num_lags),
            num_outputs=head.num_outputs,
        )
        features = _empty_features(network, gcc, setup, config.data.crop_length, events_at_once)
        # Keeps as much as batch statistics do, and runs on this device.
        use_statistics_of(network, "running")
        operations, activation_bytes = _forward_cost(network, features)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    windows = _GccCost(gcc, setup.num_microphones, config.data.crop_length)
    features_operations = windows.operations if network.uses_gcc else 0.0
    features_bytes = events_at_once * windows.working_bytes if network.uses_gcc else 0
    copies = 2 + _MOMENTS[config.optimizer.kind] + (config.training.ema_decay is not None)
    audio_bytes = events_at_once * setup.num_microphones * config.data.crop_length * _FLOAT_BYTES
    return ModelCost(
        parameters=parameters,
        gflop_per_event=(operations / events_at_once + features_operations) / 1e9,
        # The audio as it was read, and its scaled copy. Features are there before the network runs.
        training_bytes=copies * parameters * _FLOAT_BYTES
        + 2 * audio_bytes
        + max(activation_bytes, features_bytes),
        features_gflop_per_event=features_operations / 1e9,
    )


def _empty_features(
    network: Architecture,
    gcc: GeneralizedCrossCorrelation,
    setup: RecordingSetup,
    num_samples: int,
    num_events: int,
) -> Features:
    audio_BCT = torch.empty(num_events, setup.num_microphones, num_samples)
    gcc_BPL = torch.empty(num_events, gcc.num_planes, gcc.num_lags)
    return Features(
        audio_BCT if network.uses_audio else None,
        torch.full((num_events,), num_samples),
        gcc_BPL if network.uses_gcc else None,
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


class _GccCost:
    """Operations and working memory of the correlations of one event."""

    def __init__(
        self, gcc: GeneralizedCrossCorrelation, num_microphones: int, num_samples: int
    ) -> None:
        pairs = len(microphone_pairs(num_microphones))
        windows = math.ceil(num_samples / gcc.hop_length) + 2
        frequencies = len(gcc.band_F)
        has_power = gcc.config.coherence_exponent > 0
        # A real transform takes 2.5 N log2 N operations, half of what a complex one does (FFTW's count).
        transform = 2.5 * gcc.fft_length * math.log2(gcc.fft_length)
        self.operations = (
            (num_microphones * windows + gcc.num_planes) * transform
            + 8.0 * pairs * windows * frequencies  # a complex product and its sum
            + 4.0 * num_microphones * windows * frequencies * has_power
        )
        self.working_bytes = (
            num_microphones * windows * gcc.config.window_length * _FLOAT_BYTES
            + (2 * num_microphones - 1) * windows * frequencies * _COMPLEX_BYTES
            + 3 * pairs * frequencies * _COMPLEX_BYTES
        )
