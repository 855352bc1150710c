"""What a network must beat: the best constant, and classical beamforming.

Letters: N events, B events of one batch, C microphones, T samples, W windows, F frequencies, P pairs of
microphones, L lags, G grid points, R refined candidates, K keypoints, D axes.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from gerbil_tune.errors import DatasetError
from gerbil_tune.geometry import RecordingSetup, longest_path_mm, microphone_pairs
from gerbil_tune.models.features.maps import path_differences_mm
from gerbil_tune.units import distance_to_delay_s

_LAGS_PER_SAMPLE = 8
"""Upsampling of the correlation: half a step is then 0.2 radian at the Nyquist frequency."""

_COHERENT_WHITENING = 0.85
_CANDIDATES = 32
_REFINEMENTS = ((1.0, 9), (0.125, 9))
"""Reach in grid steps and points a side of the squares that are searched in turn."""
_MIN_WINDOW_SAMPLES = 512
_WINDOWS_AT_ONCE = 256
_BATCH_BYTES = 64 * 2**20


class Recordings(Protocol):
    """What the beamformer asks of an ``EventSet``."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Samples of each event, (N,)."""

    def read(self, i: int, /) -> NDArray[Any]:
        """Audio of one event, (T, C)."""


def chance_predictions(train_locations_mm_NKD: NDArray[Any], count: int) -> NDArray[np.float32]:
    """Predict the mean training location for every event: the best constant in squared error.

    Args:
        train_locations_mm_NKD: Locations of the training events, (N, K, D), mm.
        count: Events to predict.

    Returns:
        (count, K, D) float32, mm.

    Raises:
        DatasetError: If there is no training location.
    """
    if len(train_locations_mm_NKD) == 0:
        raise DatasetError(
            "the chance baseline is the mean training location, but there is no training event; "
            "give a data set with locations"
        )
    mean_KD = np.asarray(train_locations_mm_NKD, dtype=np.float64).mean(axis=0)
    return np.repeat(mean_KD[None].astype(np.float32), count, axis=0)


def repeat_for_keypoints(
    positions_mm_N12: NDArray[Any], num_keypoints: int, source_height_mm: float | None = None
) -> NDArray[np.float32]:
    """Give one position an event the shape of predictions of several keypoints, perhaps in 3-D.

    Args:
        positions_mm_N12: Positions from ``srp_phat``, (N, 1, 2), mm.
        num_keypoints: K.
        source_height_mm: Height to append as third axis, or None for two axes.

    Returns:
        (N, K, 2) or (N, K, 3) float32, mm; every keypoint the same.
    """
    positions = np.repeat(np.asarray(positions_mm_N12, dtype=np.float32), num_keypoints, axis=1)
    if source_height_mm is None:
        return positions
    heights = np.full_like(positions[..., :1], source_height_mm)
    return np.concatenate([positions, heights], axis=-1)


def srp_phat(
    events: Recordings,
    setup: RecordingSetup,
    source_height_mm: float,
    *,
    grid_step_mm: float = 2.0,
    band_low_hz: float = 500.0,
    band_high_hz: float | None = None,
    coherence_weighted: bool = False,
    device: str = "cpu",
    progress: Callable[[int], None] | None = None,
) -> NDArray[np.float32]:
    """Locate each event by steered response power with the phase transform (SRP-PHAT).

    For each point of a grid over the arena, the cross-correlations of all pairs of microphones are
    summed at the lags that a near-field source there would cause (DiBiase 2000); the best points are
    refined to a fraction of the grid's step. Cross-spectra of Hann windows over the whole event are
    averaged, then whitened (PHAT: Knapp and Carter 1976).

    With ``coherence_weighted`` whitening is to the power 0.85 and each frequency counts with the square of
    its magnitude-squared coherence. That is far better on calls that leave most frequencies silent, where
    plain PHAT lets the noise outvote the call.

    Args:
        events: The events, whole.
        setup: The recording site; its microphone positions must be known.
        source_height_mm: Height of the animal's mouth above the floor.
        grid_step_mm: Distance of the points of the grid.
        band_low_hz: Lowest frequency used.
        band_high_hz: Highest frequency used; None: the Nyquist frequency.
        coherence_weighted: Trust frequencies by how coherent the microphones are in them.
        device: Torch device.
        progress: Called with the number of events done since the last call.

    Returns:
        (N, 1, 2) float32, mm from the arena centre. A silent event is put at the centre.

    Raises:
        DatasetError: If the microphone positions are unknown, or an event has another number of channels.
    """
    beamformer = _Beamformer(
        setup,
        source_height_mm,
        grid_step_mm,
        (band_low_hz, math.inf if band_high_hz is None else band_high_hz),
        coherence_weighted,
        device,
    )
    lengths_N = np.asarray(events.lengths)
    positions_N2 = np.zeros((len(lengths_N), 2), dtype=np.float32)
    with torch.inference_mode():
        for rows in _batches_of_similar_length(lengths_N, beamformer.events_at_once):
            audio_BTC = _padded_audio(events, rows, setup.num_microphones)
            positions_N2[rows] = beamformer.locate(audio_BTC.to(device)).cpu().numpy()
            if progress is not None:
                progress(len(rows))
    return positions_N2[:, None]


