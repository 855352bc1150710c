"""simplenet: the predecessors' default network."""

from torch import Tensor, nn

from gerbil_tune.config.architectures import SimpleNetConfig
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.architecture import OutputShape
from gerbil_tune.models.conv import ConvStack
from gerbil_tune.models.features.features import InputShapes
from gerbil_tune.models.windows import TemporalArchitecture


class SimpleNet(TemporalArchitecture):
    """Gated convolutions over the waveform, averaged over time, and a linear readout.

    The structure of Gerbilizer's and vocalocator's SimpleNetwork, with padding that keeps every sample
    and a mean that leaves padding out.
    """

    def __init__(
        self,
        config: SimpleNetConfig,
        setup: RecordingSetup,
        inputs: InputShapes,
        outputs: OutputShape,
    ) -> None:
        super().__init__()
        self.window_length = inputs.window_length
        self.conv = ConvStack(config.conv, inputs.waveform_planes)
        self.readout = nn.Linear(self.conv.num_outputs, outputs.num_outputs)

    def encode(self, x_BCT: Tensor, lengths_B: Tensor) -> Tensor:
        """Return a vector an event, (B, H)."""
        encoded_BH: Tensor = self.conv(x_BCT, lengths_B)
        return encoded_BH
