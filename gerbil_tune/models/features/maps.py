"""Steered-response power: what each place of the arena would explain of the correlations.

Letters: B batch, C microphones, T samples, P pairs, L lags, F frequencies, N samples of a fine correlation,
H bands, G cells of all heights, I bands of all pairs, R table rows of a cell, Y rows and X columns of a map.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from gerbil_tune.config.features import MapsConfig
from gerbil_tune.errors import ConfigError
from gerbil_tune.geometry import RecordingSetup, longest_path_mm, microphone_pairs
from gerbil_tune.models.arena import Edges, arena_edges_mm, cell_centres_mm, num_cells
from gerbil_tune.models.features.spectra import TINY, PairSpectra, events_at_once, fast_fft_length
from gerbil_tune.units import distance_to_delay_s

FINE_PER_SAMPLE = 4
"""Lags between two samples at which banded correlations are known."""
_SHORTEST_BAND_TRANSFORM = 512
_BYTES_AT_ONCE = 1 << 28


@dataclass(frozen=True, slots=True)
class MapGrid:
    """The cells of the maps of a site.

    Attributes:
        edges_mm: Where the outermost cells begin and end, on x and on y.
        counts: Cells on x and on y.
        heights_mm: Above the floor, one an image.
    """

    edges_mm: tuple[Edges, Edges]
    counts: tuple[int, int]
    heights_mm: tuple[float, ...]

    @classmethod
    def of_site(cls, config: MapsConfig, setup: RecordingSetup) -> "MapGrid":
        """Divide the arena, and a margin around it, into equal cells."""
        (x_low, x_high), (y_low, y_high) = arena_edges_mm(setup)[:2]
        margin_mm, cell_mm = config.margin_mm, config.cell_mm
        x_edges_mm = (x_low - margin_mm, x_high + margin_mm)
        y_edges_mm = (y_low - margin_mm, y_high + margin_mm)
        counts = num_cells(x_edges_mm, cell_mm), num_cells(y_edges_mm, cell_mm)
        return cls((x_edges_mm, y_edges_mm), counts, config.heights_mm)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.counts[1], self.counts[0]

    @property
    def extent_mm(self) -> tuple[float, float, float, float]:
        """The outer edges, (x_low, x_high, y_low, y_high)."""
        return *self.edges_mm[0], *self.edges_mm[1]

    def cells_mm_G3(self) -> Tensor:
        """Centres (x, y, z) of all cells, float32 mm: height by height, row by row, x and y ascending."""
        floor_mm_M2 = cell_centres_mm(self.edges_mm, self.counts)
        levels = [
            nn.functional.pad(floor_mm_M2, (0, 1), value=height) for height in self.heights_mm
        ]
        return torch.cat(levels)


def path_differences_mm(points_mm: Tensor, microphones_mm_C3: Tensor) -> Tensor:
    """How much farther from points (..., 3) a pair's first microphone is than its second: (..., P)."""
    distances_mm = torch.linalg.vector_norm(points_mm[..., None, :] - microphones_mm_C3, dim=-1)
    pairs = torch.tensor(microphone_pairs(len(microphones_mm_C3)), device=points_mm.device)
    paths_mm: Tensor = distances_mm[..., pairs[:, 0]] - distances_mm[..., pairs[:, 1]]
    return paths_mm


