"""wavenet: dilated gated convolutions.

Letters: B batch, C channels, T samples, H hidden.
"""

from torch import Tensor, nn

from gerbil_tune.config.architectures import WaveNetConfig
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.architecture import OutputShape
from gerbil_tune.models.conv import GatedConv1d, SameConv1d, masked_mean
from gerbil_tune.models.features.features import Features, InputShapes
from gerbil_tune.models.regularization import StochasticDepth, depth_probabilities
from gerbil_tune.models.scaling import time_mask
from gerbil_tune.models.windows import TemporalArchitecture


class WaveNetBlock(nn.Module):
    """A dilated gated convolution that adds to the stream and to the sum of skips.

    The last block adds to the sum alone: nobody would read the stream after it.
    """

    def __init__(
        self, config: WaveNetConfig, *, dilation: int, drop_probability: float, is_last: bool
    ) -> None:
        super().__init__()
        channels = config.num_channels
        self.gated = GatedConv1d(
            channels, channels, kernel_size=config.kernel_size, dilation=dilation
        )
        self.dropout = nn.Dropout(config.dropout)
        self.mix = nn.Conv1d(channels, channels if is_last else 2 * channels, 1)
        self.depth = StochasticDepth(drop_probability)

    def forward(self, x_BCT: Tensor, mask_B1T: Tensor) -> tuple[Tensor, Tensor]:
        """Return the stream, zero in the padding, and the skip, which may be anything there."""
        gated_BCT, _ = self.gated(x_BCT, mask_B1T)
        mixed_BCT = self.depth(self.mix(self.dropout(gated_BCT)))
        skip_BCT, *change = mixed_BCT.split(x_BCT.shape[1], dim=1)
        return (x_BCT + change[0]) * mask_B1T if change else x_BCT, skip_BCT


class WaveNet(TemporalArchitecture):
    """A strided convolution, then residual blocks whose dilations double, and the mean of their skips.

    After van den Oord et al. 2016 (arXiv:1609.03499), not causal, at a lower rate than the audio's and with
    one vector an event in the place of its output; vocalocator had one at full rate.
    """

    def __init__(
        self,
        config: WaveNetConfig,
        setup: RecordingSetup,
        inputs: InputShapes,
        outputs: OutputShape,
    ) -> None:
        super().__init__()
        self.window_length = inputs.window_length
        self.stem = SameConv1d(
            inputs.waveform_planes,
            config.num_channels,
            kernel_size=config.stem_kernel_size,
            stride=config.stem_stride,
        )
        drop_probabilities = depth_probabilities(config.stochastic_depth, config.num_blocks)
        self.blocks = nn.ModuleList(
            WaveNetBlock(
                config,
                dilation=2 ** (block % config.dilation_cycle),
                drop_probability=probability,
                is_last=block == config.num_blocks - 1,
            )
            for block, probability in enumerate(drop_probabilities)
        )
        self.hidden = nn.Sequential(nn.Linear(config.num_channels, config.hidden), nn.GELU())
        self.readout = nn.Linear(config.hidden, outputs.num_outputs)

    def forward(self, features: Features) -> Tensor:
        """Return raw outputs, (B, num_outputs)."""
        raw: Tensor = self.readout(self.hidden(self.pooled(features)))
        return raw

    def encode(self, x_BCT: Tensor, lengths_B: Tensor) -> Tensor:
        """Return a vector an event, (B, H)."""
        x_BCT, mask_B1T = self.stem(x_BCT, time_mask(lengths_B, x_BCT.shape[2]))
        # The mask is float32, and so is the stream under autocast: sums over many blocks keep their digits.
        x_BCT = x_BCT * mask_B1T
        skips_BCT = x_BCT.new_zeros(())
        for block in self.blocks:
            x_BCT, skip_BCT = block(x_BCT, mask_B1T)
            skips_BCT = skips_BCT + skip_BCT
        return masked_mean(nn.functional.gelu(skips_BCT), mask_B1T)
