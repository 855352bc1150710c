"""legacy-corrnet: vocalocator's CorrSimpleNetwork as it was.

Letters: B batch, C microphones, T samples, F frequencies, P pairs, L lags, H hidden.
"""

import torch
from torch import Tensor, nn

from gerbil_tune.config.architectures import LegacyCorrNetConfig
from gerbil_tune.errors import ConfigError
from gerbil_tune.geometry import RecordingSetup, microphone_pairs
from gerbil_tune.models.architecture import Architecture, OutputShape
from gerbil_tune.models.features.features import Features, InputShapes
from gerbil_tune.models.legacy.crop import (
    channels_of,
    check_inputs,
    first_samples,
    normalized,
)
from gerbil_tune.models.legacy.layers import BatchNormOfVectors, make_layers


class ResidualLinear(nn.Module):
    """x + relu(Linear(x))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x_BH: Tensor) -> Tensor:
        """Return (B, H)."""
        return x_BH + torch.relu(self.linear(x_BH))


class LegacyCorrNet(Architecture):
    """The convolutions of SimpleNetwork beside a network over correlations, joined before the readout.

    The correlations are circular over the crop, with zero lag at index 0, and those kept are around index
    T / 2: half a crop away from zero lag (32 ms with theirs, where an arena allows 2), where no arrival can
    be seen. So the weights know these numbers, and they must be shown them. ``corrnet`` looks at zero lag.
    """

    uses = frozenset({"waveform"})

    def __init__(
        self,
        config: LegacyCorrNetConfig,
        setup: RecordingSetup,
        inputs: InputShapes,
        outputs: OutputShape,
    ) -> None:
        super().__init__()
        check_inputs(config.kind, setup, inputs)
        _check_lags(config)
        self.crop_length = config.crop_length
        self.correlation_length = config.correlation_length
        self.layers = make_layers(config, setup.num_microphones)
        self.pairs = microphone_pairs(setup.num_microphones)
        num_correlations = len(self.pairs) * config.correlation_length
        self.correlation_net = nn.Sequential(
            BatchNormOfVectors(num_correlations),
            nn.Linear(num_correlations, config.hidden),
            nn.ReLU(),
            *(ResidualLinear(config.hidden) for _ in range(config.num_layers - 1)),
        )
        joined = config.channels[-1] + config.hidden
        self.hidden = nn.Linear(joined, joined)
        self.readout = nn.Linear(joined, outputs.num_outputs)

    def forward(self, features: Features) -> Tensor:
        """Return raw outputs, (B, num_outputs)."""
        return self.read(normalized(first_samples(features, self.crop_length)))

    def read(self, crop_BCT: Tensor) -> Tensor:
        """Return raw outputs of a normalized crop, (B, num_outputs)."""
        conv_BH = self.layers(crop_BCT).mean(2)
        correlation_BH = self.correlation_net(self.correlate(crop_BCT))
        joined_BH = torch.cat([conv_BH, correlation_BH.to(conv_BH.dtype)], dim=1)
        raw: Tensor = self.readout(torch.relu(self.hidden(joined_BH)))
        return raw

    def correlate(self, crop_BCT: Tensor) -> Tensor:
        """Circular correlations around lag T / 2, lag by lag and pair by pair, (B, L * P)."""
        first_BPF, second_BPF = channels_of(self.pairs, torch.fft.rfft(crop_BCT))
        lags_BPT: Tensor = torch.fft.irfft(first_BPF * second_BPF.conj())
        middle, half = lags_BPT.shape[2] // 2, self.correlation_length // 2
        return lags_BPT[:, :, middle - half : middle + half].transpose(1, 2).flatten(1)


def _check_lags(config: LegacyCorrNetConfig) -> None:
    if config.correlation_length % 2 or config.correlation_length > config.crop_length - 1:
        raise ConfigError(
            "model/correlation_length must be even and below model/crop_length, but they are "
            f"{config.correlation_length} and {config.crop_length}"
        )
