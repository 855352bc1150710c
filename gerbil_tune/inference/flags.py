"""What there is to say of single events: why there is no prediction, and what to mind about one.

Letters: B batch, N events, T samples, C microphones, K keypoints, D axes.
"""

import enum
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gerbil_tune.evaluation.predictions import EventPredictions
from gerbil_tune.geometry import RecordingSetup


class Flag(enum.IntFlag):
    """Bits of ``/flags``. An event with one of the first three has no prediction: its numbers are NaN."""

    EMPTY = 1
    NOT_FINITE = 2
    SILENT = 4
    CUT = 16
    OUTSIDE_ARENA = 32


FAILED = Flag.EMPTY | Flag.NOT_FINITE | Flag.SILENT
MEANINGS: Mapping[Flag, str] = {
    Flag.EMPTY: "no samples, so no prediction",
    Flag.NOT_FINITE: "audio that is NaN or infinite, so no prediction",
    Flag.SILENT: "no sound on any microphone, so no prediction",
    Flag.CUT: "longer than the model takes: only its middle was used",
    Flag.OUTSIDE_ARENA: "predicted outside the arena",
}


def flags_of_audio(
    audio_BTC: Tensor, lengths_B: Tensor, full_lengths_B: npt.NDArray[np.int64]
) -> npt.NDArray[np.uint8]:
    """What the audio of events says, uint8 (B,).

    Args:
        audio_BTC: (B, T, C) padded with zeros; float or integer.
        lengths_B: (B,) samples of each event in it.
        full_lengths_B: (B,) samples of each event in its file.
    """
    low_B, high_B = audio_BTC.flatten(1).aminmax(dim=1)
    extremes_2B = torch.stack([low_B, high_B]).float().numpy()
    flags_B = np.zeros(len(audio_BTC), np.uint8)
    is_empty_B = lengths_B.numpy() == 0
    flags_B[is_empty_B] |= np.uint8(Flag.EMPTY)
    flags_B[~np.isfinite(extremes_2B).all(0)] |= np.uint8(Flag.NOT_FINITE)
    flags_B[(extremes_2B == 0).all(0) & ~is_empty_B] |= np.uint8(Flag.SILENT)
    flags_B[full_lengths_B > lengths_B.numpy()] |= np.uint8(Flag.CUT)
    return flags_B


def flagged(predictions: EventPredictions, setup: RecordingSetup) -> EventPredictions:
    """Take away what was predicted of events without a sound, and flag what lies outside the arena.

    Args:
        predictions: Of N events, with the flags of their audio.
        setup: The recording site.
    """
    assert predictions.flags_N is not None
    flags_N = predictions.flags_N.copy()
    half_widths = np.asarray(setup.arena_mm[:2]) / 2
    outside_NK = (np.abs(predictions.mean_mm_NKD[..., :2]) > half_widths).any(-1)
    failed_N = (flags_N & np.uint8(FAILED)) != 0
    flags_N[outside_NK.any(1) & ~failed_N] |= np.uint8(Flag.OUTSIDE_ARENA)
    if not failed_N.any():
        return replace(predictions, flags_N=flags_N)
    kept: dict[str, Any] = {}
    for name in predictions.float_fields():
        values = getattr(predictions, name)
        if values is not None:
            kept[name] = values.copy()
            kept[name][failed_N] = np.nan
    if predictions.in_region_NKR is not None:
        kept["in_region_NKR"] = predictions.in_region_NKR & ~failed_N[:, None, None]
    return replace(predictions, **kept, flags_N=flags_N)
