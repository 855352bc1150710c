"""Where a training loop runs: what it must know of its place.

The loop sees the protocol alone, so it runs and is tested without Ray. Of the two adapters, one is here, and
the one to a Ray Train worker group in ``trainer``.
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


def local_device() -> torch.device:
    """Return the GPU that this process was given, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
