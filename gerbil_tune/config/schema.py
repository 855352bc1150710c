"""The typed tree of one experiment: data, features, scaling, model, head, optimizer, training.

Every leaf has a path (``model/num_blocks``); search spaces, ``--set``, MLflow parameters and error
messages all speak of leaves by that path. A config is frozen; nothing changes a value after loading.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StrictBool, StrictFloat, field_validator, model_validator

from gerbil_tune.config.architectures import GccNetConfig, ModelConfig
from gerbil_tune.config.augmentation import AugmentationConfig
from gerbil_tune.config.features import FeaturesConfig
from gerbil_tune.config.heads import GaussianFullConfig, HeadConfig, PointConfig
from gerbil_tune.config.losses import LossConfig
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
        524288,
        description="Samples of an event that evaluation and prediction see at most, from its middle; what is"
        " longer than crop_length is seen in several windows.",
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
    compile: StrictBool = Field(
        False,
        description="Compile the network with torch.compile; where that fails it runs as it is, and says so.",
    )
    deterministic: StrictBool = Field(
        False,
        description="Only operations whose results repeat bit by bit, also on a GPU; slower there.",
    )
    seed: Seed = 0
    checkpoint_interval_s: PositiveFloat = Field(
        300.0,
        description="Seconds between checkpoints within an epoch; its end is always one.",
    )


class FineTuneConfig(ConfigModel):
    """How weights that are there already are trained on."""

    init_from: str | None = Field(
        None, description="Folder of the trained model whose weights training begins with."
    )
    what: Literal["all", "head", "low-rank"] = Field(
        "all",
        description="What is trained: everything, the last layer, or low-rank changes of all layers and the"
        " last one (Hu et al. 2021, arXiv:2106.09685).",
    )
    rank: PositiveInt = Field(4, description="Of the low-rank changes.")

    @field_validator("init_from")
    @classmethod
    def _init_from_is_absolute(cls, folder: str | None) -> str | None:
        # Workers have other working directories.
        return None if folder is None else str(Path(folder).expanduser().absolute())


class ExperimentConfig(ConfigModel):
    """One experiment, whole: with a data file it determines a training run."""

    name: str = Field("gerbil-locator", pattern=NAME_PATTERN)
    data: DataConfig = DataConfig()
    features: FeaturesConfig = FeaturesConfig()
    scaling: ScalingConfig = ScalingConfig()
    model: ModelConfig = GccNetConfig()
    head: HeadConfig = GaussianFullConfig()
    loss: LossConfig = LossConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    optimizer: OptimizerConfig = AdamWConfig()
    lr_schedule: LrScheduleConfig = LrScheduleConfig()
    training: TrainingConfig = TrainingConfig()
    fine_tune: FineTuneConfig = FineTuneConfig()

    @model_validator(mode="after")
    def _head_has_a_likelihood(self) -> "ExperimentConfig":
        if isinstance(self.head, PointConfig) and self.loss.kind == "nll":
            raise ValueError(
                "the head point has no likelihood to train by; with it loss/kind must be squared or huber"
            )
        return self

    @model_validator(mode="after")
    def _little_is_trained_of_what_is_trained_already(self) -> "ExperimentConfig":
        what = self.fine_tune.what
        if what != "all" and self.fine_tune.init_from is None:
            raise ValueError(
                f"fine_tune/what is {what}, which leaves most weights as they are, but fine_tune/init_from "
                "names no trained model; use train --init-from"
            )
        return self
