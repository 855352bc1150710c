"""resnet: residual stages over time.

Letters: B batch, C channels, T samples, H hidden.
"""

from torch import Tensor, nn

from gerbil_tune.config.architectures import ResNetConfig
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.architecture import OutputShape
from gerbil_tune.models.conv import SameConv1d, make_norm, masked_mean, normalized
from gerbil_tune.models.features.features import InputShapes
from gerbil_tune.models.regularization import StochasticDepth, depth_probabilities
from gerbil_tune.models.scaling import time_mask
from gerbil_tune.models.windows import TemporalArchitecture


class ResNetBlock(nn.Module):
    """Norm, GELU, convolution, twice, beside a shortcut: the identity, or a convolution of kernel 1.

    The order is that of He et al. 2016 (arXiv:1603.05027): nothing but additions along the shortcuts.
    """

    def __init__(
        self,
        config: ResNetConfig,
        in_channels: int,
        out_channels: int,
        *,
        stride: int,
        drop_probability: float,
    ) -> None:
        super().__init__()
        bias = _has_bias(config)
        self.norm_in = make_norm(config.normalization, in_channels)
        self.conv_in = SameConv1d(
            in_channels, out_channels, kernel_size=config.kernel_size, stride=stride, bias=bias
        )
        self.norm_out = make_norm(config.normalization, out_channels)
        self.dropout = nn.Dropout(config.dropout)
        self.conv_out = SameConv1d(
            out_channels, out_channels, kernel_size=config.kernel_size, bias=bias
        )
        self.depth = StochasticDepth(drop_probability)
        self.shortcut = (
            None
            if (in_channels, 1) == (out_channels, stride)
            else SameConv1d(in_channels, out_channels, kernel_size=1, stride=stride, bias=bias)
        )

    def forward(self, x_BCT: Tensor, mask_B1T: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output, which may be anything in the padding, and its mask."""
        active_BCT = nn.functional.gelu(normalized(self.norm_in, x_BCT, mask_B1T))
        branch_BCT, new_mask_B1T = self.conv_in(active_BCT, mask_B1T)
        branch_BCT = nn.functional.gelu(normalized(self.norm_out, branch_BCT, new_mask_B1T))
        branch_BCT, _ = self.conv_out(self.dropout(branch_BCT), new_mask_B1T)
        if self.shortcut is not None:
            x_BCT, _ = self.shortcut(active_BCT, mask_B1T)
        return x_BCT + self.depth(branch_BCT), new_mask_B1T


class ResNet(TemporalArchitecture):
    """A strided convolution, then stages of residual blocks that halve time and double channels.

    After He et al. 2016 (arXiv:1512.03385 for the stages, arXiv:1603.05027 for the order within a block), in
    one dimension, ending in a mean over time.
    """

    def __init__(
        self,
        config: ResNetConfig,
        setup: RecordingSetup,
        inputs: InputShapes,
        outputs: OutputShape,
    ) -> None:
        super().__init__()
        self.window_length = inputs.window_length
        channels = config.num_channels
        self.stem = SameConv1d(
            inputs.waveform_planes,
            channels,
            kernel_size=config.stem_kernel_size,
            stride=config.stem_stride,
            bias=_has_bias(config),
        )
        self.blocks = nn.ModuleList()
        num_blocks = config.num_stages * config.blocks_per_stage
        for block, probability in enumerate(
            depth_probabilities(config.stochastic_depth, num_blocks)
        ):
            halves = block > 0 and block % config.blocks_per_stage == 0
            in_channels, channels = channels, 2 * channels if halves else channels
            stride = 2 if halves else 1
            self.blocks.append(
                ResNetBlock(
                    config, in_channels, channels, stride=stride, drop_probability=probability
                )
            )
        self.norm = make_norm(config.normalization, channels)
        self.readout = nn.Linear(channels, outputs.num_outputs)

    def encode(self, x_BCT: Tensor, lengths_B: Tensor) -> Tensor:
        """Return a vector an event, (B, H)."""
        x_BCT, mask_B1T = self.stem(x_BCT, time_mask(lengths_B, x_BCT.shape[2]))
        for block in self.blocks:
            x_BCT, mask_B1T = block(x_BCT, mask_B1T)
        active_BCT = nn.functional.gelu(normalized(self.norm, x_BCT, mask_B1T))
        return masked_mean(active_BCT, mask_B1T)


def _has_bias(config: ResNetConfig) -> bool:
    """Batch norm takes away whatever a convolution adds to a channel at all times."""
    return config.normalization != "batch"
