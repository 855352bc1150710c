"""From padded audio to what a network sees, computed on the device.

Letters: B batch, C microphones, T samples.
"""

from torch import Tensor, nn

from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.features.features import FeatureKind, Features, InputShapes
from gerbil_tune.models.features.gcc import GeneralizedCrossCorrelation
from gerbil_tune.models.features.maps import MapGrid, SteeredResponse
from gerbil_tune.models.features.waveform import WaveformChannels
from gerbil_tune.models.scaling import pcm_to_float, remove_offset, scale_audio


class FeatureExtractor(nn.Module):
    """Scales audio and computes the features that an architecture uses; it has no parameters and no state.

    Args:
        config: Its features, audio scaling and crop length count.
        setup: The recording site.
        uses: The kinds of features to compute.

    Attributes:
        uses: Likewise.
        shapes: Of all kinds, whatever is used; without microphone positions there are no maps.

    Raises:
        ConfigError: If there are fewer than two microphones, or maps are used without microphone positions or
            have bands without a frequency.
    """

    def __init__(
        self, config: ExperimentConfig, setup: RecordingSetup, uses: frozenset[FeatureKind]
    ) -> None:
        super().__init__()
        self.uses = uses
        self.audio_scaling = config.scaling.audio
        self.waveform = WaveformChannels(config.features.waveform, setup)
        self.gcc = GeneralizedCrossCorrelation(config.features.gcc, setup)
        maps = config.features.maps
        self.maps = SteeredResponse(maps, setup) if "maps" in uses else None
        has_maps = setup.microphones_mm is not None
        grid = MapGrid.of_site(maps, setup)
        self.shapes = InputShapes(
            waveform_planes=self.waveform.num_planes,
            window_length=config.data.crop_length,
            gcc_planes=self.gcc.num_planes,
            num_lags=self.gcc.num_lags,
            map_planes=maps.num_bands * len(maps.heights_mm) if has_maps else 0,
            map_shape=grid.shape if has_maps else (0, 0),
            map_extent_mm=grid.extent_mm if has_maps else None,
        )

    @property
    def uses_statistics(self) -> bool:
        """Whether features depend on the statistics of whole events."""
        # A factor common to all channels cancels in correlations and maps.
        kind = self.audio_scaling.kind
        return kind == "channel_zscore" or (kind == "event_zscore" and "waveform" in self.uses)

    def forward(
        self,
        audio_BTC: Tensor,
        lengths_B: Tensor,
        mean_BC: Tensor | None = None,
        sd_BC: Tensor | None = None,
        *,
        may_overwrite: bool = False,
    ) -> Features:
        """Scale the audio and compute what is used.

        Args:
            audio_BTC: (B, T, C) float or integer PCM, zero after each event's length.
            lengths_B: (B,) int64, samples of each event.
            mean_BC: (B, C) float32, mean of each channel of the whole event, of which the audio may be a
                crop, in the unit of the audio; None: that of the audio.
            sd_BC: (B, C) float32, standard deviation likewise.
            may_overwrite: Whether nobody needs the audio any more.
        """
        if "waveform" in self.uses or self.uses_statistics:
            statistics = None if mean_BC is None or sd_BC is None else (mean_BC, sd_BC)
            audio_BTC = scale_audio(
                audio_BTC, lengths_B, self.audio_scaling, statistics, may_overwrite=may_overwrite
            )
        audio_BCT = pcm_to_float(audio_BTC).transpose(1, 2).contiguous()
        features = Features(lengths_B)
        if "waveform" in self.uses:
            features.waveform_BFT = self.waveform(audio_BCT, lengths_B)
        if self.uses & {"gcc", "maps"}:
            # An offset would leak from the ends of an event into all frequencies.
            centred_BCT = remove_offset(audio_BCT, lengths_B)
            features.gcc_BPL = self.gcc(centred_BCT) if "gcc" in self.uses else None
            features.maps_BFYX = None if self.maps is None else self.maps(centred_BCT)
        return features
