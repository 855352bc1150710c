"""Convolutions over time by the method that is the fastest for their shapes.

Letters: B batch, C input channels, O output channels, T samples, K taps.
"""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from gerbil_tune.buffers import BufferPool
from gerbil_tune.models.tiled_conv import TiledConvolution, Tiling, best_tiling
from gerbil_tune.models.uncompiled import uncompiled

_WORTH = 0.5
"""Tiles are taken where they cost at most this part of the direct method's multiplications."""
_WORTH_BESIDE_AMX = 0.25
"""The same for bfloat16 on a processor with units for products of matrices. An estimate: there copies count
for more, and the direct method is four to five times as fast as in float32."""
_PART_BYTES = 3 << 20
"""Of the direct method's output that is computed at once."""
_POOL = BufferPool()


def conv1d(
    x_BCT: Tensor,
    weight_OCK: Tensor,
    bias_O: Tensor | None,
    *,
    stride: int = 1,
    dilation: int = 1,
    padding: tuple[int, int] = (0, 0),
) -> Tensor:
    """Convolve as ``torch.nn.functional.conv1d`` does, by the method that is faster for these shapes.

    Which it is depends on shapes, types and the processor alone. It is the direct method on other devices
    than a CPU, with dilation, and wherever tiles (``tiled_conv``) save less than half of the multiplications,
    in bfloat16 beside AMX three quarters. The methods differ by rounding, which in tiles is relative to the
    largest values nearby.

    Args:
        x_BCT: (B, C, T) float.
        weight_OCK: (O, C, K) float.
        bias_O: (O,) float, or None.
        stride: Of the output.
        dilation: Of the kernel.
        padding: Zeros before and after the input.

    Returns:
        (B, O, T'), where T' is that of the direct method, of the type that autocast says, else the input's.
    """
    if x_BCT.device.type == "cpu" and dilation == 1:
        y_BOT: Tensor = _on_cpu(x_BCT, weight_OCK, bias_O, stride, padding)
        return y_BOT
    padded_BCT = functional.pad(x_BCT, padding) if any(padding) else x_BCT
    return functional.conv1d(padded_BCT, weight_OCK, bias_O, stride, 0, dilation)


@uncompiled
def _on_cpu(
    x_BCT: Tensor,
    weight_OCK: Tensor,
    bias_O: Tensor | None,
    stride: int,
    padding: tuple[int, int],
) -> Tensor:
    dtype = _type_of_products(x_BCT, weight_OCK)
    num_outputs, num_channels, num_taps = weight_OCK.shape
    tiling = best_tiling(num_channels, num_outputs, num_taps, stride)
    num_samples = x_BCT.shape[2] + sum(padding)
    if tiling is None or not _pays(tiling, len(x_BCT), num_samples, dtype):
        return _direct(x_BCT, weight_OCK, bias_O, stride, padding)
    if not torch.is_grad_enabled():
        with torch.autocast("cpu", enabled=False):
            tiles = TiledConvolution(
                x_BCT.to(dtype), weight_OCK, tiling, padding, keep_spectra=True
            )
            return tiles.convolved(bias_O)
    result: Tensor = _Tiled.apply(  # type: ignore[no-untyped-call]
        x_BCT.to(dtype), weight_OCK, bias_O, tiling, padding
    )
    return result


def _direct(
    x_BCT: Tensor,
    weight_OCK: Tensor,
    bias_O: Tensor | None,
    stride: int,
    padding: tuple[int, int],
) -> Tensor:
    """The direct method; without gradients some events at a time, which spares much new memory."""

    def convolve(part_BCT: Tensor) -> Tensor:
        padded_BCT = functional.pad(part_BCT, padding)
        return functional.conv1d(padded_BCT, weight_OCK, bias_O, stride)

    if torch.is_grad_enabled() or len(x_BCT) < 2:
        return convolve(x_BCT)
    first_BOT = convolve(x_BCT[:1])
    y_BOT = _POOL.empty((len(x_BCT), *first_BOT.shape[1:]), first_BOT.dtype)
    y_BOT[:1] = first_BOT
    at_once = max(1, _PART_BYTES // first_BOT.nbytes)
    for start in range(1, len(x_BCT), at_once):
        y_BOT[start : start + at_once] = convolve(x_BCT[start : start + at_once])
    return y_BOT


def _type_of_products(x_BCT: Tensor, weight_OCK: Tensor) -> torch.dtype | None:
    """Type in which to compute; None where torch is to say what is wrong with these types."""
    if torch.is_autocast_enabled("cpu") and x_BCT.dtype != torch.float64:
        return torch.get_autocast_dtype("cpu")
    return x_BCT.dtype if x_BCT.dtype == weight_OCK.dtype else None


def _pays(tiling: Tiling, num_events: int, num_samples: int, dtype: torch.dtype | None) -> bool:
    if dtype not in (torch.float32, torch.float64, torch.bfloat16):
        return False
    output_samples = max(0, tiling.output_samples(num_samples))
    direct = tiling.num_channels * tiling.num_outputs * tiling.num_taps * output_samples
    in_tiles = tiling.cost(num_events * tiling.num_tiles(output_samples))
    is_beside_amx = dtype == torch.bfloat16 and _has_amx()
    worth = _WORTH_BESIDE_AMX if is_beside_amx else _WORTH
    return in_tiles <= worth * num_events * direct


@lru_cache(maxsize=1)
def _has_amx() -> bool:
    return bool(torch.cpu.get_capabilities().get("amx_bf16", False))


class _Tiled(torch.autograd.Function):
    """Keeps what the direct method keeps, the input and the weight; spectra are computed again."""

    @staticmethod
    def forward(
        ctx: Any,
        x_BCT: Tensor,
        weight_OCK: Tensor,
        bias_O: Tensor | None,
        tiling: Tiling,
        padding: tuple[int, int],
    ) -> Tensor:
        ctx.save_for_backward(x_BCT, weight_OCK)
        ctx.tiling, ctx.padding = tiling, padding
        with torch.autocast("cpu", enabled=False):
            return TiledConvolution(x_BCT, weight_OCK, tiling, padding).convolved(bias_O)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BOT: Tensor) -> tuple[Tensor | None, ...]:
        x_BCT, weight_OCK = ctx.saved_tensors
        of_x, of_weight, of_bias, *_ = ctx.needs_input_grad
        with torch.autocast("cpu", enabled=False):
            tiles = TiledConvolution(x_BCT, weight_OCK, ctx.tiling, ctx.padding)
            gradients = tiles.gradients(gradient_BOT, of_x=of_x, of_weight=of_weight)
            gradient_O = gradient_BOT.sum((0, 2), dtype=weight_OCK.dtype) if of_bias else None
        return *gradients, gradient_O, None, None
