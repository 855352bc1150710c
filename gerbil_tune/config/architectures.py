"""The networks and their options: one class an architecture, told apart by ``kind``."""

from typing import Annotated, Literal

from pydantic import Field, StrictBool, StrictInt, model_validator

from gerbil_tune.config.section import (
    BelowOne,
    ConfigModel,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

Normalization = Literal["batch", "layer", "none"]
_Dropout = Annotated[BelowOne, Field(description="Part of the activations that a step leaves out.")]
_StochasticDepth = Annotated[
    BelowOne,
    Field(description="Probability that a step leaves out the last block; less for earlier ones."),
]


class ConvStackConfig(ConfigModel):
    """A stack of gated convolutions; the four lists have one entry a layer."""

    channels: tuple[PositiveInt, ...] = (16, 16, 32, 32, 64, 64)
    kernel_sizes: tuple[PositiveInt, ...] = (33, 33, 33, 33, 33, 33)
    downsample: tuple[StrictBool, ...] = (False, True, True, True, True, True)
    dilations: tuple[PositiveInt, ...] = (1, 1, 1, 1, 1, 1)
    width_multiplier: PositiveFloat = Field(1.0, description="Scales every entry of channels.")
    normalization: Normalization = "layer"

    @model_validator(mode="after")
    def _lists_agree(self) -> "ConvStackConfig":
        lengths = {
            "channels": len(self.channels),
            "kernel_sizes": len(self.kernel_sizes),
            "downsample": len(self.downsample),
            "dilations": len(self.dilations),
        }
        if len(set(lengths.values())) != 1 or not self.channels:
            found = ", ".join(f"{name} has {length}" for name, length in lengths.items())
            raise ValueError(f"the lists must have one entry a layer, but {found}")
        return self


class LagEncoderConfig(ConfigModel):
    """A small 1-D network over the lags of all microphone pairs."""

    num_channels: PositiveInt = 32
    num_blocks: Annotated[StrictInt, Field(ge=1, le=6)] = Field(
        3, description="Convolution blocks; each halves the lag axis."
    )
    kernel_size: PositiveInt = 7
    hidden: PositiveInt = 128
    dropout: _Dropout = 0.1
    frequency_bands: NonNegativeInt = Field(
        0,
        description="Learned weights over frequency of each pair's correlation, so many; 0: none.",
    )


class DenseNetConfig(ConfigModel):
    """Gated stride-2 convolutions whose average-pooled inputs are concatenated to their outputs."""

    kind: Literal["densenet"] = "densenet"
    num_stages: Annotated[StrictInt, Field(ge=1, le=14)] = 12
    growth: PositiveInt = Field(11, description="Channels that each stage adds.")
    kernel_size: Annotated[StrictInt, Field(ge=3)] = Field(
        51, description="Of the early stages, odd; the last four taper as in the original network."
    )
    normalization: Normalization = "layer"

    @model_validator(mode="after")
    def _kernel_is_odd(self) -> "DenseNetConfig":
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, but is {self.kernel_size}")
        return self


class SimpleNetConfig(ConfigModel):
    """A plain stack of gated convolutions, averaged over time."""

    kind: Literal["simplenet"] = "simplenet"
    conv: ConvStackConfig = ConvStackConfig()


class CorrNetConfig(ConfigModel):
    """A stack of gated convolutions beside an encoder of the correlation lags."""

    kind: Literal["corrnet"] = "corrnet"
    conv: ConvStackConfig = ConvStackConfig()
    lags: LagEncoderConfig = LagEncoderConfig()
    hidden: PositiveInt = 128


class GccNetConfig(ConfigModel):
    """An encoder of the correlation lags alone: fast, the default on a CPU."""

    kind: Literal["gcc-net"] = "gcc-net"
    lags: LagEncoderConfig = LagEncoderConfig()


class WaveNetConfig(ConfigModel):
    """Residual blocks of dilated gated convolutions after a strided first one."""

    kind: Literal["wavenet"] = "wavenet"
    num_channels: PositiveInt = 64
    num_blocks: PositiveInt = 10
    kernel_size: Annotated[StrictInt, Field(ge=2)] = 7
    dilation_cycle: PositiveInt = Field(
        5, description="Dilations 1, 2, 4, ... begin again after so many blocks."
    )
    stem_kernel_size: PositiveInt = 33
    stem_stride: PositiveInt = Field(8, description="Of the first convolution; 1: full rate.")
    hidden: PositiveInt = 256
    dropout: _Dropout = 0.0
    stochastic_depth: _StochasticDepth = 0.0


class ResNetConfig(ConfigModel):
    """Residual stages that halve time and double channels."""

    kind: Literal["resnet"] = "resnet"
    num_channels: PositiveInt = Field(32, description="Of the first stage.")
    num_stages: Annotated[StrictInt, Field(ge=1, le=6)] = 4
    blocks_per_stage: PositiveInt = 2
    kernel_size: PositiveInt = 7
    stem_kernel_size: PositiveInt = 33
    stem_stride: PositiveInt = 4
    normalization: Normalization = "layer"
    dropout: _Dropout = 0.0
    stochastic_depth: _StochasticDepth = 0.0


class ConformerConfig(ConfigModel):
    """Self-attention and convolution in turn over strided frames of the audio."""

    kind: Literal["conformer"] = "conformer"
    width: PositiveInt = Field(128, description="Channels; a multiple of num_heads.")
    num_layers: PositiveInt = 4
    num_heads: PositiveInt = 4
    feedforward_factor: PositiveInt = 4
    kernel_size: Annotated[StrictInt, Field(ge=3)] = Field(15, description="Depthwise, odd.")
    stem_channels: PositiveInt = 64
    stem_kernel_size: PositiveInt = 17
    stem_strides: tuple[PositiveInt, ...] = Field(
        (4, 4, 4), min_length=1, description="Of the first convolutions, one each."
    )
    dropout: _Dropout = 0.1
    stochastic_depth: _StochasticDepth = 0.0

    @model_validator(mode="after")
    def _sizes_go_together(self) -> "ConformerConfig":
        if self.width % self.num_heads:
            raise ValueError(
                f"width must be a multiple of num_heads, but they are {self.width} and {self.num_heads}"
            )
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, but is {self.kernel_size}")
        return self


class SrpNetConfig(ConfigModel):
    """A 2-D network over steered-response maps."""

    kind: Literal["srp-net"] = "srp-net"
    num_channels: PositiveInt = 48
    num_blocks: PositiveInt = Field(4, description="Residual blocks at the maps' resolution.")
    kernel_size: Annotated[StrictInt, Field(ge=1)] = Field(5, description="Odd.")
    hidden: PositiveInt = Field(128, description="Of the summary that other heads than grid read.")
    dropout: _Dropout = 0.0
    stochastic_depth: _StochasticDepth = 0.0

    @model_validator(mode="after")
    def _kernel_is_odd(self) -> "SrpNetConfig":
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, but is {self.kernel_size}")
        return self


class MicSetNetConfig(ConfigModel):
    """One encoder for every microphone pair, told where the two stand, and attention among pairs.

    The order of the microphones makes no difference, nor is their number built in: one set of weights serves
    arrays of any size. For arrays of different extent set features/gcc/max_lag_ms.
    """

    kind: Literal["micset-net"] = "micset-net"
    num_channels: PositiveInt = 32
    num_blocks: Annotated[StrictInt, Field(ge=1, le=6)] = Field(
        3, description="Convolution blocks over lags; each halves the lag axis."
    )
    kernel_size: PositiveInt = 7
    width: PositiveInt = Field(128, description="Of a pair's vector; a multiple of num_heads.")
    num_layers: NonNegativeInt = Field(2, description="Attention layers among pairs.")
    num_heads: PositiveInt = 4
    dropout: _Dropout = 0.1

    @model_validator(mode="after")
    def _heads_divide_width(self) -> "MicSetNetConfig":
        if self.width % self.num_heads:
            raise ValueError(
                f"width must be a multiple of num_heads, but they are {self.width} and {self.num_heads}"
            )
        return self


_Leak = Annotated[
    Literal["gerbilizer", "vocalocator"],
    Field(description="gerbilizer: tanh(x) + 0.05 x; vocalocator: 0.95 tanh(x) + 0.05 x."),
]


class LegacySimpleNetConfig(ConfigModel):
    """A predecessor's SimpleNetwork, as it was; made by gerbil-tune import."""

    kind: Literal["legacy-simplenet"] = "legacy-simplenet"
    activation: _Leak
    channels: tuple[PositiveInt, ...] = Field(min_length=1)
    kernel_sizes: tuple[PositiveInt, ...]
    downsample: tuple[StrictBool, ...]
    dilations: tuple[PositiveInt, ...]
    batch_norm: StrictBool = True
    crop_length: PositiveInt = Field(
        description="Samples that it sees, from the beginning of an event, zero-padded to so many."
    )
    correlations: StrictBool = Field(
        False, description="Correlations of all pairs are further channels (COMPUTE_XCORRS)."
    )


class LegacyCorrNetConfig(LegacySimpleNetConfig):
    """vocalocator's CorrSimpleNetwork, with the lags that it looked at."""

    kind: Literal["legacy-corrnet"] = "legacy-corrnet"  # type: ignore[assignment]
    correlation_length: PositiveInt = 256
    hidden: PositiveInt = 1024
    num_layers: PositiveInt = 3


class LegacyWaveNetConfig(ConfigModel):
    """vocalocator's Wavenet, as it was."""

    kind: Literal["legacy-wavenet"] = "legacy-wavenet"
    num_blocks: PositiveInt = 10
    channels: PositiveInt = 64
    kernel_size: PositiveInt = 7
    crop_length: PositiveInt
    correlation_pairs: tuple[tuple[NonNegativeInt, NonNegativeInt], ...] = ()
    correlation_length: PositiveInt = 256
    correlation_hidden: PositiveInt = 512


ModelConfig = Annotated[
    DenseNetConfig
    | SimpleNetConfig
    | CorrNetConfig
    | GccNetConfig
    | WaveNetConfig
    | ResNetConfig
    | ConformerConfig
    | SrpNetConfig
    | MicSetNetConfig
    | LegacySimpleNetConfig
    | LegacyCorrNetConfig
    | LegacyWaveNetConfig,
    Field(discriminator="kind"),
]
