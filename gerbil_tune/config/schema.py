"""The typed tree of one experiment: data, features, scaling, model, head, optimizer, training.

Every leaf has a path (``model/num_blocks``); search spaces, ``--set``, MLflow parameters and error
messages all speak of leaves by that path. A config is frozen; nothing changes a value after loading.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StrictBool, StrictFloat, StrictInt, field_validator, model_validator

from gerbil_tune.config.augmentation import AugmentationConfig
from gerbil_tune.config.section import (
    BelowOne,
    ConfigModel,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Probability,
    Seed,
)

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""Of names that become folders."""


class DataConfig(ConfigModel):
    """What is read from each event, and facts that the data file may not state itself."""

    crop_length: PositiveInt = Field(
        32768,
        description="Samples of an event that training sees at most; a random crop each epoch.",
    )
    evaluation_crop_length: PositiveInt = Field(
        65536,
        description="Samples of an event that evaluation and prediction see at most, from its middle.",
    )
    sample_rate_hz: PositiveFloat | None = Field(
        None, description="Samples a second; needed when the file does not state it."
    )
    arena_mm: tuple[PositiveFloat, ...] | None = Field(
        None,
        min_length=2,
        max_length=3,
        description="Full widths x, y and perhaps z; needed when the file does not state them.",
    )
    keypoints: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="Body points to predict, by name and in order; default: all in the file.",
    )
    validation_fraction: Annotated[StrictFloat, Field(gt=0.0, lt=0.5)] = Field(
        0.1, description="Part of the events held out for validation."
    )
    test_fraction: Annotated[StrictFloat, Field(ge=0.0, lt=0.5)] | None = Field(
        None,
        description="Part of the events held out for test; 0: none; default: as for validation.",
    )
    split_seed: Seed = 0
    source_folder: str | None = Field(
        None,
        description="Folder of wav files that files of room impulse responses are convolved with.",
    )

    @field_validator("source_folder")
    @classmethod
    def _source_folder_is_absolute(cls, folder: str | None) -> str | None:
        # Workers have other working directories.
        return None if folder is None else str(Path(folder).expanduser().absolute())


class GccConfig(ConfigModel):
    """Generalized cross-correlation of all microphone pairs."""

    exponent: Probability = Field(
        0.75,
        description="0 plain correlation, 1 PHAT: the cross-spectrum over its magnitude to this.",
    )
    coherence_exponent: Annotated[StrictFloat, Field(ge=0.0, le=4.0)] = Field(
        0.0,
        description="Weight of a frequency: its magnitude-squared coherence to this; 0: all alike.",
    )
    envelope: StrictBool = Field(
        False, description="Add the envelope of each correlation: helps with tonal calls."
    )
    window_length: Annotated[StrictInt, Field(ge=64)] = Field(
        2048, description="Samples of the windows whose spectra are averaged over an event."
    )
    band_low_hz: NonNegativeFloat = Field(500.0, description="Lowest frequency used.")
    band_high_hz: PositiveFloat | None = Field(
        None, description="Highest frequency used; default: all."
    )
    max_lag_ms: PositiveFloat | None = Field(
        None, description="Largest lag kept; default: what the arena and microphones allow."
    )

    @model_validator(mode="after")
    def _band_ascends(self) -> "GccConfig":
        if self.band_high_hz is not None and self.band_low_hz >= self.band_high_hz:
            raise ValueError(
                f"band_low_hz must be below band_high_hz, but they are {self.band_low_hz:g} and "
                f"{self.band_high_hz:g}"
            )
        return self


class FeaturesConfig(ConfigModel):
    """How the audio is presented to the network; an architecture takes the features that it uses."""

    gcc: GccConfig = GccConfig()


class AudioGain(ConfigModel):
    """Multiply the audio by a constant."""

    kind: Literal["gain"] = "gain"
    gain: PositiveFloat = 1000.0


class EventZScore(ConfigModel):
    """Zero mean and unit variance over all channels of an event together."""

    kind: Literal["event_zscore"] = "event_zscore"


class ChannelZScore(ConfigModel):
    """Zero mean and unit variance of each channel of an event."""

    kind: Literal["channel_zscore"] = "channel_zscore"


class LocationGain(ConfigModel):
    """Network units are millimetres times a constant."""

    kind: Literal["gain"] = "gain"
    gain: PositiveFloat = 1e-3


class LocationIsotropic(ConfigModel):
    """Network units are halves of the arena's longest side, the same on each axis."""

    kind: Literal["isotropic"] = "isotropic"


class LocationPerAxis(ConfigModel):
    """Network units are halves of the arena's side on each axis."""

    kind: Literal["per_axis"] = "per_axis"


