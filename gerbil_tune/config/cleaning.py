"""Which events `data clean` removes: one section a filter; ``null`` switches a filter off.

    snr:
      min_db: 6
    skeleton: null

Values are set by path as in experiments: ``--set skeleton/false_positive_rate=1e-5``. Paths below ``data/``
are facts of the recording site, as in experiments.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StrictBool, StrictFloat, model_validator

from gerbil_tune.config.load import load_config
from gerbil_tune.config.schema import DataConfig
from gerbil_tune.config.section import (
    ConfigModel,
    NonNegativeFloat,
    PositiveFloat,
    Probability,
)


class NotFiniteFilter(ConfigModel):
    """Events with NaN or infinite values, which spoil every batch they are in."""

    audio: StrictBool = Field(True, description="Look at the samples.")
    locations: StrictBool = Field(True, description="Look at the chosen keypoints.")


class DurationFilter(ConfigModel):
    """Events too short or too long."""

    min_ms: NonNegativeFloat | None = Field(
        None,
        description="Shortest event; default: the longest delay between microphones, for in less time"
        " not all of them hear the same.",
    )
    max_ms: PositiveFloat | None = Field(None, description="Longest event; default: any length.")

    @model_validator(mode="after")
    def _range_ascends(self) -> "DurationFilter":
        if self.min_ms is not None and self.max_ms is not None and self.min_ms > self.max_ms:
            raise ValueError(
                f"min_ms must not be above max_ms, but they are {self.min_ms:g} and {self.max_ms:g}"
            )
        return self


class SilenceFilter(ConfigModel):
    """Events without sound on half of the microphones or more.

    The level of an event is the root mean square of its median microphone, without its mean.
    """

    min_level_db: Annotated[StrictFloat, Field(lt=0.0)] = Field(
        -40.0,
        description="Lowest level. Calls and places differ by some 20 dB, and the noise of a working"
        " microphone is above the default; muted inputs are not.",
    )
    relative_to: Literal["median", "full_scale"] = Field(
        "median",
        description="What is 0 dB: the median event, or the largest integer (1.0 for floats).",
    )


class DeadMicrophoneFilter(ConfigModel):
    """Events in which a microphone is silent, but for microphones that are silent in most events."""

    max_below_db: PositiveFloat = Field(
        50.0,
        description="How far a microphone may be below the median microphone of its event, in dB;"
        " distance and direction make some 20 dB.",
    )


class ClippingFilter(ConfigModel):
    """Events louder than the input could take: their peaks are cut off flat."""

    max_share: Probability = Field(
        0.001,
        description="Largest part of the samples of a microphone that lie at the cut-off value.",
    )


class SnrFilter(ConfigModel):
    """Events in which nothing stands out of the noise.

    Estimate: the event is cut into frames, the variance of each microphone in a frame is divided by that
    of its quiet frames, and the mean over the microphones is taken; its largest value, in dB. Steady noise
    gives 0 to 1 dB.
    """

    min_db: NonNegativeFloat = Field(
        3.0,
        description="Lowest estimate. Events cut so tightly that the call fills them have no quiet"
        " frames; set snr: null for those.",
    )
    frame_ms: PositiveFloat = Field(4.0, description="Length of a frame; a fifth of a short call.")
    quiet_part: Annotated[StrictFloat, Field(gt=0.0, lt=1.0)] = Field(
        0.1, description="The quiet frames' power is this quantile over the frames of the event."
    )


class OutsideArenaFilter(ConfigModel):
    """Events with a keypoint outside the arena."""

    tolerance_mm: NonNegativeFloat = Field(
        20.0,
        description="How far a keypoint may be beyond a wall: animals lean out, and cameras see them"
        " aslant.",
    )


class KeypointDistanceFilter(ConfigModel):
    """Events with keypoints farther apart than an animal is long."""

    max_mm: PositiveFloat | None = Field(
        None,
        description="Largest distance of two keypoints; default: half the shorter side of the arena.",
    )
    between: tuple[str, ...] | None = Field(
        None, min_length=2, description="Only the distances between these keypoints; default: all."
    )


class SkeletonFilter(ConfigModel):
    """Events whose keypoints have other distances from each other than an animal's have.

    The usual distances and how they vary together are learned from the events with a robust covariance
    (minimum covariance determinant, as scikit-learn's EllipticEnvelope). An event goes when its distances
    are less probable than ``false_positive_rate``: good data stay, however much or little is wrong.
    """

    false_positive_rate: Annotated[StrictFloat, Field(gt=0.0, lt=0.5)] = Field(
        1e-5,
        description="Part of the good events that is removed by mistake. Real errors are far beyond any"
        " limit; some good postures are beyond those of larger rates.",
    )
    transform: Literal["auto", "log", "none"] = Field(
        "auto", description="Scale on which distances vary: log or mm; auto: the less skewed one."
    )
    tracking_error_mm: PositiveFloat = Field(
        1.0,
        description="No distance is known better than this; keeps a rigid skeleton from failing all.",
    )
    support_fraction: Annotated[StrictFloat, Field(ge=0.5, le=1.0)] = Field(
        0.75, description="Part of the events that is surely good; learned from the best of them."
    )


class DuplicatesFilter(ConfigModel):
    """Events with the same audio as another; the first that no other filter removes is kept."""


class CleaningConfig(ConfigModel):
    """What is removed; a filter that is null is off."""

    not_finite: NotFiniteFilter | None = NotFiniteFilter()
    duration: DurationFilter | None = DurationFilter()
    silence: SilenceFilter | None = SilenceFilter()
    dead_microphone: DeadMicrophoneFilter | None = DeadMicrophoneFilter()
    clipping: ClippingFilter | None = ClippingFilter()
    snr: SnrFilter | None = SnrFilter()
    outside_arena: OutsideArenaFilter | None = OutsideArenaFilter()
    keypoint_distance: KeypointDistanceFilter | None = KeypointDistanceFilter()
    skeleton: SkeletonFilter | None = SkeletonFilter()
    duplicates: DuplicatesFilter | None = DuplicatesFilter()


class CleaningFile(CleaningConfig):
    """A file of filters, with facts of the recording site that the data may not state."""

    data: DataConfig = DataConfig()


def load_cleaning(path: Path | None, overrides: Iterable[str] = ()) -> CleaningFile:
    """Read a cleaning config; without a file, the defaults. See ``load_config``."""
    return load_config(CleaningFile, path, overrides)
