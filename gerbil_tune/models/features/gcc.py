"""What a network sees of an event, computed on the device from a padded batch.

Letters: B batch, C microphones, T samples, W windows, F frequencies, P pairs, L lags.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gerbil_tune.config.schema import GccConfig
from gerbil_tune.errors import ConfigError
from gerbil_tune.geometry import RecordingSetup, longest_path_mm, microphone_pairs
from gerbil_tune.units import distance_to_delay_s

_LAG_MARGIN = 1.1  # warm air, a microphone placed a little off, the width of the peak
_HOP_QUARTERS = 3  # of a window: as good as half a window here, for two thirds of the work
_EVENTS_AT_ONCE = 4
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

    Cross-spectra and auto-spectra are averaged over overlapping Hann windows (Welch 1967). The
    cross-spectrum of a pair is then divided by its magnitude to the power ``exponent`` (0 plain, 1 PHAT)
    and multiplied by the magnitude-squared coherence to the power ``coherence_exponent``, which mutes
    frequencies that are noise (Knapp and Carter 1976, doi:10.1109/TASSP.1976.1162830). Windows are
    zero-padded, so the correlation is linear; lags are centred on zero. A peak at lag ``t`` of pair (i, j)
    says that microphone i hears the sound ``t`` samples after j.
    """

    band_F: Tensor
    window_N: Tensor
    first_P: Tensor
    second_P: Tensor

    def __init__(self, config: GccConfig, setup: RecordingSetup) -> None:
        super().__init__()
        if setup.num_microphones < 2:
            raise ConfigError(
                f"the recording has {setup.num_microphones} microphone; localization needs two at least"
            )
        self.config = config
        self.max_lag = max_lag_samples(config, setup)
        self.num_lags = 2 * self.max_lag + 1
        pairs = torch.tensor(microphone_pairs(setup.num_microphones)).reshape(-1, 2)
        self.num_planes = len(pairs) * (2 if config.envelope else 1)
        self.hop_length = max(1, config.window_length * _HOP_QUARTERS // 4)
        self.fft_length = fast_fft_length(config.window_length + self.max_lag)
        frequencies_F = torch.fft.rfftfreq(self.fft_length, 1.0 / setup.sample_rate_hz)
        high_hz = config.band_high_hz or math.inf
        band_F = (frequencies_F >= config.band_low_hz) & (frequencies_F <= high_hz)
        self.register_buffer("band_F", band_F, persistent=False)
        self.register_buffer("window_N", torch.hann_window(config.window_length), persistent=False)
        self.register_buffer("first_P", pairs[:, 0], persistent=False)
        self.register_buffer("second_P", pairs[:, 1], persistent=False)

    def forward(self, audio_BCT: Tensor) -> Tensor:
        """Correlate.

        Args:
            audio_BCT: (B, C, T) float32, zero in the padding.

        Returns:
            (B, P, L) float32 with pairs in the order of ``microphone_pairs`` and lags -max_lag..max_lag;
            with ``envelope``, (B, 2 P, L): the correlations, then their envelopes. The correlations of an
            event have unit mean square.
        """
        if audio_BCT.device.type != "cpu":
            return self._correlate(audio_BCT)
        # A few events at a time stay in the processor's caches: three times as fast as all at once.
        return torch.cat([self._correlate(few) for few in torch.split(audio_BCT, _EVENTS_AT_ONCE)])

    def _correlate(self, audio_BCT: Tensor) -> Tensor:
        cross_BPF, auto_BCF = self._averaged_spectra(audio_BCT)
        magnitude_BPF = cross_BPF.abs().clamp_min(_TINY)
        weight_BPF = magnitude_BPF.pow(-self.config.exponent) * self.band_F
        if self.config.coherence_exponent > 0:
            power_BPF = (auto_BCF[:, self.first_P] * auto_BCF[:, self.second_P]).clamp_min(_TINY)
            coherence_BPF = magnitude_BPF.square() / power_BPF
            weight_BPF = weight_BPF * coherence_BPF.pow(self.config.coherence_exponent)
        cross_BPF = cross_BPF * weight_BPF
        gcc_BPL = self._lags(cross_BPF)
        scale_B11 = gcc_BPL.square().mean((1, 2), keepdim=True).sqrt().clamp_min(_TINY)
        if not self.config.envelope:
            return gcc_BPL / scale_B11
        # The envelope of the analytic signal: its peak does not hop between periods of a tonal call.
        quadrature_BPL = self._lags(cross_BPF * -1j)
        return torch.cat((gcc_BPL, torch.hypot(gcc_BPL, quadrature_BPL)), dim=1) / scale_B11

    def _lags(self, cross_BPF: Tensor) -> Tensor:
        correlation_BPN = torch.fft.irfft(cross_BPF, n=self.fft_length)
        return torch.cat(
            (correlation_BPN[..., -self.max_lag :], correlation_BPN[..., : self.max_lag + 1]),
            dim=-1,
        )

    def _averaged_spectra(self, audio_BCT: Tensor) -> tuple[Tensor, Tensor]:
        """Sums over windows of cross-spectra (B, P, F) and power spectra (B, C, F)."""
        length, hop = self.config.window_length, self.hop_length
        # A window more than fits: whatever a batch is padded to, every sample is in the same windows.
        missing = length + (-audio_BCT.shape[2]) % hop
        padded_BCT = nn.functional.pad(audio_BCT, (hop, missing))
        spectra_BCWF = torch.fft.rfft(
            padded_BCT.unfold(2, length, hop) * self.window_N, n=self.fft_length
        )
        # One microphone against all later ones: pair order, and a working set of C rather than P.
        cross_BPF = torch.cat(
            [
                (spectra_BCWF[:, i : i + 1] * spectra_BCWF[:, i + 1 :].conj()).sum(2)
                for i in range(audio_BCT.shape[1] - 1)
            ],
            dim=1,
        )
        if self.config.coherence_exponent == 0:
            return cross_BPF, cross_BPF.new_zeros(0, dtype=torch.float32)
        power_BCF = (spectra_BCWF.real.square() + spectra_BCWF.imag.square()).sum(2)
        return cross_BPF, power_BCF
