"""Low-rank changes of weights that stay as they are: few numbers to train, merged into what is saved.

After LoRA (Hu et al. 2021, arXiv:2106.09685). A weight W, taken as a matrix with a row for each output,
becomes W + (alpha / rank) up @ down; ``up`` begins at zero, so that nothing is changed at the start.

Letters: O outputs, I inputs (of a convolution: those of one output, times the kernel's size), R rank.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

ALPHA = 8.0
"""Of Adam it is a factor on the learning rate, and needs no tuning beside that (section 4.1 of the paper)."""

_WEIGHT = "weight"


class LowRankChange(nn.Module):
    """The change of one weight.

    Args:
        weight: (O, ...), which is to be changed.
        rank: At most that of the weight.
    """

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        num_outputs, num_inputs = weight.flatten(1).shape
        rank = min(rank, num_outputs, num_inputs)
        self.scale = ALPHA / rank
        self.down = nn.Parameter(weight.new_empty(rank, num_inputs))
        self.up = nn.Parameter(weight.new_zeros(num_outputs, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight with its change, of the same shape and type."""
        # Outside of autocast: what is trained is then what will be merged.
        with torch.autocast(weight.device.type, enabled=False):
            change_OI = self.scale * (self.up @ self.down)
            return weight + change_OI.view_as(weight)


def add_low_rank_changes(network: nn.Module, rank: int, *, whole: nn.Module) -> None:
    """Freeze a network, and let low-rank changes of its layers be trained in place of their weights.

    Args:
        network: Its linear layers and its convolutions get changes; ``layer.weight`` has them in it.
        rank: Of the changes.
        whole: The layer of it that is trained as it is.
    """
    network.requires_grad_(False)
    kinds = nn.Linear | nn.Conv1d | nn.Conv2d
    layers = [m for m in network.modules() if isinstance(m, kinds) and m is not whole]
    for layer in layers:
        change = LowRankChange(layer.weight, rank)
        parametrize.register_parametrization(layer, _WEIGHT, change)
    whole.requires_grad_(True)


def unchanged_weights(model: nn.Module) -> dict[str, Tensor]:
    """The model's tensors without low-rank changes, by their names in a plain model; in its own memory."""
    tensors = {}
    for name, tensor in model.state_dict().items():
        layer, is_changed, part = name.rpartition(f"parametrizations.{_WEIGHT}.")
        if not is_changed:
            tensors[name] = tensor
        elif part == "original":
            tensors[f"{layer}{_WEIGHT}"] = tensor
    return tensors


def merged_weights(model: nn.Module) -> dict[str, Tensor]:
    """The model's tensors with low-rank changes in them, by their names in a plain model."""
    tensors = unchanged_weights(model)
    for name, layer in model.named_modules():
        if parametrize.is_parametrized(layer, _WEIGHT):
            prefix = f"{name}." if name else ""
            tensors[f"{prefix}{_WEIGHT}"] = layer.weight.detach()
    return tensors
