"""Learned weights over frequency of each correlation.

Letters: B batch, P planes of correlations, L lags, N samples of a transform, F its frequencies, K knots.
"""

import math

import torch
from torch import Tensor, nn

from gerbil_tune.models.features.spectra import fast_fft_length

_SOFTPLUS_OF_ONE = math.log(math.expm1(1.0))


class LagReweighting(nn.Module):
    """Multiply the spectrum of each correlation by positive weights that are learned.

    Which frequencies tell a delay depends on calls, noise and microphones; whitening alone cannot know. The
    idea is that of NGCC-PHAT (Berg et al. 2022, arXiv:2208.04654), whose learned filters come before the
    correlation, are shared by all microphones and keep the phase transform after them. Here one filter a
    plane comes after it: real and positive, so that it moves no peak, piecewise linear over frequency from
    zero to half the sample rate, and flat at the beginning of training. Where planes are envelopes these have
    weights of their own.

    Args:
        num_planes: Correlations of an event.
        num_lags: Lags of each.
        num_knots: Weights of each, equally spaced over frequency; at most as many as frequencies are used.
    """

    hats_KF: Tensor

    def __init__(self, *, num_planes: int, num_lags: int, num_knots: int) -> None:
        super().__init__()
        # No two kept lags are so far apart: nothing comes round the end of the transform.
        self.fft_length = fast_fft_length(2 * num_lags - 1)
        num_frequencies = self.fft_length // 2 + 1
        num_knots = min(num_knots, num_frequencies)
        self.register_buffer("hats_KF", _hats(num_knots, num_frequencies), persistent=False)
        # Zero is a weight of one, which is then also where weight decay leads.
        self.weight_PK = nn.Parameter(torch.zeros(num_planes, num_knots))

    def forward(self, gcc_BPL: Tensor) -> Tensor:
        """Return (B, P, L) float32."""
        knots_PK = nn.functional.softplus(self.weight_PK.float() + _SOFTPLUS_OF_ONE)
        weights_PF = (knots_PK[:, :, None] * self.hats_KF).sum(1)
        spectrum_BPF = torch.fft.rfft(gcc_BPL.float(), n=self.fft_length)
        filtered_BPN: Tensor = torch.fft.irfft(spectrum_BPF * weights_PF, n=self.fft_length)
        return filtered_BPN[..., : gcc_BPL.shape[2]]


def _hats(num_knots: int, num_frequencies: int) -> Tensor:
    """Weights (K, F) of knots in a linear interpolation; the first and last knot are at the ends."""
    positions_F = torch.linspace(0.0, num_knots - 1, num_frequencies)
    distances_KF = (positions_F - torch.arange(num_knots)[:, None]).abs()
    return (1.0 - distances_KF).clamp_min(0.0)
