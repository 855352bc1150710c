"""simplenet: the predecessors' default network."""

from torch import Tensor, nn

from gerbil_tune.config.architectures import SimpleNetConfig
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.architecture import Architecture, OutputShape
from gerbil_tune.models.conv import ConvStack
from gerbil_tune.models.features.features import Features, InputShapes
from gerbil_tune.models.windows import pooled_over_windows


class SimpleNet(Architecture):
    """Gated convolutions over the waveform, averaged over time, and a linear readout.

    The structure of Gerbilizer's and vocalocator's SimpleNetwork, with padding that keeps every sample
    and a mean that leaves padding out.
    """

    uses = frozenset({"waveform"})

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

    def forward(self, features: Features) -> Tensor:
        """Return raw outputs, (B, num_outputs)."""
        assert features.waveform_BFT is not None
        encoded_BH = pooled_over_windows(
            self.conv, features.waveform_BFT, features.lengths_B, self.window_length
        )
        raw: Tensor = self.readout(encoded_BH)
        return raw
