"""simplenet: the predecessors' default network."""

from torch import Tensor, nn

from gerbil_tune.config.schema import SimpleNetConfig
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.architecture import Architecture
from gerbil_tune.models.conv import ConvStack
from gerbil_tune.models.features import Features


class SimpleNet(Architecture):
    """Gated convolutions over the raw audio, averaged over time, and a linear readout.

    The structure of Gerbilizer's and vocalocator's SimpleNetwork, with padding that keeps every sample
    and a mean that leaves padding out.
    """

    uses_audio = True
    uses_gcc = False

    def __init__(
        self,
        config: SimpleNetConfig,
        setup: RecordingSetup,
        *,
        lag_shape: tuple[int, int],
        num_outputs: int,
    ) -> None:
        super().__init__()
        self.conv = ConvStack(config.conv, setup.num_microphones)
        self.readout = nn.Linear(self.conv.num_outputs, num_outputs)

    def forward(self, features: Features) -> Tensor:
        """Return raw outputs, (B, num_outputs)."""
        assert features.audio_BCT is not None
        raw: Tensor = self.readout(self.conv(features.audio_BCT, features.lengths_B))
        return raw
