"""gcc-net: the lags alone."""

from torch import Tensor, nn

from gerbil_tune.config.architectures import GccNetConfig
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.architecture import Architecture, OutputShape
from gerbil_tune.models.features.features import Features, InputShapes
from gerbil_tune.models.lag_encoder import LagEncoder


class GccNet(Architecture):
    """A lag encoder, one hidden layer and a readout.

    Time differences of arrival are all that free-field localization needs; a network over the whole
    correlation functions also learns which of several peaks are echoes. Small enough for a laptop.
    """

    uses = frozenset({"gcc"})

    def __init__(
        self,
        config: GccNetConfig,
        setup: RecordingSetup,
        inputs: InputShapes,
        outputs: OutputShape,
    ) -> None:
        super().__init__()
        self.encoder = LagEncoder(
            config.lags, num_planes=inputs.gcc_planes, num_lags=inputs.num_lags
        )
        width = self.encoder.num_outputs
        self.hidden = nn.Sequential(nn.Linear(width, width), nn.GELU())
        self.readout = nn.Linear(width, outputs.num_outputs)

    def forward(self, features: Features) -> Tensor:
        """Return raw outputs, (B, num_outputs)."""
        assert features.gcc_BPL is not None
        raw: Tensor = self.readout(self.hidden(self.encoder(features.gcc_BPL)))
        return raw
