"""What a network sees of an event, computed on the device from a padded batch.

Letters: B batch, C microphones, T samples, W windows, F frequencies, P pairs, L lags.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gerbil_tune.config.schema import GccConfig
from gerbil_tune.geometry import RecordingSetup, longest_path_mm, microphone_pairs
from gerbil_tune.units import distance_to_delay_s

_LAG_MARGIN = 1.1  # warm air, a microphone placed a little off, the width of the peak
_TINY = 1e-30


@dataclass(slots=True)
class Features:
    """The inputs of an architecture; those it does not use are None.

    Attributes:
        audio_BCT: (B, C, T) float32, scaled, zero in the padding.
        lengths_B: (B,) int64, samples of each event.
        gcc_BPL: (B, P, L) float32, correlation by pair and lag, unit mean square over an event.
    """

    audio_BCT: Tensor | None
    lengths_B: Tensor
    gcc_BPL: Tensor | None


def max_lag_samples(config: GccConfig, setup: RecordingSetup) -> int:
    """Largest lag in samples: as configured, else what the site's geometry allows plus a tenth."""
    if config.max_lag_ms is not None:
        max_lag_s = config.max_lag_ms / 1000.0
    else:
        max_lag_s = distance_to_delay_s(longest_path_mm(setup)) * _LAG_MARGIN
    return max(1, math.ceil(max_lag_s * setup.sample_rate_hz))


def fast_fft_length(at_least: int) -> int:
    """Smallest length of the form 2^a 3^b 5^c that is even and not below ``at_least``."""
    length = at_least + at_least % 2
    while True:
        rest = length
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return length
        length += 2


class GeneralizedCrossCorrelation(nn.Module):
    """Generalized cross-correlation of all microphone pairs, averaged over windows of an event.

    The cross-spectrum of each pair is averaged over consecutive windows (Welch), divided by its magnitude
    to the power ``exponent`` (0 plain, 1 PHAT; Knapp and Carter 1976, doi:10.1109/TASSP.1976.1162830) and
    transformed back. Windows are zero-padded, so the correlation is linear; lags are centred on zero.
    A peak at lag ``t`` of pair (i, j) says that microphone i hears the sound ``t`` samples after j.
    """

    band_F: Tensor

    def __init__(self, config: GccConfig, setup: RecordingSetup) -> None:
        super().__init__()
        self.exponent = config.exponent
        self.window_length = config.window_length
        self.max_lag = max_lag_samples(config, setup)
        self.num_lags = 2 * self.max_lag + 1
        self.num_pairs = len(microphone_pairs(setup.num_microphones))
        self.fft_length = fast_fft_length(self.window_length + self.max_lag)
        frequencies_F = torch.fft.rfftfreq(self.fft_length, 1.0 / setup.sample_rate_hz)
        high_hz = config.band_high_hz or math.inf
        band_F = (frequencies_F >= config.band_low_hz) & (frequencies_F <= high_hz)
        self.register_buffer("band_F", band_F, persistent=False)

    def forward(self, audio_BCT: Tensor) -> Tensor:
        """Correlate.

        Args:
            audio_BCT: (B, C, T) float32, zero in the padding.

        Returns:
            (B, P, L) float32 with pairs in the order of ``microphone_pairs`` and lags -max_lag..max_lag;
            unit mean square over each event.
        """
        cross_BPF = self._averaged_cross_spectra(audio_BCT)
        magnitude_BPF = cross_BPF.abs().clamp_min(_TINY)
        cross_BPF = cross_BPF * (magnitude_BPF.pow(-self.exponent) * self.band_F)
        correlation_BPN = torch.fft.irfft(cross_BPF, n=self.fft_length)
        gcc_BPL = torch.cat(
            (correlation_BPN[..., -self.max_lag :], correlation_BPN[..., : self.max_lag + 1]),
            dim=-1,
        )
        rms_B11 = gcc_BPL.square().mean((1, 2), keepdim=True).sqrt()
        return gcc_BPL / rms_B11.clamp_min(_TINY)

    def _averaged_cross_spectra(self, audio_BCT: Tensor) -> Tensor:
        batch, channels, num_samples = audio_BCT.shape
        padded_BCT = nn.functional.pad(audio_BCT, (0, -num_samples % self.window_length))
        audio_BCWN = padded_BCT.reshape(batch, channels, -1, self.window_length)
        spectra_BCWF = torch.fft.rfft(audio_BCWN, n=self.fft_length)
        # One microphone against all later ones: pair order, and a working set of C rather than P.
        return torch.cat(
            [
                (spectra_BCWF[:, i : i + 1] * spectra_BCWF[:, i + 1 :].conj()).sum(2)
                for i in range(audio_BCT.shape[1] - 1)
            ],
            dim=1,
        )
