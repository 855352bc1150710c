"""Gated convolutions over time that keep padding out of the result.

Letters: B batch, C channels, T samples. Every block takes and returns a (B, 1, T) mask; because padded
positions are zeroed after each layer, an event gives the same output however far its batch is padded.
"""

import torch
from torch import Tensor, nn

from gerbil_tune.buffers import BufferPool
from gerbil_tune.config.architectures import ConvStackConfig
from gerbil_tune.models.batch_norm import MaskedBatchNorm
from gerbil_tune.models.fast_conv import conv1d
from gerbil_tune.models.scaling import time_mask
from gerbil_tune.models.uncompiled import uncompiled

_NUMBERS_AT_ONCE = 1 << 19
"""Of a gate's output: few enough for the caches."""
_POOL = BufferPool()


class ChannelNorm(nn.Module):
    """Normalize over channels at each time (layer norm): independent of the batch and of padding."""

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(num_channels, 1))
        self.bias = nn.Parameter(torch.zeros(num_channels, 1))

    def forward(self, x_BCT: Tensor) -> Tensor:
        """Return (B, C, T) with zero mean and unit variance over C, then gain and bias."""
        # torch.var_mean takes ten times as long over any axis but the last.
        centred_BCT = x_BCT - x_BCT.mean(1, keepdim=True)
        factor_B1T = torch.rsqrt(centred_BCT.square().mean(1, keepdim=True) + 1e-5)
        gain, bias = self.gain.to(x_BCT.dtype), self.bias.to(x_BCT.dtype)
        if torch.is_grad_enabled():
            return centred_BCT * factor_B1T * gain + bias
        # In place, since new memory takes longer than what is computed in it.
        return centred_BCT.mul_(factor_B1T).mul_(gain).add_(bias)


def make_norm(kind: str, num_channels: int) -> nn.Module:
    """Build the normalization named in a config: batch, layer or none."""
    if kind == "batch":
        return MaskedBatchNorm(num_channels)
    if kind == "layer":
        return ChannelNorm(num_channels)
    return nn.Identity()


def normalized(norm: nn.Module, x_BCT: Tensor, mask_B1T: Tensor) -> Tensor:
    """Normalize what is inside the events, and zero the padding."""
    y_BCT: Tensor = norm(x_BCT, mask_B1T) if isinstance(norm, MaskedBatchNorm) else norm(x_BCT)
    mask_B1T = mask_B1T.to(y_BCT.dtype)
    if torch.is_grad_enabled() or y_BCT is x_BCT:
        return y_BCT * mask_B1T
    return y_BCT.mul_(mask_B1T)


class SameConv1d(nn.Module):
    """A convolution whose time axis becomes ceil(T / stride), and that of the mask with it.

    Output j stands at input ``j * stride``, so that an event of L samples has ceil(L / stride) outputs,
    however far it is padded. The padding of the output is not zeroed.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int,
        stride: int = 1,
        dilation: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        total = dilation * (kernel_size - 1)
        self.padding = (total // 2, total - total // 2)
        self.stride = stride
        self.dilation = dilation
        self.conv = nn.Conv1d(
            in_channels, out_channels, kernel_size, stride=stride, dilation=dilation, bias=bias
        )

    def forward(self, x_BCT: Tensor, mask_B1T: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output and its mask."""
        y_BCT = conv1d(
            x_BCT,
            self.conv.weight,
            self.conv.bias,
            stride=self.stride,
            dilation=self.dilation,
            padding=self.padding,
        )
        return y_BCT, mask_B1T[:, :, :: self.stride]


class GatedConv1d(SameConv1d):
    """``((1 - leak) tanh(f) + leak f) * sigmoid(g)`` with f and g from one convolution.

    The gate is WaveNet's (van den Oord et al. 2016, arXiv:1609.03499); the leak keeps a gradient where
    tanh saturates.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int,
        stride: int = 1,
        dilation: int = 1,
        leak: float = 0.0,
    ) -> None:
        super().__init__(
            in_channels,
            2 * out_channels,
            kernel_size=kernel_size,
            stride=stride,
            dilation=dilation,
        )
        self.leak = leak

    def forward(self, x_BCT: Tensor, mask_B1T: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gated output and its mask."""
        both_BCT, mask_B1T = super().forward(x_BCT, mask_B1T)
        signal_BCT, gate_BCT = both_BCT.chunk(2, dim=1)
        if both_BCT.device.type == "cpu" and not torch.is_grad_enabled():
            return _gated(signal_BCT, gate_BCT, self.leak), mask_B1T
        activated_BCT = torch.tanh(signal_BCT)
        if self.leak:
            activated_BCT = torch.lerp(activated_BCT, signal_BCT, self.leak)
        return activated_BCT * torch.sigmoid(gate_BCT), mask_B1T


@uncompiled
def _gated(signal_BCT: Tensor, gate_BCT: Tensor, leak: float) -> Tensor:
    """Activate a signal and multiply it by its gate, which is overwritten; without gradients.

    Some events at a time, in memory that is used again: new memory for each operation would take longer than
    the operations.
    """
    result_BCT = _POOL.empty(tuple(signal_BCT.shape), signal_BCT.dtype)
    at_once = max(1, _NUMBERS_AT_ONCE // max(1, signal_BCT[:1].numel()))
    for start in range(0, len(signal_BCT), at_once):
        rows = slice(start, start + at_once)
        activated_BCT = result_BCT[rows]
        _tanh(signal_BCT[rows], activated_BCT)
        if leak:
            activated_BCT.lerp_(signal_BCT[rows], leak)
        activated_BCT.mul_(gate_BCT[rows].sigmoid_())
    return result_BCT


def _tanh(x: Tensor, result: Tensor) -> None:
    """Hyperbolic tangent; in bfloat16 by a sigmoid in float32, which takes half as long."""
    if result.dtype != torch.bfloat16:
        torch.tanh(x, out=result)
        return
    doubled = _POOL.empty(tuple(x.shape), torch.float32).copy_(x).mul_(2.0)
    result.copy_(doubled.sigmoid_().mul_(2.0).sub_(1.0))


def masked_mean(x_BCT: Tensor, mask_B1T: Tensor) -> Tensor:
    """Mean over the unpadded times, (B, C)."""
    return (x_BCT * mask_B1T).sum(2) / mask_B1T.sum(2).clamp_min(1.0)


class ConvStack(nn.Module):
    """The gated stack of the predecessors' SimpleNetwork, ending in a mean over time."""

    def __init__(self, config: ConvStackConfig, in_channels: int) -> None:
        super().__init__()
        widths = [max(1, round(c * config.width_multiplier)) for c in config.channels]
        self.layers = nn.ModuleList()
        self.norms = nn.ModuleList()
        for width, kernel_size, downsample, dilation in zip(
            widths, config.kernel_sizes, config.downsample, config.dilations, strict=True
        ):
            self.layers.append(
                GatedConv1d(
                    in_channels,
                    width,
                    kernel_size=kernel_size,
                    stride=2 if downsample else 1,
                    dilation=dilation,
                    leak=0.05,
                )
            )
            self.norms.append(make_norm(config.normalization, width))
            in_channels = width
        self.num_outputs = in_channels

    def forward(self, x_BCT: Tensor, lengths_B: Tensor) -> Tensor:
        """Return one vector an event, (B, num_outputs)."""
        mask_B1T = time_mask(lengths_B, x_BCT.shape[2])
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x_BCT, mask_B1T = layer(x_BCT, mask_B1T)
            x_BCT = normalized(norm, x_BCT, mask_B1T)
        return masked_mean(x_BCT, mask_B1T)
