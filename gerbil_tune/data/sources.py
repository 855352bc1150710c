"""Sounds that impulse responses are convolved with, so that a set of them becomes a set of recordings.

Each event of such a set is an impulse response. Which sound it gets, and where the result is cropped, depends
on seed, epoch and the event's place in its set alone: not on worker, batch or order.

Legend: B events of a batch, C microphones, T samples, F frequencies.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gerbil_tune.config.schema import DataConfig
from gerbil_tune.data.batches import Batch
from gerbil_tune.data.events import EventSet
from gerbil_tune.errors import ConfigError
from gerbil_tune.mixing import mixed_bits

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

_SOUND_STREAM = 0
_CROP_STREAM = 1
_CHUNK_VALUES = 2**23
"""Values of the padded audio that are transformed at once; memory is about four times that, 130 MB."""


class SourceSounds:
    """Sounds of one sample rate, kept in memory, and the convolution with them.

    Attributes:
        lengths: int64 (number of sounds,), samples of each.
    """

    def __init__(self, sounds: Sequence[FloatArray]) -> None:
        """Take sounds as they are.

        Args:
            sounds: One or more, each float32 (T,) of one sample or more.
        """
        self.lengths: IntArray = np.array([len(sound) for sound in sounds], dtype=np.int64)
        self._starts: IntArray = np.cumsum(self.lengths) - self.lengths
        self._samples = torch.from_numpy(np.concatenate(sounds).astype(np.float32))

    @classmethod
    def open(cls, folder: Path, sample_rate_hz: float) -> "SourceSounds":
        """Read the wav files of a folder, not of its subfolders, in the order of their names.

        They are read as ``simulate --wavs`` does: PCM or floating point, of several channels the loudest,
        resampled where their rate is another, without offset, faded over half a millisecond at both ends.
        Each is then scaled to a variance of 1: the recording levels of the wavs say nothing of the room.

        Args:
            folder: One sound a file, 16 samples to 10 s each.
            sample_rate_hz: Of the impulse responses.

        Raises:
            ConfigError: If the folder has no wav file, or one of them is broken, silent, too short or too
                long.
        """
        from gerbil_tune.data.simulate.wavs import find_wavs, read_wav

        try:
            found = find_wavs(Path(folder).expanduser(), sample_rate_hz)
            return cls([_zscore(read_wav(path, sample_rate_hz)) for path in found.paths])
        except ConfigError as error:
            raise ConfigError(f"data/source_folder: {error}") from None

    def __len__(self) -> int:
        return len(self.lengths)

    def choose(self, places_B: npt.ArrayLike, *, seed: int, epoch: int | None) -> IntArray:
        """Which sound each event gets, int64 (B,).

        Args:
            places_B: Places of the events in their set.
            seed: Any integer.
            epoch: From 0, each with choices of its own; None: the one choice of evaluation.
        """
        fractions = _draw(np.asarray(places_B), seed, epoch, _SOUND_STREAM)
        return (fractions * len(self)).astype(np.int64)

    @torch.no_grad()
    def render(
        self, batch: Batch, *, seed: int, epoch: int | None, max_samples: int | None = None
    ) -> Batch:
        """Convolve each impulse response of a batch with a sound, on the batch's device.

        Args:
            batch: Whole impulse responses, not crops, padded with zeros.
            seed: Of sounds and crops.
            epoch: From 0 in training; None in evaluation, where an event has one sound for ever.
            max_samples: Samples of a result that are kept at most: in training a random stretch, in
                evaluation the middle. None: all.

        Returns:
            The batch with float32 audio (B, T, C) in the unit of the impulse responses. Before the crop an
            event has as many samples as its impulse response and its sound together, less one. Where the
            batch carries statistics, they are those of the whole results.
        """
        places_B = batch.indices_B.cpu().numpy()
        chosen_B = self.choose(places_B, seed=seed, epoch=epoch)
        responses_B = batch.lengths_B.cpu().numpy()
        whole_B = np.where(responses_B > 0, responses_B + self.lengths[chosen_B] - 1, 0)
        starts_B, kept_B = _place_crops(whole_B, max_samples, places_B, seed, epoch)
        shape = (len(places_B), max(int(kept_B.max()), 1), batch.audio_BTC.shape[2])
        audio_BTC = torch.zeros(shape, device=batch.audio_BTC.device)
        statistics_B2C = torch.zeros(shape[0], 2, shape[2], device=audio_BTC.device)
        for row, result_CT in self._convolve(batch.audio_BTC, whole_B, chosen_B):
            start, kept = int(starts_B[row]), int(kept_B[row])
            audio_BTC[row, :kept] = result_CT[:, start : start + kept].T
            if batch.mean_BC is not None:
                statistics_B2C[row] = _statistics(result_CT)
        return dataclasses.replace(
            batch,
            audio_BTC=audio_BTC,
            lengths_B=torch.from_numpy(kept_B).to(batch.lengths_B.device),
            mean_BC=None if batch.mean_BC is None else statistics_B2C[:, 0],
            sd_BC=None if batch.mean_BC is None else statistics_B2C[:, 1],
        )

    def render_events(
        self, events: EventSet, seed: int, places: IntArray | None = None
    ) -> Iterator[tuple[int, FloatArray]]:
        """Convolve a set one event after another with the sounds of evaluation, to write it to a file.

        Args:
            events: Impulse responses.
            seed: Of the choice of sounds; the same as in ``render`` gives the same audio.
            places: int64 (N,), places of the events in the set that they are a part of; None: they are the
                whole set.

        Yields:
            Place of the event in the whole set and its whole audio, float32 (T, C).
        """
        whole = np.arange(len(events)) if places is None else places
        for i, place in enumerate(whole.tolist()):
            response_TC = torch.from_numpy(np.array(events.read(i), dtype=np.float32))
            batch = Batch(
                response_TC[None], torch.tensor([len(response_TC)]), None, torch.tensor([place])
            )
            rendered = self.render(batch, seed=seed, epoch=None)
            yield place, rendered.audio_BTC[0, : int(rendered.lengths_B[0])].numpy()

    def _convolve(
        self, audio_BTC: Tensor, whole_B: IntArray, chosen_B: IntArray
    ) -> Iterator[tuple[int, Tensor]]:
        """Rows of the batch, in any order, and their whole convolutions (C, T).

        Rows share a transform only where their own lengths ask for its size, so that what an event becomes
        does not depend on its batch.
        """
        sizes_B = np.array([_transform_size(whole) for whole in whole_B.tolist()])
        for size in np.unique(sizes_B[whole_B > 0]).tolist():
            rows = np.flatnonzero((sizes_B == size) & (whole_B > 0))
            step = max(1, _CHUNK_VALUES // (size * audio_BTC.shape[2]))
            for first in range(0, len(rows), step):
                part = rows[first : first + step]
                # Padding beyond the transform is nothing but zeros.
                response_BTC = audio_BTC[torch.from_numpy(part).to(audio_BTC.device), :size]
                spectrum_BCF = torch.fft.rfft(response_BTC.float().transpose(1, 2), n=size)
                sound_BT = self._gather(chosen_B[part], audio_BTC.device)
                spectrum_BCF *= torch.fft.rfft(sound_BT, n=size)[:, None]
                result_BCT = torch.fft.irfft(spectrum_BCF, n=size)
                for row, result_CT in zip(part.tolist(), result_BCT, strict=True):
                    yield row, result_CT[:, : int(whole_B[row])]

    def _gather(self, chosen_B: IntArray, device: torch.device) -> Tensor:
        """Some sounds, padded with zeros to the longest, float32 (B, T)."""
        if self._samples.device != device:
            self._samples = self._samples.to(device)
        longest = int(self.lengths[chosen_B].max())
        offsets_T = torch.arange(longest, device=device)
        starts_B = torch.from_numpy(self._starts[chosen_B]).to(device)
        lengths_B = torch.from_numpy(self.lengths[chosen_B]).to(device)
        places_BT = (starts_B[:, None] + offsets_T).clamp_max(len(self._samples) - 1)
        inside_BT = offsets_T < lengths_B[:, None]
        return torch.where(inside_BT, self._samples[places_BT], 0.0)


def find_source_folder(events: EventSet, config: DataConfig) -> Path | None:
    """Folder of the sounds that a set needs: None for recordings, which need none.

    Raises:
        ConfigError: If the set holds impulse responses and the config names no folder.
    """
    if not events.is_impulse_response:
        return None
    if config.source_folder is None:
        raise ConfigError(
            f"{events.files[0].path}: holds impulse responses; name the folder of the wav files that they "
            "are to be convolved with: --set data/source_folder=WAVS"
        )
    return Path(config.source_folder)


def open_sounds(events: EventSet, config: DataConfig, sample_rate_hz: float) -> SourceSounds | None:
    """Read the sounds that a set needs: None for recordings.

    Raises:
        ConfigError: If they are not named or cannot be read.
    """
    folder = find_source_folder(events, config)
    return None if folder is None else _open_once(folder.expanduser().absolute(), sample_rate_hz)


@functools.lru_cache(maxsize=1)
def _open_once(folder: Path, sample_rate_hz: float) -> SourceSounds:
    # The trials of a study that share a process, and training and validation, share the sounds too.
    return SourceSounds.open(folder, sample_rate_hz)


def _zscore(sound: FloatArray) -> FloatArray:
    values = sound.astype(np.float64)
    return np.asarray((values - values.mean()) / values.std(), dtype=np.float32)


def _place_crops(
    whole_B: IntArray, max_samples: int | None, places_B: IntArray, seed: int, epoch: int | None
) -> tuple[IntArray, IntArray]:
    """First sample and length of what is kept of each result, int64 (B,) each."""
    kept_B = whole_B if max_samples is None else np.minimum(whole_B, max_samples)
    if epoch is None:
        return (whole_B - kept_B) // 2, kept_B
    fractions_B = _draw(places_B, seed, epoch, _CROP_STREAM)
    return (fractions_B * (whole_B - kept_B + 1)).astype(np.int64), kept_B


def _transform_size(num_samples: int) -> int:
    """Smallest power of two, or three halves of one, that is not less."""
    power = 1 << max(num_samples - 1, 1).bit_length()
    return power * 3 // 4 if num_samples <= power * 3 // 4 else power


def _statistics(audio_CT: Tensor) -> Tensor:
    """Mean and standard deviation of each channel, (2, C)."""
    sd_C, mean_C = torch.std_mean(audio_CT, dim=1, correction=0)
    return torch.stack([mean_C, sd_C])


def _draw(
    places_B: npt.NDArray[np.integer], seed: int, epoch: int | None, stream: int
) -> npt.NDArray[np.float64]:
    """One number in [0, 1) for each place, a function of the arguments alone."""
    word = 0 if epoch is None else epoch + 1
    bits = mixed_bits(places_B, seed, word, stream)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
