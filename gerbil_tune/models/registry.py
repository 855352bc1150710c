"""The architectures by their name in a config."""

from gerbil_tune.config.architectures import ModelConfig
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.architecture import Architecture, OutputShape
from gerbil_tune.models.conformer import Conformer
from gerbil_tune.models.corrnet import CorrNet
from gerbil_tune.models.densenet import DenseNet
from gerbil_tune.models.features.features import InputShapes
from gerbil_tune.models.gcc_net import GccNet
from gerbil_tune.models.legacy.corrnet import LegacyCorrNet
from gerbil_tune.models.legacy.simplenet import LegacySimpleNet
from gerbil_tune.models.legacy.wavenet import LegacyWaveNet
from gerbil_tune.models.micset_net import MicSetNet
from gerbil_tune.models.resnet import ResNet
from gerbil_tune.models.simplenet import SimpleNet
from gerbil_tune.models.srp_net import SrpNet
from gerbil_tune.models.wavenet import WaveNet

ARCHITECTURES: dict[str, type[Architecture]] = {
    "conformer": Conformer,
    "corrnet": CorrNet,
    "densenet": DenseNet,
    "gcc-net": GccNet,
    "legacy-corrnet": LegacyCorrNet,
    "legacy-simplenet": LegacySimpleNet,
    "legacy-wavenet": LegacyWaveNet,
    "micset-net": MicSetNet,
    "resnet": ResNet,
    "simplenet": SimpleNet,
    "srp-net": SrpNet,
    "wavenet": WaveNet,
}


def build_architecture(
    config: ModelConfig, setup: RecordingSetup, inputs: InputShapes, outputs: OutputShape
) -> Architecture:
    """Build the network that ``config.kind`` names; the config schema admits no unknown kind."""
    return ARCHITECTURES[config.kind](config, setup, inputs, outputs)
