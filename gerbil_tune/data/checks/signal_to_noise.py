"""How far the loudest part of an event stands out of its quiet parts.

Legend: C microphones, T samples, F frames.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gerbil_tune.data.checks.findings import FloatArray

_FEWEST_FRAMES = 4


@dataclass(frozen=True)
class Frames:
    """Stretches of an event whose powers are compared.

    Attributes:
        num_samples: Length of a frame.
        quiet_part: Quantile of the frame powers that is the noise.
    """

    num_samples: int
    quiet_part: float = 0.1

    def powers_CF(self, audio_TC: npt.NDArray[Any]) -> FloatArray:
        """Variance of each whole frame, float64 (C, F), which rumble slower than a frame is not in."""
        num_frames = len(audio_TC) // self.num_samples
        audio_CT = np.ascontiguousarray(audio_TC[: num_frames * self.num_samples].T, np.float64)
        framed_CFT = audio_CT.reshape(len(audio_CT), num_frames, self.num_samples)
        centred_CFT = framed_CFT - framed_CFT.mean(axis=2, keepdims=True)
        power_CF = np.einsum("cft,cft->cf", centred_CFT, centred_CFT) / self.num_samples
        return np.asarray(power_CF)


def estimate_snr_db(powers_CF: FloatArray, quiet_part: float) -> float:
    """How far the loudest frame stands out of the quiet ones, in dB.

        10 log10  max_f  mean_c  P[c, f] / quantile_f(P[c], quiet_part)

    Each microphone is measured against its own noise, so that neither gains nor one noisy microphone matter.
    Constant microphones are left out.

    Args:
        powers_CF: float64, power of each microphone and frame, without the frame's mean.
        quiet_part: The quantile.

    Returns:
        0 for constant power, inf where the quiet frames are digital silence, NaN for fewer than 4 frames or
        no microphone that is not constant.
    """
    alive_CF = powers_CF[powers_CF.any(axis=1)]
    if alive_CF.shape[1] < _FEWEST_FRAMES or not len(alive_CF):
        return float("nan")
    noise_C1 = np.quantile(alive_CF, quiet_part, axis=1, keepdims=True)
    if (noise_C1 == 0).any():
        return float("inf")
    return float(10 * np.log10((alive_CF / noise_C1).mean(axis=0).max()))
