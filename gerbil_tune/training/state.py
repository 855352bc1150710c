"""The resumable state of a training run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gerbil_tune.models.localizer import Localizer
from gerbil_tune.models.low_rank import merged_weights
from gerbil_tune.training.averaging import WeightAverage
from gerbil_tune.training.checkpoints import (
    Checkpoint,
    Progress,
    whole_checkpoints,
    write_checkpoint,
)

_PARTS = ("model", "average", "best", "predictions", "optimizer", "random")
_Groups = dict[str, list[dict[str, Any]]]


@dataclass
class TrainState:
    """Everything that continuing exactly needs.

    Attributes:
        model: The bare module, without a DDP wrapper.
        optimizer: Its optimizer.
        progress: How far it has come.
        best_weights: Weights of the best epoch, on the CPU, as ``cpu_weights`` gives them.
        best_predictions: What they predicted of the validation events, so that the data need not be read
            again: raw outputs and truth.
        average: Of the model's weights, where the config asks for one.
    """

    model: Localizer
    optimizer: torch.optim.Optimizer
    progress: Progress
    best_weights: dict[str, Tensor]
    best_predictions: dict[str, Tensor] = field(default_factory=dict)
    average: WeightAverage | None = None

    @property
    def result(self) -> Localizer:
        """The model that is validated and exported: with the average of the weights, where there is one."""
        return self.model if self.average is None else self.average.model

    def save(self, run_dir: Path) -> Path:
        """Write a checkpoint and drop old ones; return its folder."""
        optimizer, groups = _split_optimizer(self.optimizer)
        parts: dict[str, Mapping[str, Tensor]] = {
            "model": self.model.state_dict(),
            "average": {} if self.average is None else self.average.state_dict(),
            "best": self.best_weights,
            "predictions": self.best_predictions,
            "optimizer": optimizer,
            "random": {"cpu": torch.get_rng_state()},
        }
        tensors = {
            f"{part}/{name}": tensor.detach().cpu().contiguous().clone()
            for part, named in parts.items()
            for name, tensor in named.items()
        }
        return write_checkpoint(run_dir, Checkpoint(tensors, self.progress, groups))

    def load_newest(self, run_dir: Path) -> bool:
        """Restore from the newest checkpoint that can be read and fits; False if there is none."""
        for checkpoint in whole_checkpoints(run_dir):
            parts: dict[str, dict[str, Tensor]] = {part: {} for part in _PARTS}
            for path, tensor in checkpoint.tensors.items():
                part, _, name = path.partition("/")
                parts.setdefault(part, {})[name] = tensor
            if self._fits(parts, checkpoint.optimizer):
                self._restore(parts, checkpoint)
                return True
        return False

    def _fits(self, parts: dict[str, dict[str, Tensor]], groups: _Groups) -> bool:
        """Whether all of a checkpoint can be restored; nothing is changed before that is sure."""
        weights = self.model.state_dict()
        average = {} if self.average is None else self.average.state_dict()
        return (
            _are_alike(parts["model"], weights)
            and _are_alike(parts["best"], merged_weights(self.model))
            and _are_alike(parts["average"], average)
            and _are_alike(parts["random"], {"cpu": torch.get_rng_state()})
            and _optimizer_fits(self.optimizer, parts["optimizer"], groups)
        )

    def _restore(self, parts: dict[str, dict[str, Tensor]], checkpoint: Checkpoint) -> None:
        self.model.load_state_dict(parts["model"])
        if self.average is not None:
            self.average.load_state_dict(parts["average"])
        self.best_weights = parts["best"]
        self.best_predictions = parts["predictions"]
        _join_optimizer(self.optimizer, parts["optimizer"])
        self.progress = checkpoint.progress
        torch.set_rng_state(parts["random"]["cpu"])


def cpu_weights(model: torch.nn.Module) -> dict[str, Tensor]:
    """Copy a model's weights to the CPU, with low-rank changes merged into them."""
    return {name: value.cpu().clone() for name, value in merged_weights(model).items()}


def _are_alike(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> bool:
    """Whether two sets of tensors have the same names, shapes and types."""
    return found.keys() == wanted.keys() and all(
        found[name].shape == tensor.shape and found[name].dtype == tensor.dtype
        for name, tensor in wanted.items()
    )


def _split_optimizer(
    optimizer: torch.optim.Optimizer,
) -> tuple[dict[str, Tensor], _Groups]:
    """Split an optimizer's state into tensors by name and JSON-able rest."""
    state = optimizer.state_dict()
    tensors = {
        f"{index}/{name}": value
        for index, entries in state["state"].items()
        for name, value in entries.items()
        if isinstance(value, Tensor)
    }
    return tensors, {"param_groups": state["param_groups"]}


def _optimizer_fits(
    optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], groups: _Groups
) -> bool:
    own = optimizer.state_dict()["param_groups"]
    stored = groups.get("param_groups", [])
    if [group["params"] for group in own] != [group.get("params") for group in stored]:
        return False
    if any(own_group.keys() != group.keys() for own_group, group in zip(own, stored, strict=True)):
        return False
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for name, tensor in tensors.items():
        index = name.partition("/")[0]
        if not index.isdecimal() or int(index) >= len(parameters):
            return False
        is_counter = tensor.ndim == 0
        if not is_counter and tensor.shape != parameters[int(index)].shape:
            return False
    return True


def _join_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Restore the state of each parameter.

    The settings stay those of the config: a copy of another run may have others.
    """
    entries: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, key = name.partition("/")
        entries.setdefault(int(index), {})[key] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": entries, "param_groups": groups})
