"""The optimizer: what it changes, how fast, and one step of it.

Letters: B batch, K keypoints, D axes.
"""

import contextlib
import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from gerbil_tune.config.schema import (
    FineTuneConfig,
    LrScheduleConfig,
    OptimizerConfig,
    SgdConfig,
)
from gerbil_tune.models.features.features import Features
from gerbil_tune.models.localizer import Localizer
from gerbil_tune.models.low_rank import LowRankChange, add_low_rank_changes
from gerbil_tune.training.state import TrainState

_WITH_WEIGHTS = torch.nn.Linear | torch.nn.Conv1d | torch.nn.Conv2d | LowRankChange


def choose_trained(model: Localizer, config: FineTuneConfig) -> None:
    """Freeze what is not to be trained; low-rank changes of it come to the model where they are to be.

    Args:
        model: Newly made; the readout is trained in any case.
        config: Says what is trained.
    """
    if config.what == "all":
        return
    readout = model.network.readout
    if config.what == "low-rank":
        add_low_rank_changes(model.network, config.rank, whole=readout)
    else:
        model.network.requires_grad_(False)
        readout.requires_grad_(True)


def set_training_mode(model: Localizer, config: FineTuneConfig) -> None:
    """Let what is trained behave as in training, and what is frozen as in prediction.

    Frozen batch norm keeps its statistics. Layers with low-rank changes are trained, so they are dropped out.
    """
    model.train(config.what != "head")
    model.network.readout.train()
    if config.what == "low-rank":
        for module in model.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.eval()


def make_optimizer(config: OptimizerConfig, model: torch.nn.Module) -> torch.optim.Optimizer:
    """Build the optimizer of what is trained; norms and biases are not decayed."""
    weights = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, _WITH_WEIGHTS)
        for name, parameter in module.named_parameters(recurse=False)
        if name != "bias"
    }
    trained = [p for p in model.parameters() if p.requires_grad]
    decayed = [p for p in trained if id(p) in weights]
    others = [p for p in trained if id(p) not in weights]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if isinstance(config, SgdConfig):
        return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum)
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas)


def lr_factor(config: LrScheduleConfig, step: int, total_steps: int) -> float:
    """Factor on the learning rate: linear warm-up, then a cosine (Loshchilov and Hutter 2017)."""
    warmup_steps = config.warmup_fraction * total_steps
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    part = (step - warmup_steps) / max(1.0, total_steps - warmup_steps)
    cosine = 0.5 * (1.0 + math.cos(math.pi * part))
    return config.final_fraction + (1.0 - config.final_fraction) * cosine


def optimizer_step(
    state: TrainState,
    network: torch.nn.Module,
    features: Features,
    locations_mm_BKD: Tensor,
    clip_norm: float | None,
    num_parts: int = 1,
) -> Tensor:
    """One step; return the detached loss without waiting for the device.

    Args:
        state: Whose model and optimizer.
        network: The model's network, perhaps in the wrapper that shares gradients.
        features: Of B events.
        locations_mm_BKD: (B, K, D), theirs.
        clip_norm: Largest gradient norm, or None.
        num_parts: The batch runs through the network in so many parts, whose gradients add up to that of
            the whole. Statistics of batch norm are those of a part.
    """
    model = state.model
    assert isinstance(model, Localizer)
    state.optimizer.zero_grad(set_to_none=True)
    losses = []
    parts = list(split_batch(features, locations_mm_BKD, num_parts))
    for number, (part, locations_BKD) in enumerate(parts, 1):
        # Workers wait for each other with the last part alone.
        with without_waiting(network) if number < len(parts) else contextlib.nullcontext():
            loss_B = model.loss(model.density(model.read(part, network)), locations_BKD)
            loss = loss_B.sum() / len(locations_mm_BKD)
            loss.backward()  # type: ignore[no-untyped-call]
        losses.append(loss.detach())
    if clip_norm is not None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    state.optimizer.step()
    return torch.stack(losses).sum()


def without_waiting(network: torch.nn.Module) -> contextlib.AbstractContextManager[None]:
    """Let gradients add up on each worker meanwhile."""
    if isinstance(network, DistributedDataParallel):
        waiting: contextlib.AbstractContextManager[None] = network.no_sync()
        return waiting
    return contextlib.nullcontext()


def split_batch(
    features: Features, locations_BKD: Tensor, num_parts: int
) -> Iterator[tuple[Features, Tensor]]:
    """Split a batch into at most ``num_parts`` parts, whose sizes differ by one event at most."""
    num_parts = min(num_parts, len(locations_BKD))
    if num_parts == 1:
        yield features, locations_BKD
        return
    start = 0
    for part_BKD in torch.tensor_split(locations_BKD, num_parts):
        yield features.rows(slice(start, start + len(part_BKD))), part_BKD
        start += len(part_BKD)
