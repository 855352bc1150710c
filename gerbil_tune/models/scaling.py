"""Units inside the network: audio and locations, both ways.

Letters: B batch, C microphones, T samples, K keypoints, D axes.
"""

from collections.abc import Iterable
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gerbil_tune.buffers import BufferPool
from gerbil_tune.config.schema import (
    AudioGain,
    AudioScaling,
    ChannelZScore,
    LocationGain,
    LocationIsotropic,
    LocationScaling,
)
from gerbil_tune.geometry import RecordingSetup

_SMALLEST_SD = 1e-12  # a silent event becomes zeros, not NaN
_CACHED_VALUES = 1 << 16
_POOL = BufferPool()


def pcm_to_float(audio: Tensor) -> Tensor:
    """Return the audio as float32; integer PCM is divided by its full scale (int16: 32768)."""
    if audio.is_floating_point():
        return audio.to(torch.float32)
    return audio.to(torch.float32) / float(-torch.iinfo(audio.dtype).min)


def time_mask(lengths_B: Tensor, num_samples: int) -> Tensor:
    """Return (B, 1, T) float32: 1 inside each event, 0 in its padding."""
    positions_T = torch.arange(num_samples, device=lengths_B.device)
    return (positions_T[None, :] < lengths_B[:, None]).to(torch.float32)[:, None, :]


def remove_offset(audio_BCT: Tensor, lengths_B: Tensor) -> Tensor:
    """Subtract each channel's mean over the event from (B, C, T) audio; the padding stays zero."""
    mask_B1T = time_mask(lengths_B, audio_BCT.shape[2])
    mean_BC1 = audio_BCT.sum(2, keepdim=True) / lengths_B.clamp_min(1)[:, None, None]
    return (audio_BCT - mean_BC1) * mask_B1T


def measure(audio_BTC: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel of each event, float32 (B, C); the padding is left out."""
    mask_BT1 = time_mask(lengths_B, audio_BTC.shape[1]).transpose(1, 2)
    count_B11 = lengths_B.clamp_min(1)[:, None, None]
    mean_B1C = audio_BTC.sum(1, keepdim=True, dtype=torch.float32) / count_B11
    centred_BTC = (audio_BTC - mean_B1C) * mask_BT1
    variance_B1C = centred_BTC.square().sum(1, keepdim=True) / count_B11
    return mean_B1C[:, 0], variance_B1C.sqrt()[:, 0]


def scale_audio(
    audio_BTC: Tensor,
    lengths_B: Tensor,
    scaling: AudioScaling,
    statistics: tuple[Tensor, Tensor] | None = None,
    *,
    may_overwrite: bool = False,
) -> Tensor:
    """Scale audio as configured; the padding counts for nothing and stays zero.

    Args:
        audio_BTC: (B, T, C) float or integer PCM, zero after each event's length.
        lengths_B: (B,) int64, samples of each event.
        scaling: What to do.
        statistics: Mean and standard deviation of each channel of the whole events, (B, C) each in the unit
            of the audio, which may be a crop of them; None: those of the audio itself.
        may_overwrite: Whether the memory of float32 audio may be used for the result, which is faster.

    Returns:
        (B, T, C) float32.
    """
    if isinstance(scaling, AudioGain):
        return pcm_to_float(audio_BTC) * scaling.gain
    mean_BC, sd_BC = statistics or measure(audio_BTC, lengths_B)
    if not isinstance(scaling, ChannelZScore):
        # The variance of all channels together is that within them and that between their means.
        means_BC, mean_BC = mean_BC, mean_BC.mean(1, keepdim=True)
        between_B1 = (means_BC - mean_BC).square().mean(1, keepdim=True)
        sd_BC = (sd_BC.square().mean(1, keepdim=True) + between_B1).sqrt()
    factor_BC = 1.0 / sd_BC.clamp_min(_SMALLEST_SD)
    in_place = may_overwrite and audio_BTC.dtype == torch.float32
    if audio_BTC.device.type == "cpu":
        result_BTC = audio_BTC if in_place else _POOL.empty(tuple(audio_BTC.shape), torch.float32)
        _standardize_by_event(audio_BTC, result_BTC, lengths_B, mean_BC, factor_BC)
        return result_BTC
    # Zeros times the factor are zeros: only the offset needs to know where the padding is.
    mask_BT1 = time_mask(lengths_B, audio_BTC.shape[1]).transpose(1, 2)
    factor_B1C = factor_BC[:, None]
    scaled_BTC = audio_BTC.mul_(factor_B1C) if in_place else audio_BTC * factor_B1C
    return scaled_BTC.addcmul_((mean_BC * factor_BC)[:, None], mask_BT1, value=-1)


def _standardize_by_event(
    audio_BTC: Tensor, result_BTC: Tensor, lengths_B: Tensor, mean_BC: Tensor, factor_BC: Tensor
) -> None:
    """Subtract and multiply piece by piece of an event, which stays in the processor's cache meanwhile.

    Several times faster on a CPU than to pass over the whole batch once for each operation; NumPy, because
    its small operations start no threads.
    """
    audio, result, lengths = audio_BTC.numpy(), result_BTC.numpy(), lengths_B.numpy()
    means: Iterable[Any] = mean_BC.numpy()
    factors: Iterable[Any] = factor_BC.numpy()
    if mean_BC.shape[1] == 1:
        # One number an event: rows of plain numbers are the quickest of all to go over.
        lengths = lengths * audio.shape[2]
        audio, result = audio.reshape(len(audio), -1), result.reshape(len(result), -1)
        # Not plain floats, which would make integers float64 on the way.
        means, factors = mean_BC[:, 0].numpy(), factor_BC[:, 0].numpy()
    piece = max(1, _CACHED_VALUES // prod(audio.shape[2:]))
    is_new = result_BTC is not audio_BTC
    for row, samples, mean, factor, length in zip(
        result, audio, means, factors, lengths.tolist(), strict=True
    ):
        for start in range(0, length, piece):
            part = row[start : min(start + piece, length)]
            np.subtract(samples[start : start + len(part)], mean, out=part)
            np.multiply(part, factor, out=part)
        if is_new:
            row[length:] = 0


class LocationScale(nn.Module):
    """Millimetres for one network unit on each axis; the origin of both is the arena's centre."""

    mm_per_unit_D: Tensor

    def __init__(self, scaling: LocationScaling, setup: RecordingSetup) -> None:
        super().__init__()
        widths_mm = list(setup.arena_mm)
        widths_mm += [max(widths_mm)] * (setup.num_axes - len(widths_mm))
        half_widths_mm = [width / 2 for width in widths_mm[: setup.num_axes]]
        if isinstance(scaling, LocationGain):
            mm_per_unit = [1.0 / scaling.gain] * setup.num_axes
        elif isinstance(scaling, LocationIsotropic):
            mm_per_unit = [max(half_widths_mm)] * setup.num_axes
        else:
            mm_per_unit = half_widths_mm
        self.register_buffer(
            "mm_per_unit_D", torch.tensor(mm_per_unit, dtype=torch.float32), persistent=False
        )
