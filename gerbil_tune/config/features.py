"""What a network is shown of an event: channels over time, correlations over lags, maps over the arena."""

from typing import Annotated

from pydantic import Field, StrictBool, StrictFloat, StrictInt, model_validator

from gerbil_tune.config.section import (
    ConfigModel,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Probability,
)

_Exponent = Annotated[StrictFloat, Field(ge=0.0, le=4.0)]


def _check_band(low_hz: float, high_hz: float | None) -> None:
    if high_hz is not None and low_hz >= high_hz:
        raise ValueError(
            f"band_low_hz must be below band_high_hz, but they are {low_hz:g} and {high_hz:g}"
        )


class WaveformConfig(ConfigModel):
    """Channels over time that are computed from the audio of each microphone; at least one kind."""

    raw: StrictBool = Field(True, description="The scaled audio itself.")
    quadrature: StrictBool = Field(
        False, description="The Hilbert transform: with raw, the analytic signal."
    )
    envelope: StrictBool = Field(False, description="Magnitude of the analytic signal.")
    phase: StrictBool = Field(
        False, description="Cosine and sine of the analytic signal's phase: two channels."
    )
    log_power: StrictBool = Field(
        False, description="Logarithm of the power over log_power_window_ms."
    )
    log_power_window_ms: PositiveFloat = 0.25

    @model_validator(mode="after")
    def _something_is_seen(self) -> "WaveformConfig":
        if not (self.raw or self.quadrature or self.envelope or self.phase or self.log_power):
            raise ValueError(
                "one of raw, quadrature, envelope, phase and log_power must be true, but none is"
            )
        return self


class GccConfig(ConfigModel):
    """Generalized cross-correlation of all microphone pairs."""

    exponent: Probability = Field(
        0.75,
        description="0 plain correlation, 1 PHAT: the cross-spectrum over its magnitude to this.",
    )
    coherence_exponent: _Exponent = Field(
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
        _check_band(self.band_low_hz, self.band_high_hz)
        return self


class MapsConfig(ConfigModel):
    """Steered-response power over a grid in the arena, an image a frequency band.

    Each cell of a map has the sum over pairs of their correlation at the lag that a source there would
    have (SRP, DiBiase 2000); needs the microphone positions.
    """

    cell_mm: PositiveFloat = Field(16.0, description="Side of a cell, at most.")
    margin_mm: NonNegativeFloat = Field(
        0.0, description="How far the grid reaches beyond the arena."
    )
    heights_mm: tuple[NonNegativeFloat, ...] = Field(
        (40.0,), min_length=1, description="Heights of the source above the floor; maps of each."
    )
    num_bands: PositiveInt = Field(4, description="Bands of equal width in log frequency.")
    band_low_hz: PositiveFloat = Field(2000.0, description="Lower end of the lowest band.")
    band_high_hz: PositiveFloat | None = Field(
        None, description="Upper end of the highest band; default: half the sample rate."
    )
    exponent: Probability = Field(
        1.0,
        description="0 plain correlation, 1 PHAT: the cross-spectrum over its magnitude to this.",
    )
    coherence_exponent: _Exponent = Field(
        0.0,
        description="Weight of a frequency: its magnitude-squared coherence to this; 0: all alike.",
    )
    envelope: StrictBool = Field(
        True,
        description="Envelopes, averaged over a cell, in the place of correlations at its centre.",
    )
    window_length: Annotated[StrictInt, Field(ge=64)] = Field(
        2048, description="Samples of the windows whose spectra are averaged over an event."
    )

    @model_validator(mode="after")
    def _band_ascends(self) -> "MapsConfig":
        _check_band(self.band_low_hz, self.band_high_hz)
        return self


class FeaturesConfig(ConfigModel):
    """How the audio is presented to the network; an architecture takes the features that it uses."""

    waveform: WaveformConfig = WaveformConfig()
    gcc: GccConfig = GccConfig()
    maps: MapsConfig = MapsConfig()
