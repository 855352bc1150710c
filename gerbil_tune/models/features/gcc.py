"""Correlations over lags of all microphone pairs.

Letters: B batch, C microphones, T samples, F frequencies, P pairs, L lags.
"""

import math

import torch
from torch import Tensor, nn

from gerbil_tune.config.features import GccConfig
from gerbil_tune.geometry import RecordingSetup, longest_path_mm
from gerbil_tune.models.features.spectra import TINY, PairSpectra, events_at_once
from gerbil_tune.units import distance_to_delay_s

_LAG_MARGIN = 1.1  # warm air, a microphone placed a little off, the width of the peak


def max_lag_samples(config: GccConfig, setup: RecordingSetup) -> int:
    """Largest lag in samples: as configured, else what the site's geometry allows plus a tenth."""
    if config.max_lag_ms is not None:
        max_lag_s = config.max_lag_ms / 1000.0
    else:
        max_lag_s = distance_to_delay_s(longest_path_mm(setup)) * _LAG_MARGIN
    return max(1, math.ceil(max_lag_s * setup.sample_rate_hz))


class GeneralizedCrossCorrelation(nn.Module):
    """Generalized cross-correlation of all microphone pairs: the transform of ``PairSpectra``.

    Attributes:
        num_planes: Correlations: the pairs, twice as many with ``envelope``.
        num_lags: Lags of each, centred on zero.
    """

    def __init__(self, config: GccConfig, setup: RecordingSetup) -> None:
        super().__init__()
        self.config = config
        self.max_lag = max_lag_samples(config, setup)
        self.num_lags = 2 * self.max_lag + 1
        self.spectra = PairSpectra(config, setup, max_lag=self.max_lag)
        self.num_planes = self.spectra.num_pairs * (2 if config.envelope else 1)

    def forward(self, audio_BCT: Tensor) -> Tensor:
        """Correlate.

        Args:
            audio_BCT: (B, C, T) float32, zero in the padding.

        Returns:
            (B, P, L) float32 with pairs in the order of ``microphone_pairs`` and lags -max_lag..max_lag;
            with ``envelope``, (B, 2 P, L): the correlations, then their envelopes. The correlations of an
            event have unit mean square.
        """
        parts = torch.split(audio_BCT, events_at_once(audio_BCT))
        return torch.cat([self._correlate(few) for few in parts])

    def _correlate(self, audio_BCT: Tensor) -> Tensor:
        cross_BPF = self.spectra(audio_BCT)
        gcc_BPL = self.spectra.lags(cross_BPF)
        scale_B11 = gcc_BPL.square().mean((1, 2), keepdim=True).sqrt().clamp_min(TINY)
        if not self.config.envelope:
            return gcc_BPL / scale_B11
        # The envelope of the analytic signal: its peak does not hop between periods of a tonal call.
        quadrature_BPL = self.spectra.lags(cross_BPF * -1j)
        return torch.cat((gcc_BPL, torch.hypot(gcc_BPL, quadrature_BPL)), dim=1) / scale_B11