def _batches_of_similar_length(lengths_N: NDArray[Any], size: int) -> Iterator[NDArray[np.intp]]:
    order = np.argsort(lengths_N, kind="stable")
    for start in range(0, len(order), size):
        yield order[start : start + size]


def _padded_audio(events: Recordings, rows: NDArray[np.intp], num_microphones: int) -> torch.Tensor:
    """Read events and scale each to unit peak, (B, T, C) float32, zero padded at the end."""
    audio = [np.asarray(events.read(int(row)), dtype=np.float32) for row in rows]
    padded_BTC = np.zeros(
        (len(rows), max(len(event) for event in audio), num_microphones), np.float32
    )
    for row, event, target_TC in zip(rows, audio, padded_BTC, strict=True):
        if event.shape[1] != num_microphones:
            raise DatasetError(
                f"event {row} has {event.shape[1]} channels, but the recording setup has "
                f"{num_microphones} microphones; they must agree"
            )
        target_TC[: len(event)] = event / max(float(np.abs(event).max(initial=0.0)), 1e-30)
    return torch.from_numpy(padded_BTC)


@dataclass(frozen=True, slots=True)
class _Grid:
    """Candidate positions (G, 2) in mm and where their lags lie in the table of correlations."""

    points_mm_G2: torch.Tensor
    rows_GP: torch.Tensor


