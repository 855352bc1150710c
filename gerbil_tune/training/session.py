"""Where a training loop runs: what it must know of its place.

The loop sees the protocol alone, so it runs and is tested without Ray. Of the two adapters, one is here, and
the one to a Ray Train worker group in ``trainer``.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch

_LOOK_INTERVAL_S = 0.5


class StopFile:
    """A file that asks a run to stop, wherever its workers are.

    Args:
        path: It is looked for at most twice a second; None: nobody asks.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._next_look_s = 0.0
        self._was_there = False

    def is_there(self) -> bool:
        """Whether it is, or was when it was looked for last."""
        now_s = time.monotonic()
        if self._path is not None and now_s >= self._next_look_s:
            self._next_look_s = now_s + _LOOK_INTERVAL_S
            self._was_there = self._path.exists()
        return self._was_there


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

    def stop_requested(self) -> bool:
        """Whether to write a checkpoint and end; cheap, and of each rank by itself."""


@dataclass
class InProcessSession:
    """One worker in the process that calls: a Tune trial, or no Ray at all.

    Attributes:
        report_metrics: Called with the metrics of each epoch.
        device: Where this worker computes.
        rank: 0 <= rank < world_size.
        world_size: Workers that train together.
        stop_file: That of the job.
    """

    report_metrics: Callable[[dict[str, float]], object]
    device: torch.device
    rank: int = 0
    world_size: int = 1
    stop_file: Path | None = None
    _stop: StopFile = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Begin to look for the stop file."""
        self._stop = StopFile(self.stop_file)

    def report(self, metrics: dict[str, float]) -> None:
        """Pass the metrics on."""
        self.report_metrics(metrics)

    def stop_requested(self) -> bool:
        """Whether the stop file is there."""
        return self._stop.is_there()


def local_device() -> torch.device:
    """Return the GPU that this process was given, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
