"""Random changes of training events, on the device, decided for each event on its own.

Letters: B batch, C microphones, T samples.
"""

import dataclasses

import torch
from torch import Tensor

from gerbil_tune.config.schema import AugmentationConfig
from gerbil_tune.data.batches import Batch


class Augmenter:
    """Applies what a config asks of the audio to batches; mirroring acts on features, in ``models``.

    Args:
        config: Which changes, how often.
    """

    def __init__(self, config: AugmentationConfig) -> None:
        self.config = config

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return a changed copy of a batch; the same generator state gives the same changes."""
        config, audio_BTC = self.config, batch.audio_BTC
        if config.polarity_prob > 0:
            chosen_B = self._draw(audio_BTC, config.polarity_prob, generator)
            audio_BTC = torch.where(chosen_B[:, None, None], _negated(audio_BTC), audio_BTC)
        if config.noise_prob > 0:
            audio_BTC = self._add_noise(audio_BTC, batch.lengths_B, generator)
        if config.mask_prob > 0:
            audio_BTC = self._mask(audio_BTC, batch.lengths_B, generator)
        return dataclasses.replace(batch, audio_BTC=audio_BTC)

    def _draw(self, audio_BTC: Tensor, probability: float, generator: torch.Generator) -> Tensor:
        return (
            torch.rand(audio_BTC.shape[0], generator=generator, device=generator.device)
            < probability
        ).to(audio_BTC.device)

    def _add_noise(
        self, audio_BTC: Tensor, lengths_B: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Add white noise at a random SNR; the signal's power is its mean over all microphones."""
        low_db, high_db = self.config.noise_snr_db
        chosen_B = self._draw(audio_BTC, self.config.noise_prob, generator)
        uniform_B = torch.rand(audio_BTC.shape[0], generator=generator, device=generator.device)
        snr_db_B = (low_db + (high_db - low_db) * uniform_B).to(audio_BTC.device)
        noise_BTC = torch.randn(audio_BTC.shape, generator=generator, device=generator.device).to(
            audio_BTC.device
        )
        signal_BTC = audio_BTC.float()
        count_B = lengths_B.clamp_min(1) * audio_BTC.shape[2]
        power_B = signal_BTC.square().sum((1, 2)) / count_B
        sd_B = (power_B * 10 ** (-snr_db_B / 10)).sqrt() * chosen_B
        inside_BT = torch.arange(audio_BTC.shape[1], device=lengths_B.device) < lengths_B[:, None]
        noisy_BTC = signal_BTC + noise_BTC * sd_B[:, None, None] * inside_BT[:, :, None]
        if audio_BTC.is_floating_point():
            return noisy_BTC
        limits = torch.iinfo(audio_BTC.dtype)
        return noisy_BTC.round().clamp(limits.min, limits.max).to(audio_BTC.dtype)

    def _mask(self, audio_BTC: Tensor, lengths_B: Tensor, generator: torch.Generator) -> Tensor:
        """Silence one stretch of each chosen event, on all microphones."""
        shortest, longest = self.config.mask_length
        batch_size, num_samples = audio_BTC.shape[:2]
        chosen_B = self._draw(audio_BTC, self.config.mask_prob, generator)
        uniform_2B = torch.rand(2, batch_size, generator=generator, device=generator.device).to(
            lengths_B.device
        )
        length_B = shortest + (uniform_2B[0] * (longest - shortest + 1)).floor()
        start_B = (uniform_2B[1] * (lengths_B - length_B).clamp_min(0)).floor()
        positions_T = torch.arange(num_samples, device=lengths_B.device)
        masked_BT = (positions_T >= start_B[:, None]) & (
            positions_T < (start_B + length_B)[:, None]
        )
        masked_BT &= chosen_B[:, None]
        return audio_BTC.masked_fill(masked_BT[:, :, None], 0)


def _negated(audio: Tensor) -> Tensor:
    """Change the sign; the lowest integer has no opposite and would keep its own, so it gets the highest."""
    if audio.is_floating_point():
        return -audio
    return -audio.clamp_min(-torch.iinfo(audio.dtype).max)
