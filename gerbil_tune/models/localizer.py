"""The whole model: features, network and head in one module.

Letters: B batch, C microphones, T samples, O raw outputs, K keypoints, D axes.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.density import LocationDensity
from gerbil_tune.models.features.extractor import FeatureExtractor
from gerbil_tune.models.features.features import Features
from gerbil_tune.models.heads.registry import build_head
from gerbil_tune.models.losses import make_loss
from gerbil_tune.models.registry import ARCHITECTURES, build_architecture
from gerbil_tune.models.scaling import LocationScale


class Localizer(nn.Module):
    """From padded audio to a distribution over locations in millimetres.

    Attributes:
        extractor: From audio to what the network sees; it has no parameters.
        network: From that to raw numbers.
        head: From raw numbers to a density over locations; it has no parameters.
        loss: Of densities, and locations (B, K, D) in mm: what training minimizes, (B,).
        autocast_dtype: Type in which the network runs, or None for float32. Features and likelihoods are
            always float32.
    """

    def __init__(self, config: ExperimentConfig, setup: RecordingSetup) -> None:
        super().__init__()
        uses = ARCHITECTURES[config.model.kind].uses
        self.extractor = FeatureExtractor(config, setup, uses)
        self.location_scale = LocationScale(config.scaling.location, setup)
        self.head = build_head(config.head, setup)
        self.network = build_architecture(
            config.model, setup, self.extractor.shapes, self.head.output_shape
        )
        self.loss: Callable[[LocationDensity, Tensor], Tensor] = make_loss(config.loss, setup)
        # A quarter of the arena's width: nearly everything lies within two standard deviations.
        quarter_mm = min(setup.arena_mm) / 4
        self.head.initialize_readout(
            self.network.readout, quarter_mm / self.location_scale.mm_per_unit_D
        )
        self.autocast_dtype: torch.dtype | None = None

    @property
    def uses_statistics(self) -> bool:
        """Whether features depend on the statistics of whole events."""
        return self.extractor.uses_statistics

    def forward(
        self,
        audio_BTC: Tensor,
        lengths_B: Tensor,
        mean_BC: Tensor | None = None,
        sd_BC: Tensor | None = None,
    ) -> Tensor:
        """Return raw outputs, (B, O) float32; ``density`` reads them.

        Args:
            audio_BTC: (B, T, C) float or integer PCM, zero after each event's length.
            lengths_B: (B,) int64, samples of each event.
            mean_BC: (B, C) float32, mean of each channel of the whole event, of which the audio may be a
                crop, in the unit of the audio; None: that of the audio.
            sd_BC: (B, C) float32, standard deviation likewise.
        """
        with torch.no_grad():
            features = self.extractor(audio_BTC, lengths_B, mean_BC, sd_BC)
        return self.read(features)

    def read(self, features: Features, network: nn.Module | None = None) -> Tensor:
        """Run the network on features that are there already.

        Args:
            features: From ``extractor``.
            network: ``self.network`` in a wrapper that shares gradients; default: the bare one.

        Returns:
            Raw outputs, (B, O) float32.
        """
        with torch.autocast(
            features.lengths_B.device.type,
            dtype=self.autocast_dtype or torch.bfloat16,
            enabled=self.autocast_dtype is not None,
        ):
            raw_BO: Tensor = (network or self.network)(features)
        return raw_BO.float()

    def density(self, raw_BO: Tensor) -> LocationDensity:
        """What raw outputs state about locations in millimetres."""
        density: LocationDensity = self.head(raw_BO, self.location_scale.mm_per_unit_D)
        return density


def read_outputs(
    config: ExperimentConfig, setup: RecordingSetup, raw_NO: Tensor
) -> LocationDensity:
    """What raw outputs of a configuration's network state, without the network."""
    mm_per_unit_D = LocationScale(config.scaling.location, setup).mm_per_unit_D
    density: LocationDensity = build_head(config.head, setup)(raw_NO, mm_per_unit_D)
    return density


def autocast_dtype(config: ExperimentConfig, device: torch.device) -> torch.dtype | None:
    """Type for autocast, or None.

    ``auto`` takes bfloat16 on a GPU that has it, and on a CPU with bfloat16 instructions (AVX-512 or AMX)
    for networks that convolve raw audio; the others are too small to gain there.
    """
    precision = config.training.precision
    if precision == "float32":
        return None
    if precision == "bfloat16":
        return torch.bfloat16
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else None
    capabilities = torch.cpu.get_capabilities()
    has_bfloat16 = any(capabilities.get(name, False) for name in ("amx_bf16", "avx512_bf16"))
    convolves_audio = "waveform" in ARCHITECTURES[config.model.kind].uses
    return torch.bfloat16 if has_bfloat16 and convolves_audio else None
