"""What training minimizes."""

from typing import Annotated, Literal

from pydantic import Field, StrictFloat, model_validator

from gerbil_tune.config.section import ConfigModel, NonNegativeFloat, PositiveFloat

_BelowHalf = Annotated[StrictFloat, Field(ge=0.0, lt=0.5)]


class LossConfig(ConfigModel):
    """The loss of an event, in millimetres, and what is added to it."""

    kind: Literal["nll", "squared", "huber"] = Field(
        "nll",
        description="Negative log-likelihood; squared error; or Huber's: squared to huber_mm, then linear.",
    )
    huber_mm: PositiveFloat = 20.0
    label_smoothing: _BelowHalf = Field(
        0.0,
        description="This part of the loss asks for places all over the arena instead of the label (nll).",
    )
    label_noise: _BelowHalf = Field(
        0.0, description="Part of the labels that may be anywhere in the arena (nll)."
    )
    covariance_prior: NonNegativeFloat = Field(
        0.0, description="Weight of a Wishart prior on the stated covariance (nll)."
    )
    covariance_prior_sd_mm: PositiveFloat = Field(
        40.0, description="Standard deviation of each axis at the prior's mean."
    )

    @model_validator(mode="after")
    def _additions_have_a_likelihood(self) -> "LossConfig":
        for name in ("label_smoothing", "label_noise", "covariance_prior"):
            if self.kind != "nll" and getattr(self, name):
                raise ValueError(f"{name} is for kind nll, but kind is {self.kind}; set it to 0.0")
        return self
