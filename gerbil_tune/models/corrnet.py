"""corrnet: channels over time beside correlation lags.

Letters: B batch, H hidden.
"""

import torch
from torch import Tensor, nn

from gerbil_tune.config.architectures import CorrNetConfig
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.architecture import OutputShape
from gerbil_tune.models.conv import ConvStack
from gerbil_tune.models.features.features import Features, InputShapes
from gerbil_tune.models.lag_encoder import LagEncoder
from gerbil_tune.models.windows import TemporalArchitecture


class CorrNet(TemporalArchitecture):
    """A gated convolution branch and a lag branch, joined before the readout.

    The idea of vocalocator's CorrSimpleNetwork; its correlation branch looked 32 ms away from zero lag,
    this one is centred on it and as wide as the arena allows.
    """

    uses = frozenset({"waveform", "gcc"})

    def __init__(
        self,
        config: CorrNetConfig,
        setup: RecordingSetup,
        inputs: InputShapes,
        outputs: OutputShape,
    ) -> None:
        super().__init__()
        self.window_length = inputs.window_length
        self.conv = ConvStack(config.conv, inputs.waveform_planes)
        self.lags = LagEncoder(config.lags, num_planes=inputs.gcc_planes, num_lags=inputs.num_lags)
        joined = self.conv.num_outputs + self.lags.num_outputs
        self.hidden = nn.Sequential(nn.Linear(joined, config.hidden), nn.GELU())
        self.readout = nn.Linear(config.hidden, outputs.num_outputs)

    def forward(self, features: Features) -> Tensor:
        """Return raw outputs, (B, num_outputs)."""
        assert features.gcc_BPL is not None
        conv_BH = self.pooled(features)
        joined_BH = torch.cat((conv_BH, self.lags(features.gcc_BPL).to(conv_BH.dtype)), dim=1)
        raw: Tensor = self.readout(self.hidden(joined_BH))
        return raw

    def encode(self, x_BCT: Tensor, lengths_B: Tensor) -> Tensor:
        """Return a vector an event, (B, H), of its channels over time."""
        encoded_BH: Tensor = self.conv(x_BCT, lengths_B)
        return encoded_BH