class _Beamformer:
    """The tables of one recording site, and the search over its arena."""

    def __init__(
        self,
        setup: RecordingSetup,
        source_height_mm: float,
        grid_step_mm: float,
        band_hz: tuple[float, float],
        coherence_weighted: bool,
        device: str,
    ) -> None:
        if setup.microphones_mm is None or setup.num_microphones < 2:
            raise DatasetError(
                "SRP-PHAT needs the positions of at least two microphones, but the recording setup has "
                f"{setup.num_microphones} microphones at {setup.microphones_mm}; "
                "write the attribute microphones_mm (C, 3) to the data file"
            )
        self.microphones_mm_C3 = torch.tensor(
            setup.microphones_mm, dtype=torch.float32, device=device
        )
        pairs = torch.tensor(microphone_pairs(setup.num_microphones), device=device)
        self.first_P, self.second_P = pairs[:, 0], pairs[:, 1]
        self.source_height_mm = source_height_mm
        self.grid_step_mm = grid_step_mm
        self.lags_per_mm = distance_to_delay_s(1.0) * setup.sample_rate_hz * _LAGS_PER_SAMPLE
        self.max_lag = math.ceil(longest_path_mm(setup) * self.lags_per_mm) + 2 * _LAGS_PER_SAMPLE
        longest_samples = self.max_lag / _LAGS_PER_SAMPLE
        self.window_length = max(
            _MIN_WINDOW_SAMPLES, 2 ** math.ceil(math.log2(4 * longest_samples))
        )
        self.window_W = torch.hann_window(self.window_length, device=device)
        frequencies_hz_F = torch.fft.rfftfreq(2 * self.window_length, 1.0 / setup.sample_rate_hz)
        self.coherence_weighted = coherence_weighted
        band_F = (frequencies_hz_F >= band_hz[0]) & (frequencies_hz_F <= band_hz[1])
        self.band_F = band_F.to(device)
        self.grid = self._build_grid(setup.arena_mm)
        spectrum_bytes = 8 * self.window_length * (_LAGS_PER_SAMPLE + 4) * len(self.first_P)
        self.events_at_once = max(1, min(32, _BATCH_BYTES // spectrum_bytes))

    def _build_grid(self, arena_mm: tuple[float, ...]) -> _Grid:
        axes = [
            torch.linspace(-width / 2, width / 2, max(2, math.ceil(width / self.grid_step_mm) + 1))
            for width in arena_mm[:2]
        ]
        points_mm_G2 = torch.cartesian_prod(*axes).to(self.microphones_mm_C3)
        num_lags = 2 * self.max_lag + 1
        first_row_P = num_lags * torch.arange(len(self.first_P), device=points_mm_G2.device)
        rows_GP = self._lag_positions(points_mm_G2).round().long() + first_row_P
        return _Grid(points_mm_G2, rows_GP)

    def _lag_positions(self, points_mm: torch.Tensor) -> torch.Tensor:
        """Where the lag of each pair lies on the lag axis for sources at (..., 2) mm: (..., P)."""
        heights_mm = torch.full_like(points_mm[..., :1], self.source_height_mm)
        sources_mm = torch.cat([points_mm, heights_mm], dim=-1)
        paths_mm = path_differences_mm(sources_mm, self.microphones_mm_C3)
        positions: torch.Tensor = paths_mm * self.lags_per_mm + self.max_lag
        return positions

    def locate(self, audio_BTC: torch.Tensor) -> torch.Tensor:
        """Positions (B, 2) in mm."""
        correlation_BPL = self._correlate(audio_BTC)
        num_events, num_pairs, num_lags = correlation_BPL.shape
        table = correlation_BPL.permute(1, 2, 0).reshape(num_pairs * num_lags, num_events)
        # A bag of table rows is a whole batch of sums of correlations: the map costs one pass over memory.
        power_GB = torch.nn.functional.embedding_bag(self.grid.rows_GP, table, mode="sum")
        count = min(_CANDIDATES, len(power_GB))
        candidates_BR2 = self.grid.points_mm_G2[power_GB.topk(count, dim=0).indices.T]
        lag_first_BLP = correlation_BPL.transpose(1, 2).contiguous()
        for reach_mm, num_points in _REFINEMENTS:
            reach_mm *= self.grid_step_mm
            candidates_BR2 = self._refine(lag_first_BLP, candidates_BR2, reach_mm, num_points)
        silent_B = audio_BTC.abs().amax(dim=(1, 2)) == 0
        return torch.where(silent_B[:, None], 0.0, candidates_BR2[:, 0])

    def _correlate(self, audio_BTC: torch.Tensor) -> torch.Tensor:
        """Whitened cross-correlations (B, P, L), lag 0 in the middle."""
        auto_BCF, cross_BPF = self._averaged_spectra(audio_BTC)
        magnitude_BPF = cross_BPF.abs()
        floor = torch.finfo(magnitude_BPF.dtype).tiny
        if self.coherence_weighted:
            energy_BPF = auto_BCF[:, self.first_P] * auto_BCF[:, self.second_P]
            coherence_BPF = magnitude_BPF.square() / (energy_BPF + floor)
            whitened_BPF = (magnitude_BPF + floor).pow(-_COHERENT_WHITENING)
            weight_BPF = coherence_BPF.square() * whitened_BPF * self.band_F
        else:
            weight_BPF = self.band_F / (magnitude_BPF + floor)
        fft_length = 2 * self.window_length * _LAGS_PER_SAMPLE
        circular = torch.fft.irfft(cross_BPF * weight_BPF, fft_length)
        return torch.cat(
            [circular[..., -self.max_lag :], circular[..., : self.max_lag + 1]], dim=-1
        )

    def _averaged_spectra(self, audio_BTC: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Sums over windows of the power spectra (B, C, F) and of the cross-spectra (B, P, F)."""
        length, hop = self.window_length, self.window_length // 2
        # All windows that touch audio, so that the padding of a batch changes nothing.
        num_windows = max(1, math.ceil(audio_BTC.shape[1] / hop))
        missing = (num_windows - 1) * hop + length - audio_BTC.shape[1]
        audio_BCT = torch.nn.functional.pad(audio_BTC.transpose(1, 2), (0, missing))
        windows_BCWT = audio_BCT.unfold(2, length, hop)
        auto_BCF = cross_BPF = torch.zeros((), device=audio_BTC.device)
        for part_BCWT in torch.split(windows_BCWT, _WINDOWS_AT_ONCE, dim=2):
            # Padding to twice the window makes the correlation linear instead of circular.
            spectra_BCWF = torch.fft.rfft(part_BCWT * self.window_W, 2 * length)
            auto_BCF = auto_BCF + (spectra_BCWF.real.square() + spectra_BCWF.imag.square()).sum(2)
            pairs = zip(self.first_P.tolist(), self.second_P.tolist(), strict=True)
            cross = [(spectra_BCWF[:, i] * spectra_BCWF[:, j].conj()).sum(1) for i, j in pairs]
            cross_BPF = cross_BPF + torch.stack(cross, dim=1)
        return auto_BCF, cross_BPF

    def _refine(
        self,
        correlation_BLP: torch.Tensor,
        candidates_BR2: torch.Tensor,
        reach_mm: float,
        num_points: int,
    ) -> torch.Tensor:
        """The best point (B, 1, 2) of a square of points around each candidate, correlations interpolated."""
        offsets = torch.linspace(-reach_mm, reach_mm, num_points, device=candidates_BR2.device)
        points_BR2 = (candidates_BR2[:, :, None] + torch.cartesian_prod(offsets, offsets)).flatten(
            1, 2
        )
        position_BRP = self._lag_positions(points_BR2).clamp(0, correlation_BLP.shape[1] - 1.001)
        below_BRP = position_BRP.floor()
        fraction_BRP = position_BRP - below_BRP
        row_BRP = below_BRP.long()
        low_BRP = correlation_BLP.gather(1, row_BRP)
        high_BRP = correlation_BLP.gather(1, row_BRP + 1)
        power_BR = torch.lerp(low_BRP, high_BRP, fraction_BRP).sum(-1)
        best_B = power_BR.argmax(dim=1)
        return points_BR2[torch.arange(len(points_BR2), device=points_BR2.device), best_B][:, None]
