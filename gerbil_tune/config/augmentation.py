"""Random changes of training events: how often, and how strong."""

from typing import Annotated

from pydantic import Field, StrictFloat, model_validator

from gerbil_tune.config.section import ConfigModel, PositiveFloat, PositiveInt, Probability

_Exponent = Annotated[StrictFloat, Field(ge=-3.0, le=3.0)]
_Decibels = Annotated[StrictFloat, Field(ge=-120.0, le=120.0)]


class AugmentationConfig(ConfigModel):
    """Random changes of training events, decided for each event anew in each epoch.

    Each kind has a probability of its own, 0 unless asked for, and draws its strength uniformly.
    """

    mirror_prob: Probability = Field(
        0.0, description="Mirror the arena on x, and on y; needs a symmetric microphone array."
    )
    polarity_prob: Probability = Field(0.0, description="Change the sign of the audio.")
    gain_prob: Probability = Field(
        0.0, description="Make each microphone louder or softer than it was."
    )
    gain_db: tuple[_Decibels, _Decibels] = Field(
        (-3.0, 3.0), description="Of each microphone, from and to."
    )
    noise_prob: Probability = Field(
        0.0, description="Add noise, of its own on each microphone and equally strong on all."
    )
    noise_snr_db: tuple[_Decibels, _Decibels] = Field(
        (3.0, 15.0), description="Of the event over its noise, means over all microphones."
    )
    noise_exponent: tuple[_Exponent, _Exponent] = Field(
        (0.0, 0.0),
        description="Power falls with frequency to this: 0 white, 1 pink, 2 brown noise.",
    )
    low_frequency_prob: Probability = Field(
        0.0, description="Add noise whose magnitude falls as exp(-frequency / cutoff)."
    )
    low_frequency_snr_db: tuple[_Decibels, _Decibels] = Field(
        (3.0, 15.0), description="As noise_snr_db."
    )
    low_frequency_cutoff_hz: PositiveFloat = Field(
        1000.0, description="Where that magnitude is 1/e; 86 % of the power is below it."
    )
    mask_prob: Probability = Field(0.0, description="Silence a short stretch of all microphones.")
    mask_length: tuple[PositiveInt, PositiveInt] = Field(
        (75, 125), description="Samples, from and to, but at most half of an event."
    )
    dropout_prob: Probability = Field(0.0, description="Silence some microphones throughout.")
    dropout_microphones: PositiveInt = Field(
        1, description="How many at most; two are left in any case."
    )
    shift_prob: Probability = Field(
        0.0, description="Let the event begin later, after silence, or lose its beginning."
    )
    shift_ms: PositiveFloat = Field(
        5.0, description="Longest shift to either side; no more than half of an event is lost."
    )

    @model_validator(mode="after")
    def _ranges_ascend(self) -> "AugmentationConfig":
        for name, (low, high) in (
            ("noise_snr_db", self.noise_snr_db),
            ("noise_exponent", self.noise_exponent),
            ("low_frequency_snr_db", self.low_frequency_snr_db),
            ("gain_db", self.gain_db),
            ("mask_length", self.mask_length),
        ):
            if low > high:
                raise ValueError(f"{name} must be [low, high], but is [{low}, {high}]")
        return self
