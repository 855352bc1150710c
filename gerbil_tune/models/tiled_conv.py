"""Convolutions over time with few multiplications, by tiles in the frequency domain (overlap-save).

See Oppenheim and Schafer, Discrete-Time Signal Processing, 8.7.3. Each pair of channels costs one complex
product a frequency: at 33 taps and many channels a fifth to an eighth of the direct method's
multiplications, transforms included. The transforms are products with small matrices, so that all of it is
matrix products in the type of the input.

The frequencies are the odd multiples of half of 1 / N. No frequency is then its own conjugate, and what
wraps around at the ends of a tile, and is thrown away, changes its sign.

Letters: B batch, C input channels, O output channels, T samples, K taps, P phases (a convolution with
stride P is the sum of P ones with stride 1, of every P-th sample each), I inputs (P by C), N samples of a
tile, H samples of its output, J tiles of an event, L tiles of all events, Q real and imaginary parts, F
frequencies (N / 2).
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

import torch
from torch import Tensor

from gerbil_tune.buffers import BufferPool
from gerbil_tune.models.kernel_spectra import SpectraStore

_OUTPUT_LENGTHS = (48, 64, 96, 128, 256)
_TILE_LENGTH_MULTIPLE = 16
_USUAL_EVENTS, _USUAL_OUTPUT_SAMPLES = 8, 1024
"""At once, deep in a network: tilings are compared for them."""
_KERNEL_COST = 50
"""What a number of a kernel's spectrum costs, in multiplications; it goes to memory and back."""
_FEWEST_BYTES, _MOST_BYTES = 8 << 20, 32 << 20
"""Of spectra of events that are held at once: within the cache, but many for each spectrum of a kernel."""
_KERNEL_BYTES = 16 << 20
"""Of spectra of kernels that are held at once."""
_ALIGNMENT = 64
_POOL = BufferPool()
_KEPT = SpectraStore()


