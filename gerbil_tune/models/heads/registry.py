"""The heads by their name in a config."""

from gerbil_tune.config.heads import HeadConfig
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.heads.gaussian import (
    GaussianDiagonalHead,
    GaussianFixedHead,
    GaussianFullHead,
    GaussianSphericalHead,
    PointHead,
)
from gerbil_tune.models.heads.grid import GridHead
from gerbil_tune.models.heads.head import Head
from gerbil_tune.models.heads.joint import GaussianJointHead
from gerbil_tune.models.heads.mixture import MixtureHead

HEADS: dict[str, type[Head]] = {
    "gaussian-diagonal": GaussianDiagonalHead,
    "gaussian-fixed": GaussianFixedHead,
    "gaussian-full": GaussianFullHead,
    "gaussian-joint": GaussianJointHead,
    "gaussian-spherical": GaussianSphericalHead,
    "grid": GridHead,
    "mixture": MixtureHead,
    "point": PointHead,
}


def build_head(config: HeadConfig, setup: RecordingSetup) -> Head:
    """Build the head that ``config.kind`` names; the config schema admits no unknown kind."""
    return HEADS[config.kind](config, setup)
