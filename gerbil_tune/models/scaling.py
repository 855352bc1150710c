"""Units inside the network: audio and locations, both ways.

Letters: B batch, C microphones, T samples, K keypoints, D axes.
"""

import torch
from torch import Tensor, nn

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


def scale_audio(audio_BCT: Tensor, lengths_B: Tensor, scaling: AudioScaling) -> Tensor:
    """Scale audio as configured; statistics skip the padding, which stays zero.

    Args:
        audio_BCT: (B, C, T) float32, zero after each event's length.
        lengths_B: (B,) int64, samples of each event.
        scaling: What to do.

    Returns:
        (B, C, T) float32.
    """
    if isinstance(scaling, AudioGain):
        return audio_BCT * scaling.gain
    over = (2,) if isinstance(scaling, ChannelZScore) else (1, 2)
    mask_B1T = time_mask(lengths_B, audio_BCT.shape[2])
    channels = 1 if isinstance(scaling, ChannelZScore) else audio_BCT.shape[1]
    count_B11 = (lengths_B * channels).clamp_min(1)[:, None, None]
    mean = audio_BCT.sum(over, keepdim=True) / count_B11
    centred_BCT = (audio_BCT - mean) * mask_B1T
    sd = (centred_BCT.square().sum(over, keepdim=True) / count_B11).sqrt()
    return centred_BCT / sd.clamp_min(_SMALLEST_SD)


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
