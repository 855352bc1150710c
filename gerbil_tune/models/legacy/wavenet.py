"""legacy-wavenet: vocalocator's Wavenet as it was.

Letters: B batch, C channels, T samples, P pairs, L lags, H hidden.
"""

import torch
from torch import Tensor, nn

from gerbil_tune.config.architectures import LegacyWaveNetConfig
from gerbil_tune.errors import ConfigError
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.architecture import Architecture, OutputShape
from gerbil_tune.models.features.features import Features, InputShapes
from gerbil_tune.models.legacy.crop import (
    channels_of,
    check_inputs,
    first_samples,
    linear_correlation,
    normalized,
)
from gerbil_tune.models.legacy.layers import BatchNormOfVectors, gated

_HIDDEN = 512
_DILATIONS = 4


class WaveNetBlock(nn.Module):
    """A dilated gated convolution and one of kernel 1, added to the input."""

    def __init__(self, config: LegacyWaveNetConfig, dilation: int) -> None:
        super().__init__()
        channels = config.channels
        self.inject = (
            nn.Linear(config.correlation_hidden, channels) if config.correlation_pairs else None
        )
        self.conv = nn.Conv1d(
            channels, 2 * channels, config.kernel_size, dilation=dilation, padding="same"
        )
        self.mix = nn.Conv1d(channels, channels, 1)

    def forward(self, x_BCT: Tensor, correlation_BH: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the input of the next block and this one's part of the sum, (B, C, T) each."""
        if self.inject is not None:
            x_BCT = x_BCT + self.inject(correlation_BH)[:, :, None]
        part_BCT = self.mix(gated(self.conv(x_BCT), "vocalocator"))
        return x_BCT + part_BCT, part_BCT


def _make_correlation_net(config: LegacyWaveNetConfig) -> nn.Sequential | None:
    """Two layers over the correlations of the pairs, if there are any."""
    if not config.correlation_pairs:
        return None
    num_correlations = len(config.correlation_pairs) * config.correlation_length
    return nn.Sequential(
        BatchNormOfVectors(num_correlations),
        nn.Linear(num_correlations, config.correlation_hidden),
        nn.ReLU(),
        nn.Linear(config.correlation_hidden, config.correlation_hidden),
        nn.ReLU(),
    )


class LegacyWaveNet(Architecture):
    """Residual blocks of dilated gated convolutions at the full rate, their sum averaged over time.

    Dilations are 1, 2, 3, 4, 1, ... With pairs given, the correlations of the middle samples of the crop at
    lags around zero are added to the input of every block.
    """

    uses = frozenset({"waveform"})

    def __init__(
        self,
        config: LegacyWaveNetConfig,
        setup: RecordingSetup,
        inputs: InputShapes,
        outputs: OutputShape,
    ) -> None:
        super().__init__()
        check_inputs(config.kind, setup, inputs)
        _check_pairs(config, setup)
        self.crop_length = config.crop_length
        self.pairs = config.correlation_pairs
        self.correlation_length = config.correlation_length
        self.correlation_net = _make_correlation_net(config)
        self.stem = nn.Conv1d(
            setup.num_microphones, config.channels, config.kernel_size, padding="same"
        )
        self.blocks = nn.ModuleList(
            WaveNetBlock(config, dilation=number % _DILATIONS + 1)
            for number in range(config.num_blocks)
        )
        self.hidden = nn.Linear(config.channels, _HIDDEN)
        self.readout = nn.Linear(_HIDDEN, outputs.num_outputs)

    def forward(self, features: Features) -> Tensor:
        """Return raw outputs, (B, num_outputs)."""
        return self.read(normalized(first_samples(features, self.crop_length)))

    def read(self, crop_BCT: Tensor) -> Tensor:
        """Return raw outputs of a normalized crop, (B, num_outputs)."""
        correlation_BH = None
        if self.correlation_net is not None:
            correlation_BH = self.correlation_net(self.correlate(crop_BCT).flatten(1))
        x_BCT = self.stem(crop_BCT)
        sum_BC = x_BCT.new_zeros(())
        for block in self.blocks:
            x_BCT, part_BCT = block(x_BCT, correlation_BH)
            sum_BC = sum_BC + part_BCT.mean(2)
        raw: Tensor = self.readout(torch.relu(self.hidden(sum_BC)))
        return raw

    def correlate(self, crop_BCT: Tensor) -> Tensor:
        """Correlations of the middle of the crop, (B, P, L); lag zero is at L / 2."""
        middle, half = crop_BCT.shape[2] // 2, self.correlation_length // 2
        middle_BCL = crop_BCT[:, :, middle - half : middle + half]
        return linear_correlation(*channels_of(self.pairs, middle_BCL))


def _check_pairs(config: LegacyWaveNetConfig, setup: RecordingSetup) -> None:
    if not config.correlation_pairs:
        return
    highest = max(max(pair) for pair in config.correlation_pairs)
    if highest >= setup.num_microphones:
        raise ConfigError(
            f"model/correlation_pairs names channel {highest}, but there are {setup.num_microphones} "
            f"microphones; valid: 0 to {setup.num_microphones - 1}"
        )
    if config.correlation_length % 2 or config.correlation_length > config.crop_length:
        raise ConfigError(
            "model/correlation_length must be even and at most model/crop_length, but they are "
            f"{config.correlation_length} and {config.crop_length}"
        )
