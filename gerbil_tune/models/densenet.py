"""densenet: the network that the project began with.

Letters: B batch, C channels, T samples, H hidden.
"""

import torch
from torch import Tensor, nn

from gerbil_tune.config.architectures import DenseNetConfig
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.architecture import OutputShape
from gerbil_tune.models.conv import GatedConv1d, make_norm, masked_mean, normalized
from gerbil_tune.models.features.features import InputShapes
from gerbil_tune.models.scaling import time_mask
from gerbil_tune.models.windows import TemporalArchitecture

_LAST_KERNELS = (49 / 51, 37 / 51, 19 / 51, 9 / 51)


def kernel_sizes(config: DenseNetConfig) -> tuple[int, ...]:
    """Kernel of each stage: constant, tapering over the last four as in the original.

    With the defaults: eight of 51, then 49, 37, 19, 9.
    """
    taper = (1.0,) * max(0, config.num_stages - len(_LAST_KERNELS)) + _LAST_KERNELS
    return tuple(
        2 * round((config.kernel_size * part - 1) / 2) + 1 for part in taper[-config.num_stages :]
    )


def masked_average_pool(x_BCT: Tensor, mask_B1T: Tensor) -> Tensor:
    """Average neighbours two by two, (B, C, ceil(T / 2)); an odd last sample stays as it is."""
    pooled_BCT = nn.functional.avg_pool1d(x_BCT * mask_B1T, 2, ceil_mode=True)
    weight_B1T = nn.functional.avg_pool1d(mask_B1T, 2, ceil_mode=True)
    return pooled_BCT / weight_B1T.clamp_min(0.5)


class DenseNet(TemporalArchitecture):
    """Each stage halves time with a gated convolution and concatenates its average-pooled input.

    After Huang et al. 2017 (arXiv:1608.06993) for the dense connections and WaveNet for the gate, as the
    Gerbilizer notes of 2022 describe it.
    """

    def __init__(
        self,
        config: DenseNetConfig,
        setup: RecordingSetup,
        inputs: InputShapes,
        outputs: OutputShape,
    ) -> None:
        super().__init__()
        self.window_length = inputs.window_length
        self.convs = nn.ModuleList()
        self.norms = nn.ModuleList()
        channels = inputs.waveform_planes
        for kernel_size in kernel_sizes(config):
            self.convs.append(
                GatedConv1d(channels, config.growth, kernel_size=kernel_size, stride=2)
            )
            channels += config.growth
            self.norms.append(make_norm(config.normalization, channels))
        self.readout = nn.Linear(channels, outputs.num_outputs)

    def encode(self, x_BCT: Tensor, lengths_B: Tensor) -> Tensor:
        """Return a vector an event, (B, H)."""
        mask_B1T = time_mask(lengths_B, x_BCT.shape[2])
        for conv, norm in zip(self.convs, self.norms, strict=True):
            skip_BCT = masked_average_pool(x_BCT, mask_B1T)
            new_BCT, mask_B1T = conv(x_BCT, mask_B1T)
            both_BCT = torch.cat((skip_BCT.to(new_BCT.dtype), new_BCT), dim=1)
            x_BCT = normalized(norm, both_BCT, mask_B1T)
        return masked_mean(x_BCT, mask_B1T)
