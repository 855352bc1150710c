"""The resumable state of a training run, on disk without pickle.

    <run_dir>/checkpoints/epoch-00003/state.safetensors   model, optimizer, best weights, random state
                                      state.json          epoch, best value, metrics, optimizer's scalars
    <run_dir>/checkpoints/epoch-00003-step-000120/...     the same, after 120 steps of the fourth epoch

A checkpoint is written to a temporary folder and renamed: what has the final name is whole. The names sort by
age.
"""

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

CHECKPOINTS = "checkpoints"
_KEEP = 2  # the newest, and one to fall back to


@dataclass
class PartialEpoch:
    """What was done of an epoch that has not ended.

    Attributes:
        step: Steps done.
        loss_sum: Sum of their losses over all ranks.
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
    """

    epoch: int = 0
    partial: PartialEpoch = field(default_factory=PartialEpoch)
    best_value: float = float("inf")
    best_metrics: dict[str, float] = field(default_factory=dict)
    last_metrics: dict[str, float] = field(default_factory=dict)


@dataclass
class TrainState:
    """Everything that continuing exactly needs.

    Attributes:
        model: The bare module, without a DDP wrapper.
        optimizer: Its optimizer.
        progress: How far it has come.
        best_weights: Weights of the best epoch, on the CPU.
        best_predictions: What they predicted of the validation events, so that the data need not be read
            again: mean, covariance and truth.
    """

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    progress: Progress
    best_weights: dict[str, Tensor]
    best_predictions: dict[str, Tensor] = field(default_factory=dict)

    def save(self, run_dir: Path) -> Path:
        """Write a checkpoint and drop old ones; return its folder."""
        folder = run_dir / CHECKPOINTS
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / ".partial"
        shutil.rmtree(temporary, ignore_errors=True)  # of a run that was killed here
        temporary.mkdir()
        tensors, scalars = _split_optimizer(self.optimizer)
        tensors |= {f"model/{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"best/{name}": value for name, value in self.best_weights.items()}
        tensors |= {f"predictions/{name}": value for name, value in self.best_predictions.items()}
        tensors["random/cpu"] = torch.get_rng_state()
        save_file(
            {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()},
            temporary / "state.safetensors",
        )
        content = {"progress": asdict(self.progress), "optimizer": scalars}
        (temporary / "state.json").write_text(json.dumps(content))
        name = f"epoch-{self.progress.epoch:05d}"
        if self.progress.partial.step:
            name += f"-step-{self.progress.partial.step:06d}"
        target = folder / name
        shutil.rmtree(target, ignore_errors=True)
        temporary.rename(target)
        for old in sorted(folder.glob("epoch-*"))[:-_KEEP]:
            shutil.rmtree(old, ignore_errors=True)
        return target

    def load_newest(self, run_dir: Path) -> bool:
        """Restore from the newest checkpoint that can be read; False if there is none."""
        for folder in sorted((run_dir / CHECKPOINTS).glob("epoch-*"), reverse=True):
            try:
                tensors = load_file(folder / "state.safetensors")
                content = json.loads((folder / "state.json").read_text())
            except (OSError, ValueError, SafetensorError):
                continue  # torn by a full disk or a lost file system: the one before it is whole
            self._restore(tensors, content)
            return True
        return False

    def _restore(self, tensors: dict[str, Tensor], content: dict[str, Any]) -> None:
        parts: dict[str, dict[str, Tensor]] = {
            "model": {},
            "best": {},
            "predictions": {},
            "optimizer": {},
            "random": {},
        }
        for name, tensor in tensors.items():
            part, _, key = name.partition("/")
            parts[part][key] = tensor
        self.model.load_state_dict(parts["model"])
        self.best_weights = parts["best"]
        self.best_predictions = parts["predictions"]
        _join_optimizer(self.optimizer, parts["optimizer"], content["optimizer"])
        progress = dict(content["progress"])
        partial = PartialEpoch(**progress.pop("partial", {}))
        self.progress = Progress(partial=partial, **progress)
        torch.set_rng_state(parts["random"]["cpu"])


def newest_place(run_dir: Path) -> tuple[int, int] | None:
    """Epochs done, and steps of the next one, at which a run goes on; None where it begins."""
    for folder in sorted((run_dir / CHECKPOINTS).glob("epoch-*"), reverse=True):
        _, epoch, *step = folder.name.split("-")
        return int(epoch), int(step[1]) if step else 0
    return None


def cpu_weights(model: torch.nn.Module) -> dict[str, Tensor]:
    """Copy a model's weights to the CPU."""
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}


def remove_checkpoints(run_dir: Path) -> None:
    """Delete the checkpoints of a run that needs none any more."""
    shutil.rmtree(run_dir / CHECKPOINTS, ignore_errors=True)


def _split_optimizer(
    optimizer: torch.optim.Optimizer,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Split an optimizer's state into tensors by name and JSON-able rest."""
    state = optimizer.state_dict()
    tensors = {
        f"optimizer/{index}/{name}": value
        for index, entries in state["state"].items()
        for name, value in entries.items()
        if isinstance(value, Tensor)
    }
    return tensors, {"param_groups": state["param_groups"]}


def _join_optimizer(
    optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], scalars: dict[str, Any]
) -> None:
    entries: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, key = name.partition("/")
        entries.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": entries, "param_groups": scalars["param_groups"]})
