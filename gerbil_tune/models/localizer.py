"""The whole model: features, network and head in one module.

Letters: B batch, C microphones, T samples, O raw outputs, D axes.
"""

import torch
from torch import Tensor, nn

from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.features import Features, GeneralizedCrossCorrelation
from gerbil_tune.models.heads import GaussianFullHead, GaussianPrediction
from gerbil_tune.models.registry import ARCHITECTURES, build_architecture
from gerbil_tune.models.scaling import (
    LocationScale,
    pcm_to_float,
    remove_offset,
    scale_audio,
)


class Localizer(nn.Module):
    """From padded audio to a distribution over locations in millimetres.

    Attributes:
        autocast_dtype: Type in which the network runs, or None for float32. Features and likelihoods are
            always float32.
    """

    def __init__(self, config: ExperimentConfig, setup: RecordingSetup) -> None:
        super().__init__()
        self.audio_scaling = config.scaling.audio
        self.location_scale = LocationScale(config.scaling.location, setup)
        self.gcc = GeneralizedCrossCorrelation(config.features.gcc, setup)
        self.head = GaussianFullHead(
            config.head, num_keypoints=len(setup.keypoints), num_axes=setup.num_axes
        )
        self.network = build_architecture(
            config.model,
            setup,
            lag_shape=(self.gcc.num_planes, self.gcc.num_lags),
            num_outputs=self.head.num_outputs,
        )
        # A quarter of the arena's width: nearly everything lies within two standard deviations.
        quarter_mm = min(setup.arena_mm) / 4
        self.head.initialize_readout(
            self.network.readout, quarter_mm / self.location_scale.mm_per_unit_D
        )
        self.autocast_dtype: torch.dtype | None = None

    @property
    def uses_statistics(self) -> bool:
        """Whether ``extract_features`` has a use for the statistics of whole events."""
        # A factor common to all channels cancels in the correlations.
        kind = self.audio_scaling.kind
        return kind == "channel_zscore" or (kind == "event_zscore" and self.network.uses_audio)

    def extract_features(
        self,
        audio_BTC: Tensor,
        lengths_B: Tensor,
        mean_BC: Tensor | None = None,
        sd_BC: Tensor | None = None,
        *,
        may_overwrite: bool = False,
    ) -> Features:
        """Scale the audio and compute what the architecture uses.

        Args:
            audio_BTC: (B, T, C) float or integer PCM, zero after each event's length.
            lengths_B: (B,) int64, samples of each event.
            mean_BC: (B, C) float32, mean of each channel of the whole event, of which the audio may be a
                crop, in the unit of the audio; None: that of the audio.
            sd_BC: (B, C) float32, standard deviation likewise.
            may_overwrite: Whether nobody needs the audio any more.
        """
        if self.network.uses_audio or self.uses_statistics:
            statistics = None if mean_BC is None or sd_BC is None else (mean_BC, sd_BC)
            audio_BTC = scale_audio(
                audio_BTC, lengths_B, self.audio_scaling, statistics, may_overwrite=may_overwrite
            )
        audio_BCT = pcm_to_float(audio_BTC).transpose(1, 2).contiguous()
        gcc_BPL = None
        if self.network.uses_gcc:
            # An offset would leak from the ends of an event into all frequencies.
            gcc_BPL = self.gcc(remove_offset(audio_BCT, lengths_B))
        return Features(audio_BCT if self.network.uses_audio else None, lengths_B, gcc_BPL)

    def forward(
        self,
        audio_BTC: Tensor,
        lengths_B: Tensor,
        mean_BC: Tensor | None = None,
        sd_BC: Tensor | None = None,
    ) -> Tensor:
        """Return raw outputs, (B, O) float32; ``distribution`` reads them."""
        with torch.no_grad():
            features = self.extract_features(audio_BTC, lengths_B, mean_BC, sd_BC)
        return self.read(features)

    def read(self, features: Features, network: nn.Module | None = None) -> Tensor:
        """Run the network on features that are there already.

        Args:
            features: From ``extract_features``.
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

    def distribution(self, raw_BO: Tensor) -> GaussianPrediction:
        """Turn raw outputs into Gaussians in millimetres."""
        prediction: GaussianPrediction = self.head(raw_BO, self.location_scale.mm_per_unit_D)
        return prediction


def autocast_dtype(config: ExperimentConfig, device: torch.device) -> torch.dtype | None:
    """Type for autocast, or None.

    ``auto`` takes bfloat16 on a GPU that has it, and on a CPU with bfloat16 instructions (AVX-512 or AMX)
    for networks that convolve raw audio; the lag network is too small to gain there.
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
    convolves_audio = ARCHITECTURES[config.model.kind].uses_audio
    return torch.bfloat16 if has_bfloat16 and convolves_audio else None
