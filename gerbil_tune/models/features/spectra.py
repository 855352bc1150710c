"""Cross-spectra of all microphone pairs, averaged over windows of an event and weighted by frequency.

Letters: B batch, C microphones, T samples, W windows, N samples of a window, F frequencies, P pairs, L lags.
"""

import math

import torch
from torch import Tensor, nn

from gerbil_tune.config.features import GccConfig, MapsConfig
from gerbil_tune.errors import ConfigError
from gerbil_tune.geometry import RecordingSetup, microphone_pairs

TINY = 1e-30
"""What stands for zero in a denominator."""
_CHANNELS_AT_ONCE = 16
_HOP_QUARTERS = 3  # of a window: as good as half a window here, for two thirds of the work


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


def events_at_once(audio_BCT: Tensor) -> int:
    """How many events of a batch to transform together.

    On a CPU those that stay in its caches, which is up to three times as fast as all at once.
    """
    num_events, num_channels, _ = audio_BCT.shape
    at_most = _CHANNELS_AT_ONCE // num_channels if audio_BCT.device.type == "cpu" else num_events
    return max(1, at_most)


class PairSpectra(nn.Module):
    """Weighted cross-spectra of all microphone pairs, and the correlations that they are.

    Cross-spectra and auto-spectra are averaged over overlapping Hann windows (Welch 1967). The
    cross-spectrum of a pair is then divided by its magnitude to the power ``exponent`` (0 plain, 1 PHAT)
    and multiplied by the magnitude-squared coherence to the power ``coherence_exponent``, which mutes
    frequencies that are noise (Knapp and Carter 1976, doi:10.1109/TASSP.1976.1162830). Windows are
    zero-padded, so the correlation is linear; lags are centred on zero. A peak at lag ``t`` of pair (i, j)
    says that microphone i hears the sound ``t`` samples after j.

    Attributes:
        max_lag: Samples.
        num_pairs: P.
        hop_length: Samples from one window to the next.
        fft_length: Samples of a transform.
    """

    band_F: Tensor
    window_N: Tensor
    first_P: Tensor
    second_P: Tensor

    def __init__(
        self, config: GccConfig | MapsConfig, setup: RecordingSetup, *, max_lag: int
    ) -> None:
        super().__init__()
        if setup.num_microphones < 2:
            raise ConfigError(
                f"the recording has {setup.num_microphones} microphone; localization needs two at least"
            )
        self.config = config
        self.max_lag = max_lag
        pairs = torch.tensor(microphone_pairs(setup.num_microphones)).reshape(-1, 2)
        self.num_pairs = len(pairs)
        self.hop_length = max(1, config.window_length * _HOP_QUARTERS // 4)
        self.fft_length = fast_fft_length(config.window_length + max_lag)
        frequencies_F = torch.fft.rfftfreq(self.fft_length, 1.0 / setup.sample_rate_hz)
        high_hz = config.band_high_hz or math.inf
        band_F = (frequencies_F >= config.band_low_hz) & (frequencies_F <= high_hz)
        self.register_buffer("band_F", band_F, persistent=False)
        self.register_buffer("window_N", torch.hann_window(config.window_length), persistent=False)
        self.register_buffer("first_P", pairs[:, 0], persistent=False)
        self.register_buffer("second_P", pairs[:, 1], persistent=False)

    def forward(self, audio_BCT: Tensor) -> Tensor:
        """Average and weight.

        Args:
            audio_BCT: (B, C, T) float32, zero in the padding.

        Returns:
            (B, P, F) complex64, zero outside the band, with pairs in the order of ``microphone_pairs``.
        """
        cross_BPF, auto_BCF = self._averaged(audio_BCT)
        magnitude_BPF = cross_BPF.abs().clamp_min(TINY)
        weight_BPF = magnitude_BPF.pow(-self.config.exponent) * self.band_F
        if self.config.coherence_exponent > 0:
            power_BPF = (auto_BCF[:, self.first_P] * auto_BCF[:, self.second_P]).clamp_min(TINY)
            coherence_BPF = magnitude_BPF.square() / power_BPF
            weight_BPF = weight_BPF * coherence_BPF.pow(self.config.coherence_exponent)
        return cross_BPF * weight_BPF

    def lags(self, cross_BPF: Tensor) -> Tensor:
        """Correlations (B, P, L) at lags -max_lag..max_lag of such cross-spectra."""
        correlation_BPN = torch.fft.irfft(cross_BPF, n=self.fft_length)
        return torch.cat(
            (correlation_BPN[..., -self.max_lag :], correlation_BPN[..., : self.max_lag + 1]),
            dim=-1,
        )

    def _averaged(self, audio_BCT: Tensor) -> tuple[Tensor, Tensor]:
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