class SteeredResponse(nn.Module):
    """Steered-response power over the arena (SRP, DiBiase 2000), an image a frequency band and height.

    Each cell has the sum over microphone pairs of their correlation, limited to a band, at the lag that a
    source there would have in the near field; with exponent 1 this is SRP-PHAT. Bands have equal widths in
    log frequency, and the sum over frequencies of each is divided by their number. An event's images have
    zero mean each and unit mean square together, so they say nothing of its loudness but compare its bands.

    Correlations are cut to the lags that the site allows before they are split into bands, four times
    upsampled and read between two samples by linear interpolation: that loses at most 7.6 % of the amplitude
    at half the sample rate, and 1.9 % at a quarter of it.

    A correlation alternates within millimetres of path, and cells of centimetres meet it anywhere. With
    ``envelope`` each correlation is therefore replaced by the envelope of its analytic signal, averaged over
    the path that a cell is wide: a cell has the sound of all of its places (as the accumulated lags of Cobos
    et al. 2011, doi:10.1109/LSP.2010.2091502).
    """

    bands_HF: Tensor
    rows_GR: Tensor
    weights_GR: Tensor

    def __init__(self, config: MapsConfig, setup: RecordingSetup) -> None:
        super().__init__()
        if setup.microphones_mm is None:
            raise ConfigError(
                "maps of the arena need the microphone positions, but the recording setup does not state "
                "them; write the attribute microphones_mm (C, 3) to the data file, or choose a model/kind "
                "that does without, as gcc-net"
            )
        self.config = config
        self.grid = MapGrid.of_site(config, setup)
        longest_s = distance_to_delay_s(longest_path_mm(setup))
        # One more than the site allows, to interpolate at the farthest lag.
        max_lag = math.ceil(longest_s * setup.sample_rate_hz) + 1
        self.spectra = PairSpectra(config, setup, max_lag=max_lag)
        # A transform wraps around: the gap keeps the two ends of the lags apart.
        self.band_fft_length = max(_SHORTEST_BAND_TRANSFORM, fast_fft_length(3 * max_lag + 1))
        self.num_bands = config.num_bands
        self.num_planes = config.num_bands * len(config.heights_mm)
        bands_HF = _band_weights(config, setup.sample_rate_hz, self.band_fft_length)
        self.register_buffer("bands_HF", torch.from_numpy(bands_HF), persistent=False)
        fine_per_cell = config.cell_mm * _fine_per_mm(setup)
        self._lags_across_cell = 2 * round(fine_per_cell / 2) + 1  # odd, so that nothing is shifted
        self._num_fine = 2 * max_lag * FINE_PER_SAMPLE + 1
        rows_GR, weights_GR = self._reading(setup, setup.microphones_mm)
        self.register_buffer("rows_GR", rows_GR, persistent=False)
        self.register_buffer("weights_GR", weights_GR, persistent=False)

    def _reading(
        self, setup: RecordingSetup, microphones_mm: tuple[tuple[float, float, float], ...]
    ) -> tuple[Tensor, Tensor]:
        """Which rows of the table of fine correlations make up a cell, (G, 2 P) int32, and their weights."""
        microphones_mm_C3 = torch.tensor(microphones_mm, dtype=torch.float64)
        paths_mm_GP = path_differences_mm(self.grid.cells_mm_G3().double(), microphones_mm_C3)
        position_GP = paths_mm_GP * _fine_per_mm(setup) + self.spectra.max_lag * FINE_PER_SAMPLE
        below_GP = position_GP.floor()
        fraction_GP = (position_GP - below_GP).float()
        first_row_P = self._num_fine * torch.arange(self.spectra.num_pairs)
        row_GP = (below_GP + first_row_P).to(torch.int32)
        return torch.cat((row_GP, row_GP + 1), 1), torch.cat((1 - fraction_GP, fraction_GP), 1)

    def forward(self, audio_BCT: Tensor) -> Tensor:
        """Map.

        Args:
            audio_BCT: (B, C, T) float32, zero in the padding.

        Returns:
            (B, F, Y, X) float32; the images of the lowest band first, one for each height.
        """
        fine_length = self.band_fft_length * FINE_PER_SAMPLE
        number_bytes = 8 if self.config.envelope else 4  # complex or real
        event_bytes = number_bytes * self.spectra.num_pairs * self.num_bands * fine_length
        most = max(1, _BYTES_AT_ONCE // event_bytes)
        parts = torch.split(audio_BCT, min(most, events_at_once(audio_BCT)))
        return torch.cat([self._map(few) for few in parts])

    def _map(self, audio_BCT: Tensor) -> Tensor:
        table = self._banded_correlations(self.spectra.lags(self.spectra(audio_BCT)))
        # A bag of table rows is a cell of all bands and events at once: contiguous reads.
        power_GX = nn.functional.embedding_bag(
            self.rows_GR, table, per_sample_weights=self.weights_GR, mode="sum"
        )
        maps_BFYX = power_GX.T.reshape(len(audio_BCT), self.num_planes, *self.grid.shape)
        maps_BFYX = maps_BFYX - maps_BFYX.mean((2, 3), keepdim=True)
        rms_B111 = maps_BFYX.square().mean((1, 2, 3), keepdim=True).sqrt()
        return maps_BFYX / rms_B111.clamp_min(TINY)

    def _banded_correlations(self, correlation_BPL: Tensor) -> Tensor:
        """Table of fine correlations: a row a pair and lag, (P N, B H)."""
        spectrum_BP1F = torch.fft.rfft(correlation_BPL, n=self.band_fft_length)[:, :, None]
        fine_BPHN = self._fine(spectrum_BP1F * self.bands_HF)[..., : self._num_fine]
        num_columns = len(correlation_BPL) * self.num_bands
        table: Tensor = fine_BPHN.permute(1, 3, 0, 2).reshape(-1, num_columns)
        return table

    def _fine(self, bands_BPHF: Tensor) -> Tensor:
        """Correlations of these spectra, four times upsampled, or their envelopes as cells see them."""
        length = self.band_fft_length * FINE_PER_SAMPLE
        if not self.config.envelope:
            fine_BPHN: Tensor = torch.fft.irfft(bands_BPHF, n=length)
            return fine_BPHN
        # Without its negative frequencies a spectrum is that of the analytic signal.
        envelope_BPHN = torch.fft.ifft(2.0 * bands_BPHF, n=length).abs()
        half = self._lags_across_cell // 2
        around_BIN = nn.functional.pad(envelope_BPHN.flatten(1, 2), (half, half), mode="circular")
        averaged_BIN = nn.functional.avg_pool1d(around_BIN, 2 * half + 1, stride=1)
        averaged_BPHN: Tensor = averaged_BIN.view(envelope_BPHN.shape)
        return averaged_BPHN


def _fine_per_mm(setup: RecordingSetup) -> float:
    return distance_to_delay_s(1.0) * setup.sample_rate_hz * FINE_PER_SAMPLE


def _band_weights(config: MapsConfig, rate_hz: float, fft_length: int) -> np.ndarray:
    """Weight of each frequency in each band, (H, F) float32: one over the band's frequencies, else 0."""
    high_hz = min(config.band_high_hz or math.inf, rate_hz / 2)
    if config.band_low_hz >= high_hz:
        raise ConfigError(
            f"features/maps/band_low_hz is {config.band_low_hz:g}, but must be below {high_hz:g}, the upper "
            "end of the bands or half the sample rate; choose a lower one"
        )
    edges_hz = np.geomspace(config.band_low_hz, high_hz, config.num_bands + 1)
    frequencies_hz_F = np.fft.rfftfreq(fft_length, 1 / rate_hz)
    band_F = np.searchsorted(edges_hz, frequencies_hz_F, side="right") - 1
    is_in_HF = band_F == np.arange(config.num_bands)[:, None]
    counts_H = is_in_HF.sum(1)
    if counts_H.min() == 0:
        raise ConfigError(
            f"features/maps/num_bands is {config.num_bands}, but of so many bands from "
            f"{config.band_low_hz:g} to {high_hz:g} Hz some have no frequency of their own, which are "
            f"{rate_hz / fft_length:.0f} Hz apart; choose fewer"
        )
    weights_HF: np.ndarray = (is_in_HF / counts_H[:, None]).astype(np.float32)
    return weights_HF
