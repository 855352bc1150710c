"""What a network states about a location: one class a kind of head, told apart by ``kind``."""

from typing import Annotated, Literal

from pydantic import Field, StrictBool, StrictInt

from gerbil_tune.config.section import ConfigModel, NonNegativeFloat, PositiveFloat

_MinSd = Annotated[
    PositiveFloat, Field(description="Smallest standard deviation that it can state.")
]


class PointConfig(ConfigModel):
    """A point; its uncertainty is one number for all events, found on validation events afterwards."""

    kind: Literal["point"] = "point"


class GaussianFixedConfig(ConfigModel):
    """A circular Gaussian of a standard deviation that does not change."""

    kind: Literal["gaussian-fixed"] = "gaussian-fixed"
    sd_mm: PositiveFloat = 30.0


class GaussianSphericalConfig(ConfigModel):
    """A Gaussian for each keypoint, circular in network units."""

    kind: Literal["gaussian-spherical"] = "gaussian-spherical"
    min_sd_mm: _MinSd = 1.0


class GaussianDiagonalConfig(ConfigModel):
    """A Gaussian for each keypoint, axes independent."""

    kind: Literal["gaussian-diagonal"] = "gaussian-diagonal"
    min_sd_mm: _MinSd = 1.0


class GaussianFullConfig(ConfigModel):
    """One Gaussian with full covariance for each keypoint."""

    kind: Literal["gaussian-full"] = "gaussian-full"
    min_sd_mm: _MinSd = 1.0


class GaussianJointConfig(ConfigModel):
    """One Gaussian with full covariance over all keypoints together; tells the heading of two."""

    kind: Literal["gaussian-joint"] = "gaussian-joint"
    min_sd_mm: _MinSd = 1.0


class MixtureConfig(ConfigModel):
    """A mixture of Gaussians with full covariance for each keypoint."""

    kind: Literal["mixture"] = "mixture"
    num_components: Annotated[StrictInt, Field(ge=1, le=64)] = 3
    min_sd_mm: _MinSd = 1.0
    background: StrictBool = Field(
        False,
        description="Add a uniform density over the arena, its weight learned: wrong labels do less harm.",
    )


class GridConfig(ConfigModel):
    """A probability for each cell of a grid over the arena, smoothed by a Gaussian as wide as a cell."""

    kind: Literal["grid"] = "grid"
    cell_mm: PositiveFloat = Field(16.0, description="Side of a cell, at most.")
    margin_mm: NonNegativeFloat = Field(
        16.0, description="How far the grid reaches beyond the arena."
    )
    kernel_cells: PositiveFloat = Field(
        0.5, description="Standard deviation of the smoothing, in cells."
    )


HeadConfig = Annotated[
    PointConfig
    | GaussianFixedConfig
    | GaussianSphericalConfig
    | GaussianDiagonalConfig
    | GaussianFullConfig
    | GaussianJointConfig
    | MixtureConfig
    | GridConfig,
    Field(discriminator="kind"),
]
