"""gcc-net: the lags alone."""

from torch import Tensor, nn

from gerbil_tune.config.schema import GccNetConfig
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.architecture import Architecture
from gerbil_tune.models.features import Features
from gerbil_tune.models.lag_encoder import LagEncoder


class GccNet(Architecture):
    """A lag encoder, one hidden layer and a readout.

    Time differences of arrival are all that free-field localization needs; a network over the whole
    correlation functions also learns which of several peaks are echoes. Small enough for a laptop.
    """

    uses_audio = False
    uses_gcc = True

    def __init__(
        self,
        config: GccNetConfig,
        setup: RecordingSetup,
        *,
        lag_shape: tuple[int, int],
        num_outputs: int,
    ) -> None:
        super().__init__()
        self.encoder = LagEncoder(config.lags, num_planes=lag_shape[0], num_lags=lag_shape[1])
        width = self.encoder.num_outputs
        self.hidden = nn.Sequential(nn.Linear(width, width), nn.GELU())
        self.readout = nn.Linear(width, num_outputs)

    def forward(self, features: Features) -> Tensor:
        """Return raw outputs, (B, num_outputs)."""
        assert features.gcc_BPL is not None
        raw: Tensor = self.readout(self.hidden(self.encoder(features.gcc_BPL)))
        return raw
