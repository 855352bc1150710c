"""The architectures by their name in a config."""

from gerbil_tune.config.schema import ModelConfig
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.architecture import Architecture
from gerbil_tune.models.corrnet import CorrNet
from gerbil_tune.models.densenet import DenseNet
from gerbil_tune.models.gcc_net import GccNet
from gerbil_tune.models.simplenet import SimpleNet

ARCHITECTURES: dict[str, type[Architecture]] = {
    "corrnet": CorrNet,
    "densenet": DenseNet,
    "gcc-net": GccNet,
    "simplenet": SimpleNet,
}


def build_architecture(
    config: ModelConfig, setup: RecordingSetup, *, lag_shape: tuple[int, int], num_outputs: int
) -> Architecture:
    """Build the network that ``config.kind`` names; the config schema admits no unknown kind."""
    architecture = ARCHITECTURES[config.kind]
    return architecture(config, setup, lag_shape=lag_shape, num_outputs=num_outputs)