AudioScaling = Annotated[AudioGain | EventZScore | ChannelZScore, Field(discriminator="kind")]
LocationScaling = Annotated[
    LocationGain | LocationIsotropic | LocationPerAxis, Field(discriminator="kind")
]


class ScalingConfig(ConfigModel):
    """Units inside the network. Losses and metrics are in millimetres whatever is chosen here."""

    audio: AudioScaling = EventZScore()
    location: LocationScaling = LocationIsotropic()


class ConvStackConfig(ConfigModel):
    """A stack of gated convolutions; the four lists have one entry a layer."""

    channels: tuple[PositiveInt, ...] = (16, 16, 32, 32, 64, 64)
    kernel_sizes: tuple[PositiveInt, ...] = (33, 33, 33, 33, 33, 33)
    downsample: tuple[StrictBool, ...] = (False, True, True, True, True, True)
    dilations: tuple[PositiveInt, ...] = (1, 1, 1, 1, 1, 1)
    width_multiplier: PositiveFloat = Field(1.0, description="Scales every entry of channels.")
    normalization: Literal["batch", "layer", "none"] = "layer"

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
    dropout: BelowOne = 0.1


class DenseNetConfig(ConfigModel):
    """Gated stride-2 convolutions whose average-pooled inputs are concatenated to their outputs."""

    kind: Literal["densenet"] = "densenet"
    num_stages: Annotated[StrictInt, Field(ge=1, le=14)] = 12
    growth: PositiveInt = Field(11, description="Channels that each stage adds.")
    kernel_size: Annotated[StrictInt, Field(ge=3)] = Field(
        51, description="Of the early stages, odd; the last four taper as in the original network."
    )
    normalization: Literal["batch", "layer", "none"] = "layer"

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


ModelConfig = Annotated[
    DenseNetConfig | SimpleNetConfig | CorrNetConfig | GccNetConfig,
    Field(discriminator="kind"),
]


class GaussianFullConfig(ConfigModel):
    """One Gaussian with full covariance for each keypoint."""

    kind: Literal["gaussian-full"] = "gaussian-full"
    min_sd_mm: PositiveFloat = Field(1.0, description="Smallest standard deviation it can state.")


class AdamWConfig(ConfigModel):
    """AdamW (Loshchilov and Hutter, 2019)."""

    kind: Literal["adamw"] = "adamw"
    learning_rate: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat = 1e-2
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.999)


class SgdConfig(ConfigModel):
    """Stochastic gradient descent with momentum."""

    kind: Literal["sgd"] = "sgd"
    learning_rate: PositiveFloat = 0.02
    weight_decay: NonNegativeFloat = 1e-5
    momentum: BelowOne = 0.9


OptimizerConfig = Annotated[AdamWConfig | SgdConfig, Field(discriminator="kind")]


class LrScheduleConfig(ConfigModel):
    """Linear warm-up, then a cosine down to a fraction of the learning rate; stepped every batch."""

    warmup_fraction: BelowOne = 0.05
    final_fraction: Probability = 0.01


class TrainingConfig(ConfigModel):
    """The loop."""

    epochs: PositiveInt = 20
    global_batch_size: PositiveInt = Field(
        64, description="Events a step, over all workers together."
    )
    accumulate_steps: PositiveInt = Field(
        1, description="Parts in which a worker runs its share of a step, to save memory."
    )
    clip_norm: PositiveFloat | None = Field(
        1.0, description="Largest gradient norm; null: no clipping."
    )
    ema_decay: BelowOne | None = Field(
        None,
        description="Keep an average of the weights that decays by this factor a step, and use it instead"
        " of the last ones; null: none.",
    )
    batch_norm: Literal["sync", "frozen", "local"] = Field(
        "sync",
        description="Statistics of batch norm: over the events of all workers, as after the first epoch,"
        " or of each worker alone.",
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto: bfloat16 autocast where the hardware gains from it."
    )
    seed: Seed = 0
    checkpoint_interval_s: PositiveFloat = Field(
        300.0,
        description="Seconds between checkpoints within an epoch; its end is always one.",
    )


class ExperimentConfig(ConfigModel):
    """One experiment, whole: with a data file it determines a training run."""

    name: str = Field("gerbil-locator", pattern=NAME_PATTERN)
    data: DataConfig = DataConfig()
    features: FeaturesConfig = FeaturesConfig()
    scaling: ScalingConfig = ScalingConfig()
    model: ModelConfig = GccNetConfig()
    head: GaussianFullConfig = GaussianFullConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    optimizer: OptimizerConfig = AdamWConfig()
    lr_schedule: LrScheduleConfig = LrScheduleConfig()
    training: TrainingConfig = TrainingConfig()
