"""A 1-D network over correlation lags, shared by gcc-net and corrnet.

Letters: B batch, P planes of correlations, L lags.
"""

from torch import Tensor, nn

from gerbil_tune.config.architectures import LagEncoderConfig
from gerbil_tune.models.conv import ChannelNorm
from gerbil_tune.models.lag_reweighting import LagReweighting


class LagEncoder(nn.Module):
    """Convolutions that halve the lag axis, then a linear layer that keeps the position of each lag.

    There is no pooling over lags: the position of a peak is what tells where the sound came from. With
    ``frequency_bands`` the correlations first pass learned weights over frequency.
    """

    def __init__(self, config: LagEncoderConfig, *, num_planes: int, num_lags: int) -> None:
        super().__init__()
        self.reweighting: nn.Module = nn.Identity()
        if config.frequency_bands:
            self.reweighting = LagReweighting(
                num_planes=num_planes, num_lags=num_lags, num_knots=config.frequency_bands
            )
        blocks: list[nn.Module] = []
        channels, lags = num_planes, num_lags
        for _ in range(config.num_blocks):
            blocks += [
                nn.Conv1d(
                    channels,
                    config.num_channels,
                    config.kernel_size,
                    stride=2,
                    padding=config.kernel_size // 2,
                ),
                ChannelNorm(config.num_channels),
                nn.GELU(),
            ]
            channels = config.num_channels
            lags = (lags + 2 * (config.kernel_size // 2) - config.kernel_size) // 2 + 1
        self.blocks = nn.Sequential(*blocks)
        self.project = nn.Sequential(
            nn.Flatten(),
            nn.Dropout(config.dropout),
            nn.Linear(channels * lags, config.hidden),
            nn.GELU(),
            nn.Dropout(config.dropout),
        )
        self.num_outputs = config.hidden

    def forward(self, gcc_BPL: Tensor) -> Tensor:
        """Return one vector an event, (B, hidden)."""
        encoded: Tensor = self.project(self.blocks(self.reweighting(gcc_BPL)))
        return encoded
