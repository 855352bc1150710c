"""Random changes of the audio of training events, on the device, decided for each event on its own.

What is chosen, and how strong, is numpy on the host; what is done to the samples is torch on the device, and
to the chosen rows alone.

Letters: B batch, R chosen rows of it, C microphones, T samples.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gerbil_tune.config.augmentation import AugmentationConfig
from gerbil_tune.data.augment.draws import Draw, EventDraws
from gerbil_tune.data.augment.noise import low_frequency_noise, power_law_noise, white_noise
from gerbil_tune.data.batches import Batch
from gerbil_tune.errors import ConfigError

_LEFT_MICROPHONES = 2  # with fewer there is no delay to hear
_Integers = npt.NDArray[np.int64]


@dataclasses.dataclass
class _Copy:
    """A copy of a batch, which is changed in place.

    Attributes:
        epoch: From 0.
        places_B: Places of the events in the training set, on the host.
        lengths_B: Samples of each event, on the host.
        audio_BTC: The audio, on the device.
        mean_BC: Statistics of the whole events, or None; likewise sd_BC.
    """

    epoch: int
    places_B: _Integers
    lengths_B: _Integers
    audio_BTC: Tensor
    mean_BC: Tensor | None
    sd_BC: Tensor | None


class Augmenter:
    """Applies what a config asks of the audio to batches; mirroring acts on features, in ``models``.

    The kinds follow each other: polarity, gain, noise, low-frequency noise, mask, dropout, shift. So what is
    silenced stays silent, and a shift changes nothing of what the others do.

    Args:
        config: Which changes, how often, how strong.
        draws: Random numbers of the training set's events.
        sample_rate_hz: Of the audio.

    Raises:
        ConfigError: If microphones are to be silenced where there are only two.
    """

    def __init__(
        self, config: AugmentationConfig, draws: EventDraws, sample_rate_hz: float
    ) -> None:
        check_dropout(config, draws.num_microphones)
        self.config = config
        self._draws = draws
        self._sample_rate_hz = sample_rate_hz
        self._num_microphones = draws.num_microphones
        self._kinds: tuple[tuple[Draw, float, Callable[[_Copy, _Integers], None]], ...] = (
            (Draw.POLARITY, config.polarity_prob, self._turn_polarity),
            (Draw.GAIN, config.gain_prob, self._change_gains),
            (Draw.NOISE, config.noise_prob, self._add_noise),
            (Draw.LOW_FREQUENCY, config.low_frequency_prob, self._add_low_frequency_noise),
            (Draw.MASK, config.mask_prob, self._mask),
            (Draw.DROPOUT, config.dropout_prob, self._drop_microphones),
        )

    def __call__(self, batch: Batch, epoch: int, on_host: Batch | None = None) -> Batch:
        """Change a batch.

        Args:
            batch: Events of the training set; it is left as it is.
            epoch: From 0.
            on_host: A batch in main memory with the same indices and lengths, which spares waiting for a GPU
                that has ``batch``.

        Returns:
            The batch with changed audio of the same type, lengths that follow a shift, and statistics that
            follow gains, polarity and noise. What becomes of an event does not depend on its batch.
        """
        if not changes_audio(self.config):
            return batch
        source = batch if on_host is None else on_host
        places_B, lengths_B = source.indices_B.cpu().numpy(), source.lengths_B.cpu().numpy()
        shifts_B = self._shifts(epoch, places_B, lengths_B)
        copy = _Copy(
            epoch,
            places_B,
            lengths_B,
            _with_room(batch.audio_BTC, int((lengths_B + shifts_B).max(initial=0))),
            None if batch.mean_BC is None else batch.mean_BC.clone(),
            None if batch.sd_BC is None else batch.sd_BC.clone(),
        )
        for draw, probability, change in self._kinds:
            chosen_B = self._draws.chosen(draw, probability, epoch, places_B)
            rows = np.flatnonzero(chosen_B & (lengths_B > 0))
            if len(rows):
                change(copy, rows)
        _shift(copy, shifts_B)
        return dataclasses.replace(
            batch,
            audio_BTC=copy.audio_BTC,
            lengths_B=batch.lengths_B + torch.from_numpy(shifts_B).to(batch.lengths_B.device),
            mean_BC=copy.mean_BC,
            sd_BC=copy.sd_BC,
        )

    def _turn_polarity(self, copy: _Copy, rows: _Integers) -> None:
        rows_R = torch.from_numpy(rows).to(copy.audio_BTC.device)
        copy.audio_BTC.index_copy_(0, rows_R, _negated(copy.audio_BTC[rows_R]))
        if copy.mean_BC is not None:
            copy.mean_BC[rows_R] *= -1

    def _change_gains(self, copy: _Copy, rows: _Integers) -> None:
        low_db, high_db = self.config.gain_db
        uniform_RC = self._draws.by_microphone(Draw.GAIN_DB, copy.epoch, copy.places_B[rows])
        gains = 10 ** ((low_db + (high_db - low_db) * uniform_RC) / 20)
        rows_R = torch.from_numpy(rows).to(copy.audio_BTC.device)
        gain_RC = torch.from_numpy(gains).to(copy.audio_BTC.device)
        louder_RTC = copy.audio_BTC[rows_R].float() * gain_RC[:, None]
        copy.audio_BTC.index_copy_(0, rows_R, _as_type(louder_RTC, copy.audio_BTC.dtype))
        if copy.mean_BC is not None:
            copy.mean_BC[rows_R] *= gain_RC
        if copy.sd_BC is not None:
            copy.sd_BC[rows_R] *= gain_RC

    def _add_noise(self, copy: _Copy, rows: _Integers) -> None:
        config, draws = self.config, self._draws
        event = (copy.epoch, copy.places_B[rows])
        snr_db_R = draws.between(Draw.NOISE_SNR, config.noise_snr_db, *event)
        exponent_R = draws.between(Draw.NOISE_EXPONENT, config.noise_exponent, *event)
        seeds = draws.seeds(Draw.NOISE_SEED, *event)
        generator = torch.Generator(copy.audio_BTC.device)
        for row, snr_db, exponent, seed in zip(
            rows.tolist(), snr_db_R.tolist(), exponent_R.tolist(), seeds, strict=True
        ):
            generator.manual_seed(seed)
            shape = (self._num_microphones, int(copy.lengths_B[row]))
            noise_CT = (
                power_law_noise(shape, exponent, generator)
                if exponent
                else white_noise(shape, generator)
            )
            _add_at_snr(copy, row, noise_CT, snr_db)

    def _add_low_frequency_noise(self, copy: _Copy, rows: _Integers) -> None:
        config, draws = self.config, self._draws
        event = (copy.epoch, copy.places_B[rows])
        snr_db_R = draws.between(Draw.LOW_FREQUENCY_SNR, config.low_frequency_snr_db, *event)
        seeds = draws.seeds(Draw.LOW_FREQUENCY_SEED, *event)
        generator = torch.Generator(copy.audio_BTC.device)
        for row, snr_db, seed in zip(rows.tolist(), snr_db_R.tolist(), seeds, strict=True):
            generator.manual_seed(seed)
            shape = (self._num_microphones, int(copy.lengths_B[row]))
            cutoff_hz = config.low_frequency_cutoff_hz
            noise_CT = low_frequency_noise(shape, cutoff_hz, self._sample_rate_hz, generator)
            _add_at_snr(copy, row, noise_CT, snr_db)

    def _mask(self, copy: _Copy, rows: _Integers) -> None:
        """Silence one stretch of each chosen event, on all microphones."""
        event = (copy.epoch, copy.places_B[rows])
        shortest, longest = self.config.mask_length
        lengths = copy.lengths_B[rows]
        masked = np.floor(self._draws.between(Draw.MASK_LENGTH, (shortest, longest + 1), *event))
        masked = np.minimum(masked, lengths // 2).astype(np.int64)
        starts = self._draws.uniform(Draw.MASK_START, *event) * (lengths - masked + 1)
        for row, first, number in zip(
            rows.tolist(), starts.astype(np.int64).tolist(), masked.tolist(), strict=True
        ):
            copy.audio_BTC[row, first : first + number] = 0

    def _drop_microphones(self, copy: _Copy, rows: _Integers) -> None:
        """Silence one or more microphones of each chosen event, any number and any set alike."""
        event = (copy.epoch, copy.places_B[rows])
        most = min(self.config.dropout_microphones, self._num_microphones - _LEFT_MICROPHONES)
        number_R = 1 + np.floor(self._draws.uniform(Draw.DROPOUT_NUMBER, *event) * most)
        order_RC = self._draws.by_microphone(Draw.DROPOUT_ORDER, *event).argsort(axis=1)
        dropped, ranks = np.nonzero(np.arange(self._num_microphones) < number_R[:, None])
        device = copy.audio_BTC.device
        dropped_rows = torch.from_numpy(rows[dropped]).to(device)
        microphones = torch.from_numpy(order_RC[dropped, ranks]).to(device)
        copy.audio_BTC.transpose(1, 2)[dropped_rows, microphones] = 0

    def _shifts(self, epoch: int, places_B: _Integers, lengths_B: _Integers) -> _Integers:
        """Samples by which each event is moved; of one that is moved forward, half stays at least."""
        if self.config.shift_prob == 0:
            return np.zeros_like(lengths_B)
        chosen_B = self._draws.chosen(Draw.SHIFT, self.config.shift_prob, epoch, places_B)
        longest = self.config.shift_ms / 1000 * self._sample_rate_hz
        drawn_B = self._draws.between(Draw.SHIFT_LENGTH, (-longest, longest), epoch, places_B)
        shifts_B = np.maximum(np.rint(drawn_B).astype(np.int64), -(lengths_B // 2))
        return np.where(chosen_B & (lengths_B > 0), shifts_B, 0)


def changes_audio(config: AugmentationConfig) -> bool:
    """Whether a config asks for anything but mirroring."""
    return any(
        value > 0 for name, value in config if name.endswith("_prob") and name != "mirror_prob"
    )


def check_dropout(config: AugmentationConfig, num_microphones: int) -> None:
    """Refuse to silence microphones where only two are there.

    Raises:
        ConfigError: With what to do.
    """
    if config.dropout_prob > 0 and num_microphones <= _LEFT_MICROPHONES:
        raise ConfigError(
            f"augmentation/dropout_prob is {config.dropout_prob:g}, but of {num_microphones} microphones "
            "none can be spared; use --set augmentation/dropout_prob=0.0"
        )


def _with_room(audio_BTC: Tensor, num_samples: int) -> Tensor:
    """Copy a batch's audio, padded to a number of samples where it has fewer."""
    batch, present, microphones = audio_BTC.shape
    if num_samples <= present:
        return audio_BTC.clone()
    longer_BTC = audio_BTC.new_empty(batch, num_samples, microphones)
    longer_BTC[:, :present] = audio_BTC
    longer_BTC[:, present:] = 0
    return longer_BTC