@dataclass(frozen=True, slots=True)
class Tiling:
    """How a convolution is cut into tiles.

    Attributes:
        num_channels: C.
        num_outputs: O.
        num_taps: K.
        stride: P.
        output_length: H.
        tile_length: N; even, from H + K / P - 1 to 2 H.
    """

    num_channels: int
    num_outputs: int
    num_taps: int
    stride: int
    output_length: int
    tile_length: int

    @property
    def num_inputs(self) -> int:
        """I."""
        return self.stride * self.num_channels

    def output_samples(self, num_samples: int) -> int:
        """Samples of the output for so many of the padded input; none or less where the kernel is longer."""
        return (num_samples - self.num_taps) // self.stride + 1

    def num_tiles(self, output_samples: int) -> int:
        """J."""
        return -(-output_samples // self.output_length)

    def cost(self, num_tiles: int) -> int:
        """In multiplications."""
        products = self.num_inputs * self.num_outputs
        transforms = self.tile_length * self.num_inputs + self.output_length * self.num_outputs
        of_tile = 2 * products + transforms
        return self.tile_length * (num_tiles * of_tile + _KERNEL_COST * products)


@lru_cache(maxsize=256)
def best_tiling(num_channels: int, num_outputs: int, num_taps: int, stride: int) -> Tiling | None:
    """The tiling with the lowest cost for a usual number of samples; None if the kernel is too long.

    The actual number does not matter, so that an event is cut in the same way however far it is padded.
    """
    tilings = []
    for output_length in _OUTPUT_LENGTHS:
        shortest = output_length + -(-num_taps // stride) - 1
        tile_length = -(-shortest // _TILE_LENGTH_MULTIPLE) * _TILE_LENGTH_MULTIPLE
        if tile_length <= 2 * output_length:
            shape = num_channels, num_outputs, num_taps, stride
            tilings.append(Tiling(*shape, output_length, tile_length))
    return min(tilings, key=_usual_cost, default=None)


def _usual_cost(tiling: Tiling) -> int:
    return tiling.cost(_USUAL_EVENTS * tiling.num_tiles(_USUAL_OUTPUT_SAMPLES))


class _Memory:
    """One piece of memory for several tensors; what is taken by a name takes the place of the last by it."""

    def __init__(self, sizes: Mapping[str, int], dtype: torch.dtype) -> None:
        aligned = {name: -(-size // _ALIGNMENT) * _ALIGNMENT for name, size in sizes.items()}
        whole = _POOL.empty((sum(aligned.values()),), dtype)
        parts = torch.split(whole, list(aligned.values()))
        self._parts: dict[str, Tensor] = dict(zip(aligned, parts, strict=True))

    def take(self, name: str, *shape: int) -> Tensor:
        """A contiguous tensor of any content."""
        return self._parts[name][: math.prod(shape)].view(shape)


class TiledConvolution:
    """One convolution in tiles, some events and some outputs at a time.

    Spectra are (Q, F, L, I) of events, (Q, F, I, O) of kernels and (Q, F, L, O) of outputs, each in memory
    that the next part uses again.

    Args:
        x_BCT: (B, C, T) float.
        weight_OCK: (O, C, K) float.
        tiling: For these shapes.
        padding: Zeros before and after the input.
        keep_spectra: Whether the weight is likely to be met again as it is; then its spectra are kept.
    """

    def __init__(
        self,
        x_BCT: Tensor,
        weight_OCK: Tensor,
        tiling: Tiling,
        padding: tuple[int, int],
        *,
        keep_spectra: bool = False,
    ) -> None:
        self._x_BCT, self._weight_OCK = x_BCT, weight_OCK
        self._keep_spectra = keep_spectra
        self._tiling, self._matrices = tiling, _matrices(tiling, x_BCT.dtype)
        self._left = padding[0]
        self._output_samples = tiling.output_samples(x_BCT.shape[2] + sum(padding))
        self._num_tiles = tiling.num_tiles(self._output_samples)
        self._events, self._outputs = self._divided()
        self._memory = _Memory(self._sizes(), x_BCT.dtype)
        self._transformed_outputs: slice | None = None

    @cached_property
    def _taps_COK(self) -> Tensor:
        return self._weight_OCK.to(self._x_BCT.dtype).transpose(0, 1).contiguous()

    def _divided(self) -> tuple[list[slice], list[slice]]:
        """Parts of the events and of the outputs.

        As many events at once as fit the cache, but enough for the time that it takes to read the kernels.
        """
        num_inputs, num_outputs = self._tiling.num_inputs, self._tiling.num_outputs
        column_bytes = self._tiling.tile_length * self._x_BCT.dtype.itemsize
        kernel_bytes = column_bytes * num_inputs
        most_bytes = min(max(2 * kernel_bytes * num_outputs, _FEWEST_BYTES), _MOST_BYTES)
        event_bytes = column_bytes * self._num_tiles * (num_inputs + num_outputs)
        events = _parts(len(self._x_BCT), most_bytes // event_bytes)
        return events, _parts(num_outputs, _KERNEL_BYTES // kernel_bytes)

    def _sizes(self) -> dict[str, int]:
        """Numbers in the largest parts; memory that is not touched costs nothing."""
        num_inputs, length = self._tiling.num_inputs, self._tiling.tile_length
        num_events, num_outputs = self._events[0].stop, self._outputs[0].stop
        num_tiles = num_events * self._num_tiles
        samples = num_events * (self._num_tiles + 1) * self._tiling.output_length * num_inputs
        return {
            "samples": samples,
            "tiles": num_tiles * num_inputs * length,
            "events": num_tiles * num_inputs * length,
            "gradients of events": num_tiles * num_inputs * length,
            "kernels": num_inputs * num_outputs * length,
            "gradients of kernels": num_inputs * num_outputs * length,
            "products": num_tiles * num_outputs * (length + 1),
            "outputs": num_tiles * num_outputs * self._tiling.output_length,
        }

    def convolved(self, bias_O: Tensor | None) -> Tensor:
        """The output, (B, O, T)."""
        shape = len(self._x_BCT), len(self._weight_OCK), self._output_samples
        y_BOT = _POOL.empty(shape, self._x_BCT.dtype)
        for rows in self._events:
            events = self._spectra_of_events(rows)
            for outputs in self._outputs:
                kernels = self._spectra_of_kernels(outputs)
                bias = None if bias_O is None else bias_O[outputs]
                self._put_products(events, kernels, bias, y_BOT[rows, outputs])
        return y_BOT

    def gradients(
        self, gradient_BOT: Tensor, *, of_x: bool, of_weight: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """Of the input and of the weight, where they are wanted, from that of the output."""
        gradient_BCT = torch.empty_like(self._x_BCT) if of_x else None
        gradient_OCK = torch.zeros_like(self._weight_OCK) if of_weight else None
        for rows in self._events:
            events = self._spectra_of_events(rows)
            backward = self._memory.take("gradients of events", *events.shape)
            for outputs in self._outputs:
                products = self._spectra_of_gradient(gradient_BOT[rows, outputs])
                if gradient_OCK is not None:
                    gradient_OCK[outputs] += self._gradient_of_taps(events, products)
                if gradient_BCT is not None:
                    kernels = self._spectra_of_kernels(outputs)
                    add = outputs.start > 0
                    _multiply(products, kernels.mT, backward, conjugate="second", add=add)
            if gradient_BCT is not None:
                self._put_overlapped(backward, gradient_BCT[rows])
        return gradient_BCT, gradient_OCK

    def _spectra_of_events(self, rows: slice) -> Tensor:
        """(Q, F, L, I)."""
        stride, tile_length = self._tiling.stride, self._tiling.tile_length
        hop = self._tiling.output_length
        x_BCT = self._x_BCT[rows]
        num_samples = stride * ((self._num_tiles - 1) * hop + tile_length)
        padded_BCT = self._memory.take("samples", *x_BCT.shape[:2], num_samples)
        _shift(x_BCT, padded_BCT, self._left)
        phases_BCTP = padded_BCT.view(*x_BCT.shape[:2], -1, stride)
        tiles_BJPCN = phases_BCTP.unfold(2, tile_length, hop).permute(0, 2, 3, 1, 4)
        tiles = self._memory.take("tiles", *tiles_BJPCN.shape).copy_(tiles_BJPCN)
        columns = tiles.view(-1, tile_length)
        spectra = self._memory.take("events", tile_length, len(columns))
        torch.mm(self._matrices.analysis_NN, columns.t(), out=spectra)
        return spectra.view(2, tile_length // 2, -1, self._tiling.num_inputs)

    def _spectra_of_kernels(self, outputs: slice) -> Tensor:
        """(Q, F, I, O)."""
        shape = 2, self._tiling.tile_length // 2, self._tiling.num_inputs, -1
        if self._keep_spectra:
            return self._kept_spectra(outputs).view(shape)
        num_taps = self._tiling.num_channels * (outputs.stop - outputs.start)
        spectra = self._memory.take("kernels", len(self._matrices.kernels_MK), num_taps)
        if self._transformed_outputs != outputs:
            self._transform_kernels(outputs, spectra)
            self._transformed_outputs = outputs
        return spectra.view(shape)

    def _kept_spectra(self, outputs: slice) -> Tensor:
        dtype = self._x_BCT.dtype
        key = self._tiling, dtype, outputs.start, outputs.stop
        spectra = _KEPT.find(self._weight_OCK, key)
        if spectra is None:
            num_taps = self._tiling.num_channels * (outputs.stop - outputs.start)
            spectra = torch.empty(len(self._matrices.kernels_MK), num_taps, dtype=dtype)
            self._transform_kernels(outputs, spectra)
            _KEPT.keep(self._weight_OCK, key, spectra)
        return spectra

    def _transform_kernels(self, outputs: slice, spectra: Tensor) -> None:
        taps = self._taps_COK[:, outputs].flatten(0, 1)
        torch.mm(self._matrices.kernels_MK, taps.t(), out=spectra)

    def _put_products(
        self, events: Tensor, kernels: Tensor, bias_O: Tensor | None, y_BOT: Tensor
    ) -> None:
        """Set the output, (B, O, T), to the products in time and the bias."""
        num_outputs, length = y_BOT.shape[1], self._tiling.output_length
        num_rows = self._tiling.tile_length + 1
        products = self._memory.take("products", num_rows, events.shape[2], num_outputs)
        _multiply(events, kernels, products[:-1].view(*events.shape[:3], num_outputs))
        products[-1] = 0 if bias_O is None else bias_O
        tiles = self._memory.take("outputs", events.shape[2] * num_outputs, length)
        torch.mm(products.view(num_rows, -1).t(), self._matrices.synthesis_MH, out=tiles)
        tiles_BJOH = tiles.view(len(y_BOT), -1, num_outputs, length)
        for tile_BOJH, place_BOJH in _in_tiles(tiles_BJOH.transpose(1, 2), y_BOT):
            place_BOJH.copy_(tile_BOJH)

    def _spectra_of_gradient(self, gradient_BOT: Tensor) -> Tensor:
        """(Q, F, L, O), by the transpose of what brings products into time."""
        num_events, num_outputs, num_samples = gradient_BOT.shape
        length = self._tiling.output_length
        tiles_BJOH = self._memory.take("outputs", num_events, self._num_tiles, num_outputs, length)
        for tile_BOJH, place_BOJH in _in_tiles(tiles_BJOH.transpose(1, 2), gradient_BOT):
            tile_BOJH.copy_(place_BOJH)
        if rest := num_samples % length:
            tiles_BJOH[:, -1, :, rest:] = 0
        columns = tiles_BJOH.view(-1, length)
        spectra = self._memory.take("products", self._tiling.tile_length, len(columns))
        torch.mm(self._matrices.synthesis_MH[:-1], columns.t(), out=spectra)
        return spectra.view(2, self._tiling.tile_length // 2, -1, num_outputs)

    def _gradient_of_taps(self, events: Tensor, products: Tensor) -> Tensor:
        """(O, C, K)."""
        shape = *events.shape[:2], events.shape[3], products.shape[3]
        spectra = self._memory.take("gradients of kernels", *shape)
        _multiply(events.mT, products, spectra, conjugate="first")
        matrix_MK = self._matrices.kernels_MK
        taps = spectra.view(len(matrix_MK), -1).t() @ matrix_MK
        return taps.view(self._tiling.num_channels, -1, taps.shape[1]).transpose(0, 1)

    def _put_overlapped(self, backward: Tensor, gradient_BCT: Tensor) -> None:
        """Set the gradient to the sum of overlapping tiles, by the transpose of what cuts them."""
        tile_length, hop = self._tiling.tile_length, self._tiling.output_length
        rows = backward.view(tile_length, -1).t()
        tiles = self._memory.take("tiles", len(rows), tile_length)
        torch.mm(rows, self._matrices.analysis_NN, out=tiles)
        num_events, num_channels, _ = gradient_BCT.shape
        tiles_BJPCN = tiles.view(num_events, self._num_tiles, -1, num_channels, tile_length)
        tiles_BCJNP = tiles_BJPCN.permute(0, 3, 1, 4, 2)
        shape = num_events, num_channels, self._num_tiles + 1, hop, self._tiling.stride
        sums_BCJHP = self._memory.take("samples", *shape)
        sums_BCJHP[:, :, :-1] = tiles_BCJNP[:, :, :, :hop]
        sums_BCJHP[:, :, -1] = 0
        sums_BCJHP[:, :, 1:, : tile_length - hop] += tiles_BCJNP[:, :, :, hop:]
        _shift(sums_BCJHP.flatten(2), gradient_BCT, -self._left)


def _parts(number: int, most: int) -> list[slice]:
    """Parts of about the same size, the largest first."""
    num_parts = -(-number // max(1, most))
    size = -(-number // num_parts)
    return [slice(start, min(start + size, number)) for start in range(0, number, size)]


def _shift(x_BCT: Tensor, shifted_BCT: Tensor, shift: int) -> None:
    """Copy to later samples, or to earlier ones; zeros where nothing comes to, and nothing beyond the end."""
    first = max(0, shift)
    last = max(first, min(x_BCT.shape[2] + shift, shifted_BCT.shape[2]))
    shifted_BCT[..., :first] = 0
    shifted_BCT[..., first:last] = x_BCT[..., first - shift : last - shift]
    shifted_BCT[..., last:] = 0


def _in_tiles(tiles_BOJH: Tensor, x_BOT: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield tiles and their places in time: the whole ones, then the last one if it is cut off."""
    length = tiles_BOJH.shape[3]
    num_whole, rest = divmod(x_BOT.shape[2], length)
    if num_whole:
        whole_BOT = x_BOT[..., : num_whole * length]
        yield tiles_BOJH[:, :, :num_whole], whole_BOT.view(*x_BOT.shape[:2], num_whole, length)
    if rest:
        yield tiles_BOJH[:, :, num_whole:, :rest], x_BOT[:, :, None, num_whole * length :]


def _multiply(
    a: Tensor,
    b: Tensor,
    result: Tensor,
    *,
    conjugate: Literal["first", "second"] | None = None,
    add: bool = False,
) -> None:
    """Set ``result`` to the complex product of matrices, or add it; all are (Q, F, rows, columns).

    Four real products: three would do, at the price of digits that bfloat16 does not have.
    """
    sign_a = -1 if conjugate == "first" else 1
    sign_b = -1 if conjugate == "second" else 1
    beta = 1 if add else 0
    result[0].baddbmm_(a[0], b[0], beta=beta)
    result[0].baddbmm_(a[1], b[1], alpha=-sign_a * sign_b)
    result[1].baddbmm_(a[1], b[0], beta=beta, alpha=sign_a)
    result[1].baddbmm_(a[0], b[1], alpha=sign_b)


@dataclass(frozen=True, slots=True)
class _Matrices:
    """The transforms.

    Attributes:
        analysis_NN: From a tile to its spectrum.
        kernels_MK: From taps to the conjugate spectra of their phases; a row a part, frequency and phase.
        synthesis_MH: From products to the samples of a tile's output; the last row is the bias's.
    """

    analysis_NN: Tensor
    kernels_MK: Tensor
    synthesis_MH: Tensor


@lru_cache(maxsize=256)
def _matrices(tiling: Tiling, dtype: torch.dtype) -> _Matrices:
    length, stride, num_taps = tiling.tile_length, tiling.stride, tiling.num_taps
    with torch.inference_mode(False), torch.device("cpu"):
        n_N = torch.arange(length, dtype=torch.float64)
        angles_FN = (2.0 * math.pi / length) * (n_N[: length // 2, None] + 0.5) * n_N
        analysis_NN = torch.cat([angles_FN.cos(), -angles_FN.sin()])
        conjugate_NN = torch.cat([angles_FN.cos(), angles_FN.sin()])
        kernels_NPK = conjugate_NN.new_zeros(length, stride, num_taps)
        for phase in range(stride):
            taps_NK = kernels_NPK[:, phase, phase::stride]
            taps_NK.copy_(conjugate_NN[:, : taps_NK.shape[1]])
        synthesis_NH = (2.0 / length) * analysis_NN[:, : tiling.output_length]
        synthesis_MH = torch.cat([synthesis_NH, torch.ones_like(synthesis_NH[:1])])
        return _Matrices(
            analysis_NN.to(dtype), kernels_NPK.flatten(0, 1).to(dtype), synthesis_MH.to(dtype)
        )
