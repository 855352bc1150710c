"""Layers that the predecessors' networks share.

Letters: B batch, C channels, T samples, H hidden.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from gerbil_tune.config.architectures import LegacySimpleNetConfig
from gerbil_tune.errors import ConfigError
from gerbil_tune.models.batch_norm import MaskedBatchNorm

_LEAK = 0.05


def gated(signal_and_gate: Tensor, activation: Literal["gerbilizer", "vocalocator"]) -> Tensor:
    """Activate the first half of the channels and gate it by the second half."""
    signal_BCT, gate_BCT = signal_and_gate.chunk(2, dim=1)
    share = 1.0 if activation == "gerbilizer" else 1.0 - _LEAK
    return (share * torch.tanh(signal_BCT) + _LEAK * signal_BCT) * torch.sigmoid(gate_BCT)


class GatedLayer(nn.Module):
    """A convolution without padding, its gate, and batch norm.

    Signal and gate, two convolutions in theirs, are one with twice the channels.
    """

    def __init__(self, config: LegacySimpleNetConfig, number: int, in_channels: int) -> None:
        super().__init__()
        out_channels = config.channels[number]
        self.activation = config.activation
        self.conv = nn.Conv1d(
            in_channels,
            2 * out_channels,
            config.kernel_sizes[number],
            stride=2 if config.downsample[number] else 1,
            dilation=config.dilations[number],
        )
        self.norm = MaskedBatchNorm(out_channels) if config.batch_norm else nn.Identity()

    def forward(self, x_BCT: Tensor) -> Tensor:
        """Return (B, out_channels, fewer T)."""
        y_BCT: Tensor = self.norm(gated(self.conv(x_BCT), self.activation))
        return y_BCT


def make_layers(config: LegacySimpleNetConfig, in_channels: int) -> nn.Sequential:
    """The stack of gated convolutions.

    Raises:
        ConfigError: If the crop is too short for them.
    """
    needed = shortest_crop(config)
    if config.crop_length < needed:
        raise ConfigError(
            f"model/crop_length must be at least {needed}, which the convolutions reach over, but is "
            f"{config.crop_length}"
        )
    widths = (in_channels, *config.channels)
    return nn.Sequential(
        *(GatedLayer(config, number, widths[number]) for number in range(len(config.channels)))
    )


def shortest_crop(config: LegacySimpleNetConfig) -> int:
    """Samples from which the stack makes its first value."""
    samples = 1
    for kernel_size, downsample, dilation in zip(
        reversed(config.kernel_sizes),
        reversed(config.downsample),
        reversed(config.dilations),
        strict=True,
    ):
        samples = (samples - 1) * (2 if downsample else 1) + dilation * (kernel_size - 1) + 1
    return samples


class BatchNormOfVectors(MaskedBatchNorm):
    """Batch norm over events that are vectors."""

    def forward(self, x_BH: Tensor, mask_B1T: Tensor | None = None) -> Tensor:
        """Normalize each of H numbers, then gain and bias."""
        return super().forward(x_BH[:, :, None], mask_B1T)[:, :, 0]