def _add_at_snr(copy: _Copy, row: int, noise_CT: Tensor, snr_db: float) -> None:
    """Add noise of variance 1, scaled to a ratio below the power of the event, the mean of all microphones.

    The power is counted from each microphone's mean: a recorder's offset is no sound.
    """
    event_TC = copy.audio_BTC[row, : noise_CT.shape[1]]
    signal_TC = event_TC.float()
    power = (signal_TC - signal_TC.mean(0)).square_().mean()
    sd = power.sqrt() * 10 ** (-snr_db / 20)
    noise_TC = noise_CT.mul_(sd).T
    if signal_TC is event_TC:
        event_TC += noise_TC
    else:
        event_TC.copy_(_as_type(noise_TC.add_(signal_TC), event_TC.dtype))
    if copy.sd_BC is not None:
        copy.sd_BC[row] = torch.hypot(copy.sd_BC[row], sd)


def _shift(copy: _Copy, shifts_B: _Integers) -> None:
    """Move events within their rows, all microphones together; zeros come in at either end."""
    for row in np.flatnonzero(shifts_B).tolist():
        shift, length = int(shifts_B[row]), int(copy.lengths_B[row])
        event_TC = copy.audio_BTC[row]
        kept_TC = event_TC[max(0, -shift) : length].clone()
        first = max(0, shift)
        event_TC[:first] = 0
        event_TC[first : first + len(kept_TC)] = kept_TC
        event_TC[first + len(kept_TC) : length] = 0


def _negated(audio: Tensor) -> Tensor:
    """Change the sign; the lowest integer has no opposite and would keep its own, so it gets the highest."""
    if audio.is_floating_point():
        return -audio
    return -audio.clamp_min(-torch.iinfo(audio.dtype).max)


def _as_type(audio: Tensor, dtype: torch.dtype) -> Tensor:
    """Return floating-point audio as another type, rounded and clipped where that has integers."""
    if dtype.is_floating_point:
        return audio.to(dtype)
    limits = torch.iinfo(dtype)
    return audio.round().clamp(limits.min, limits.max).to(dtype)
