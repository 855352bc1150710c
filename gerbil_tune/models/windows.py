"""Long events: several windows, encoded one by one and averaged.

Letters: B batch, F planes, C channels, T samples, N windows of an event, R windows that are run, H hidden.
"""

from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from gerbil_tune.models.architecture import Architecture
from gerbil_tune.models.features.features import Features


def pooled_over_windows(
    encoder: Callable[[Tensor, Tensor], Tensor],
    x_BFT: Tensor,
    lengths_B: Tensor,
    window_length: int,
) -> Tensor:
    """Encode events of any length with a network that runs over so many samples at once.

    An event is cut into consecutive windows, the last of which is shorter. Each is encoded as if it were an
    event, and the vectors are averaged, weighted by the samples in each window. A batch that is no longer
    than a window is encoded as it is.

    Args:
        encoder: From (R, F, T) channels, zero in the padding, and (R,) lengths to one vector a row, (R, H),
            independent of padding and of the other rows.
        x_BFT: (B, F, T) float, zero in the padding.
        lengths_B: (B,) int64, samples of each event.
        window_length: Samples of a window.

    Returns:
        (B, H); that of an event without samples is the encoder's.
    """
    num_samples = x_BFT.shape[2]
    if num_samples <= window_length:
        return encoder(x_BFT, lengths_B)
    starts_N = torch.arange(0, num_samples, window_length, device=lengths_B.device)
    counts_BN = (lengths_B[:, None] - starts_N).clamp(0, window_length)
    # An event without samples has its first window, as it has in a short batch.
    event_R, window_R = ((counts_BN > 0) | (starts_N == 0)).nonzero(as_tuple=True)
    missing = len(starts_N) * window_length - num_samples
    padded_BFT = nn.functional.pad(x_BFT, (0, missing))
    windows_BFNT = padded_BFT.reshape(*x_BFT.shape[:2], len(starts_N), window_length)
    counts_R = counts_BN[event_R, window_R]
    vectors_RH = encoder(windows_BFNT[event_R, :, window_R], counts_R)
    weights_R = counts_R.clamp_min(1) / lengths_B[event_R].clamp_min(1)
    weighted_RH = vectors_RH * weights_R[:, None]
    # Into places of their own and then summed: additions in a fixed order, on a GPU too.
    weighted_BNH = weighted_RH.new_zeros(*counts_BN.shape, weighted_RH.shape[1])
    return weighted_BNH.index_put((event_R, window_R), weighted_RH).sum(1)


class TemporalArchitecture(Architecture):
    """Encodes channels over time, of long events in several windows, and reads that out.

    Attributes:
        window_length: Samples that ``encode`` is given at most.
    """

    uses = frozenset({"waveform"})
    window_length: int

    @abstractmethod
    def encode(self, x_BCT: Tensor, lengths_B: Tensor) -> Tensor:
        """Return a vector an event, (B, H), independent of padding and of the other events."""

    def pooled(self, features: Features) -> Tensor:
        """Return a vector an event of any length, (B, H)."""
        assert features.waveform_BFT is not None
        return pooled_over_windows(
            self.encode, features.waveform_BFT, features.lengths_B, self.window_length
        )

    def forward(self, features: Features) -> Tensor:
        """Return raw outputs, (B, num_outputs)."""
        raw: Tensor = self.readout(self.pooled(features))
        return raw
