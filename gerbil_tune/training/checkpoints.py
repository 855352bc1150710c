"""Checkpoints on disk: whole or not there, whatever ends the process or the machine.

    <run_dir>/checkpoints/epoch-00003/state.safetensors   model, optimizer, best weights, random state
                                      state.json          epoch, best value, metrics, optimizer's scalars
    <run_dir>/checkpoints/epoch-00003-step-000120/...     the same, after 120 steps of the fourth epoch

A checkpoint is written to a temporary folder, brought to the disk and renamed, so what has the final name is
whole, until something else damages it: a checksum tells. The names sort by age. Nothing is pickled.
"""

import json
import math
import os
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from gerbil_tune.errors import DatasetError
from gerbil_tune.models.bundle import weights_name
from gerbil_tune.models.bundle_files import flush
from gerbil_tune.training.history import copy_history

CHECKPOINTS = "checkpoints"
_TENSORS, _SCALARS = "state.safetensors", "state.json"
_PARTIAL = ".partial"
_KEEP = 2  # the newest, and one to fall back to
_ATTEMPTS = 5


@dataclass
class PartialEpoch:
    """What was done of an epoch that has not ended.

    Attributes:
        step: Steps done.
        loss_sum: Sum of the losses of their events over all ranks.
        num_events: Events that all ranks have seen in them.
        seconds: Time they took.
    """

    step: int = 0
    loss_sum: float = 0.0
    num_events: int = 0
    seconds: float = 0.0


@dataclass
class Progress:
    """How far a run has come.

    Attributes:
        epoch: Epochs done.
        partial: What is done of the next.
        best_value: Lowest validation metric so far.
        best_metrics: All metrics of that epoch.
        last_metrics: What the newest epoch reported.
        exploded_epochs: Epochs in a row up to the newest in which the loss was far too large.
    """

    epoch: int = 0
    partial: PartialEpoch = field(default_factory=PartialEpoch)
    best_value: float = float("inf")
    best_metrics: dict[str, float] = field(default_factory=dict)
    last_metrics: dict[str, float] = field(default_factory=dict)
    exploded_epochs: int = 0


_PROGRESS = TypeAdapter(Progress)
_OPTIMIZER = TypeAdapter(dict[str, list[dict[str, Any]]])


@dataclass(frozen=True)
class Checkpoint:
    """What one checkpoint holds.

    Attributes:
        tensors: By part and name, such as ``model/network.readout.weight``.
        progress: How far the run had come.
        optimizer: The optimizer's groups.
    """

    tensors: dict[str, Tensor]
    progress: Progress
    optimizer: dict[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class _Stored:
    tensors: bytes
    content: dict[str, Any]
    checkpoint: Checkpoint


def write_checkpoint(run_dir: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint and drop those it replaces; return its folder."""
    content = {
        "progress": _PROGRESS.dump_python(checkpoint.progress),
        "optimizer": checkpoint.optimizer,
    }
    progress = checkpoint.progress
    name = f"epoch-{progress.epoch:05d}"
    if progress.partial.step:
        name += f"-step-{progress.partial.step:06d}"
    return _write(run_dir, name, save(checkpoint.tensors), content)


def whole_checkpoints(run_dir: Path) -> Iterator[Checkpoint]:
    """Those that can be read, the newest first."""
    for folder in _folders(run_dir):
        stored = _read(folder)
        if stored is not None:
            yield stored.checkpoint


def newest_place(run_dir: Path) -> tuple[int, int] | None:
    """Epochs done, and steps of the next one, at which a run goes on; None where it begins."""
    for checkpoint in whole_checkpoints(run_dir):
        return checkpoint.progress.epoch, checkpoint.progress.partial.step
    return None


def copy_newest(run_dir_from: Path, run_dir_to: Path) -> int:
    """Let a run begin with the newest checkpoint of another, which may go on writing meanwhile.

    Optimizer, random state, initial weights and history come along; the best value does not, or the copy
    would claim what the other has reached. Nothing is copied where the run has a checkpoint already, so that
    the call may be repeated after a kill.

    Args:
        run_dir_from: The run to copy.
        run_dir_to: The folder of the run that begins.

    Returns:
        Epochs done.

    Raises:
        DatasetError: If there is nothing to copy.
    """
    begun = newest_place(run_dir_to)
    if begun is not None:
        return begun[0]
    for _ in range(_ATTEMPTS):  # what was listed may be replaced before it is read
        for folder in _folders(run_dir_from):
            stored = _read(folder)
            if stored is not None:
                epoch = stored.checkpoint.progress.epoch
                run_dir_to.mkdir(parents=True, exist_ok=True)
                copy_history(run_dir_from, run_dir_to, epoch)
                initial = weights_name("init")
                shutil.copyfile(run_dir_from / initial, run_dir_to / initial)
                stored.content["progress"] |= {"best_value": math.inf, "best_metrics": {}}
                # Last: it says that all is there.
                _write(run_dir_to, folder.name, stored.tensors, stored.content)
                return epoch
    raise DatasetError(
        f"{run_dir_from} has no readable checkpoint that another run could begin with"
    )


def remove_checkpoints(run_dir: Path) -> None:
    """Delete the checkpoints of a run that needs none any more."""
    shutil.rmtree(run_dir / CHECKPOINTS, ignore_errors=True)


def _folders(run_dir: Path) -> list[Path]:
    return sorted((run_dir / CHECKPOINTS).glob("epoch-*"), reverse=True)


def _write(run_dir: Path, name: str, tensors: bytes, content: dict[str, Any]) -> Path:
    folder = run_dir / CHECKPOINTS
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / _PARTIAL
    shutil.rmtree(temporary, ignore_errors=True)  # of a run that was killed here
    temporary.mkdir()
    _write_to_disk(temporary / _TENSORS, tensors)
    scalars = json.dumps({**content, "crc32": zlib.crc32(tensors)})
    _write_to_disk(temporary / _SCALARS, scalars.encode())
    flush(temporary)
    target = folder / name
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)
    flush(folder)
    older = [path for path in _folders(run_dir) if path.name < name]
    # Newer ones could not be read, or the run would have gone on from there.
    newer = [path for path in _folders(run_dir) if path.name > name]
    for replaced in older[_KEEP - 1 :] + newer:
        shutil.rmtree(replaced, ignore_errors=True)
    return target


def _write_to_disk(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _read(folder: Path) -> _Stored | None:
    """A checkpoint, or None if it is torn, damaged or gone."""
    try:
        tensors = (folder / _TENSORS).read_bytes()
        content = json.loads((folder / _SCALARS).read_text())
        if content.pop("crc32") != zlib.crc32(tensors):
            return None
        progress = _PROGRESS.validate_python(content["progress"])
        optimizer = _OPTIMIZER.validate_python(content["optimizer"])
        return _Stored(tensors, content, Checkpoint(load(tensors), progress, optimizer))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError):
        return None
