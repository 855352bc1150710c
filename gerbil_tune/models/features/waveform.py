"""Channels over time: the audio itself and what its analytic signal and its power are.

Letters: B batch, C microphones, T samples, W blocks, N samples of a block, F planes.
"""

import math

import numpy as np
import torch
from torch import Tensor, nn

from gerbil_tune.config.features import WaveformConfig
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.features.spectra import TINY
from gerbil_tune.models.scaling import time_mask

_NUM_TAPS = 255
_BLOCK_LENGTH = 2048
_POWER_FLOOR = 1e-4  # 40 dB below unit power, the mean of an event that was scaled to unit variance


def waveform_planes(config: WaveformConfig) -> int:
    """How many kinds of channels each microphone has."""
    return config.raw + config.quadrature + config.envelope + 2 * config.phase + config.log_power


class WaveformChannels(nn.Module):
    """Channels over time of scaled audio.

    ``quadrature`` is the Hilbert transform by a filter of 255 taps with linear phase (type III, Hamming
    window; Oppenheim and Schafer, Discrete-Time Signal Processing, section 12.4), whose gain is within 1 %
    of one from 0.8 % of the sample rate to as far below half of it. A sample depends on the 127 to either
    side alone, so neither padding nor the far end of an event changes it. ``envelope`` is the magnitude of
    the analytic signal, ``phase`` the cosine and sine of its angle. ``log_power`` is
    log(1 + p / 1e-4) / log(1e4) of the mean power p over a centred window: 0 in silence, 1 at unit power.
    """

    response_N: Tensor

    def __init__(self, config: WaveformConfig, setup: RecordingSetup) -> None:
        super().__init__()
        self.config = config
        self.num_planes = waveform_planes(config) * setup.num_microphones
        self.half_window = int(config.log_power_window_ms / 1000.0 * setup.sample_rate_hz / 2)
        response_N = torch.fft.rfft(torch.from_numpy(_hilbert_taps()), n=_BLOCK_LENGTH)
        self.register_buffer("response_N", response_N, persistent=False)

    def forward(self, audio_BCT: Tensor, lengths_B: Tensor) -> Tensor:
        """Compute the configured channels.

        Args:
            audio_BCT: (B, C, T) float32, scaled, zero in the padding.
            lengths_B: (B,) int64, samples of each event.

        Returns:
            (B, F, T) float32, zero in the padding: raw, quadrature, envelope, cosines, sines and log_power
            as far as configured, all microphones of each.
        """
        config = self.config
        planes = [audio_BCT] if config.raw else []
        if config.quadrature or config.envelope or config.phase:
            mask_B1T = time_mask(lengths_B, audio_BCT.shape[2])
            planes += self._analytic_planes(audio_BCT, self._quadrature(audio_BCT) * mask_B1T)
        if config.log_power:
            planes.append(self._log_power(audio_BCT, lengths_B))
        return planes[0] if len(planes) == 1 else torch.cat(planes, dim=1)

    def _analytic_planes(self, audio_BCT: Tensor, quadrature_BCT: Tensor) -> list[Tensor]:
        config = self.config
        planes = [quadrature_BCT] if config.quadrature else []
        if not (config.envelope or config.phase):
            return planes
        envelope_BCT = torch.hypot(audio_BCT, quadrature_BCT)
        if config.envelope:
            planes.append(envelope_BCT)
        if config.phase:
            divisor_BCT = envelope_BCT.clamp_min(TINY)
            planes += [audio_BCT / divisor_BCT, quadrature_BCT / divisor_BCT]
        return planes

    def _quadrature(self, audio_BCT: Tensor) -> Tensor:
        """Filter by overlap-save: blocks of one length, the same whatever the batch is padded to."""
        num_samples, before = audio_BCT.shape[2], _NUM_TAPS // 2
        hop = _BLOCK_LENGTH - _NUM_TAPS + 1
        after = -num_samples % hop + before
        padded_BCT = nn.functional.pad(audio_BCT, (before, after))
        spectra_BCWN = torch.fft.rfft(padded_BCT.unfold(2, _BLOCK_LENGTH, hop))
        filtered_BCWN = torch.fft.irfft(spectra_BCWN * self.response_N, n=_BLOCK_LENGTH)
        quadrature_BCT: Tensor = filtered_BCWN[..., _NUM_TAPS - 1 :].flatten(2)[..., :num_samples]
        return quadrature_BCT

    def _log_power(self, audio_BCT: Tensor, lengths_B: Tensor) -> Tensor:
        num_samples = audio_BCT.shape[2]
        # In float64, for a small sum is what is left between two large ones.
        sums_BCT = nn.functional.pad(audio_BCT.double().square().cumsum(2), (1, 0))
        places_T = torch.arange(num_samples, device=audio_BCT.device)
        begin_T = (places_T - self.half_window).clamp_min(0)
        end_T = (places_T + self.half_window + 1).clamp_max(num_samples)
        inside_BT = torch.minimum(end_T, lengths_B[:, None]) - begin_T
        energy_BCT = sums_BCT[:, :, end_T] - sums_BCT[:, :, begin_T]
        power_BCT = (energy_BCT / inside_BT.clamp_min(1)[:, None]).float()
        log_BCT = torch.log1p(power_BCT / _POWER_FLOOR) / -math.log(_POWER_FLOOR)
        return log_BCT * time_mask(lengths_B, num_samples)


def _hilbert_taps() -> np.ndarray:
    """Impulse response 2 / (pi n) at odd n, in a Hamming window; float32, centred."""
    n = np.arange(_NUM_TAPS) - _NUM_TAPS // 2
    odd = n % 2 == 1
    taps = np.where(odd, 2 / (np.pi * np.where(odd, n, 1)), 0.0)
    return (taps * np.hamming(_NUM_TAPS)).astype(np.float32)
