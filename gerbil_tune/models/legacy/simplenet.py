"""legacy-simplenet: Gerbilizer's and vocalocator's SimpleNetwork as it was.

Letters: B batch, C channels, T samples.
"""

from torch import Tensor, nn

from gerbil_tune.config.architectures import LegacySimpleNetConfig
from gerbil_tune.geometry import RecordingSetup, microphone_pairs
from gerbil_tune.models.architecture import Architecture, OutputShape
from gerbil_tune.models.features.features import Features, InputShapes
from gerbil_tune.models.legacy.crop import (
    check_inputs,
    first_samples,
    normalized,
    with_correlations,
)
from gerbil_tune.models.legacy.layers import make_layers


class LegacySimpleNet(Architecture):
    """Gated convolutions over the first samples of an event, averaged over time, and a linear readout.

    The mean is over all of the crop, zeros at its end included. With ``correlations`` the correlations of all
    pairs are further channels, their lags laid along the time axis (Gerbilizer's COMPUTE_XCORRS).
    """

    uses = frozenset({"waveform"})

    def __init__(
        self,
        config: LegacySimpleNetConfig,
        setup: RecordingSetup,
        inputs: InputShapes,
        outputs: OutputShape,
    ) -> None:
        super().__init__()
        check_inputs(config.kind, setup, inputs)
        self.crop_length = config.crop_length
        self.correlations = config.correlations
        num_pairs = len(microphone_pairs(setup.num_microphones)) if config.correlations else 0
        self.layers = make_layers(config, setup.num_microphones + num_pairs)
        self.readout = nn.Linear(config.channels[-1], outputs.num_outputs)

    def forward(self, features: Features) -> Tensor:
        """Return raw outputs, (B, num_outputs)."""
        crop_BCT = first_samples(features, self.crop_length)
        return self.read(with_correlations(crop_BCT) if self.correlations else normalized(crop_BCT))

    def read(self, crop_BCT: Tensor) -> Tensor:
        """Return raw outputs of a normalized crop, (B, num_outputs)."""
        raw: Tensor = self.readout(self.layers(crop_BCT).mean(2))
        return raw
