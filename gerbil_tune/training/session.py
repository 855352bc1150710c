"""Where a training loop runs: what it must know of its place, and the two adapters to Ray.

The loop sees the protocol alone, so it runs and is tested without Ray.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch


class TrainingSession(Protocol):
    """The place of one worker.

    Attributes:
        rank: 0 <= rank < world_size.
        world_size: Workers that train together.
        device: Where this worker computes.
    """

    rank: int
    world_size: int
    device: torch.device

    def report(self, metrics: dict[str, float]) -> None:
        """Hand over the metrics of one epoch; called by every rank, the same number of times."""


@dataclass
class InProcessSession:
    """One worker in the process that calls: a Tune trial, or no Ray at all."""

    report_metrics: Callable[[dict[str, float]], object]
    device: torch.device
    rank: int = 0
    world_size: int = 1

    def report(self, metrics: dict[str, float]) -> None:
        """Pass the metrics on."""
        self.report_metrics(metrics)


class RayTrainSession:
    """A worker of a Ray Train group; construct it inside the worker."""

    def __init__(self) -> None:
        import ray.train
        import ray.train.torch

        context = ray.train.get_context()
        self.rank: int = context.get_world_rank()
        self.world_size: int = context.get_world_size()
        self.device: torch.device = ray.train.torch.get_device()

    def report(self, metrics: dict[str, float]) -> None:
        """Report to the Train controller; a barrier over all ranks."""
        import ray.train

        ray.train.report(dict(metrics))


def local_device() -> torch.device:
    """Return the GPU that this process was given, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
