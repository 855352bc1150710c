"""corrnet: raw audio beside correlation lags."""

import torch
from torch import Tensor, nn

from gerbil_tune.config.schema import CorrNetConfig
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.architecture import Architecture
from gerbil_tune.models.conv import ConvStack
from gerbil_tune.models.features import Features
from gerbil_tune.models.lag_encoder import LagEncoder


class CorrNet(Architecture):
    """A gated convolution branch and a lag branch, joined before the readout.

    The idea of vocalocator's CorrSimpleNetwork; its correlation branch looked 32 ms away from zero lag,
    this one is centred on it and as wide as the arena allows.
    """

    uses_audio = True
    uses_gcc = True

    def __init__(
        self,
        config: CorrNetConfig,
        setup: RecordingSetup,
        *,
        lag_shape: tuple[int, int],
        num_outputs: int,
    ) -> None:
        super().__init__()
        self.conv = ConvStack(config.conv, setup.num_microphones)
        self.lags = LagEncoder(config.lags, num_planes=lag_shape[0], num_lags=lag_shape[1])
        joined = self.conv.num_outputs + self.lags.num_outputs
        self.hidden = nn.Sequential(nn.Linear(joined, config.hidden), nn.GELU())
        self.readout = nn.Linear(config.hidden, num_outputs)

    def forward(self, features: Features) -> Tensor:
        """Return raw outputs, (B, num_outputs)."""
        assert features.audio_BCT is not None
        assert features.gcc_BPL is not None
        conv_BH = self.conv(features.audio_BCT, features.lengths_B)
        joined_BH = torch.cat((conv_BH, self.lags(features.gcc_BPL).to(conv_BH.dtype)), dim=1)
        raw: Tensor = self.readout(self.hidden(joined_BH))
        return raw
