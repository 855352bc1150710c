"""What the predecessors' networks were shown of an event: its first samples, each crop normalized by itself.

Letters: B batch, C microphones, T samples, P pairs.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from gerbil_tune.errors import ConfigError
from gerbil_tune.geometry import RecordingSetup, microphone_pairs
from gerbil_tune.models.features.features import Features, InputShapes

_SMALLEST_SD = 1e-12  # theirs turned a silent event into NaN


def check_inputs(kind: str, setup: RecordingSetup, inputs: InputShapes) -> None:
    """Refuse other channels over time than the microphones.

    Raises:
        ConfigError: If there are others.
    """
    if inputs.waveform_planes != setup.num_microphones:
        raise ConfigError(
            f"model/kind {kind} takes the raw audio alone, but features/waveform makes "
            f"{inputs.waveform_planes} channels of {setup.num_microphones} microphones; leave "
            "features/waveform as it is"
        )


def first_samples(features: Features, crop_length: int) -> Tensor:
    """The beginning of each event, (B, C, crop_length) float32; shorter events end in zeros."""
    assert features.waveform_BFT is not None
    crop_BCT = features.waveform_BFT[:, :, :crop_length]
    return torch.nn.functional.pad(crop_BCT, (0, crop_length - crop_BCT.shape[2]))


def normalized(crop_BCT: Tensor) -> Tensor:
    """Zero mean and unit variance over all channels and samples together, the zeros at the end included."""
    variance_B11, mean_B11 = torch.var_mean(crop_BCT, dim=(1, 2), keepdim=True)
    return (crop_BCT - mean_B11) / variance_B11.sqrt().clamp_min(_SMALLEST_SD)


def with_correlations(crop_BCT: Tensor) -> Tensor:
    """Gerbilizer's input with COMPUTE_XCORRS: below the channels the correlation of each pair of them.

    Lags are laid along the time axis, zero at T // 2. Channels and correlations are normalized apart, the
    correlations of audio that is not normalized yet.

    Args:
        crop_BCT: (B, C, T) raw audio.

    Returns:
        (B, C + P, T).
    """
    pairs = microphone_pairs(crop_BCT.shape[1])
    correlation_BPT = linear_correlation(*channels_of(pairs, crop_BCT))
    return torch.cat([normalized(crop_BCT), normalized(correlation_BPT)], dim=1)


def channels_of(pairs: Sequence[tuple[int, int]], x_BCT: Tensor) -> tuple[Tensor, Tensor]:
    """The first and the second channel of each pair, (B, P, T) each."""
    first, second = zip(*pairs, strict=True)
    return x_BCT[:, list(first)], x_BCT[:, list(second)]


def linear_correlation(a_BPT: Tensor, b_BPT: Tensor) -> Tensor:
    """Sum over t of a[t + lag] b[t] for the T lags whose zero is at T // 2, (B, P, T)."""
    num_samples = a_BPT.shape[2]
    length = 2 * num_samples
    spectrum = torch.fft.rfft(a_BPT, length) * torch.fft.rfft(b_BPT, length).conj()
    all_lags: Tensor = torch.fft.irfft(spectrum, length)
    return all_lags.roll(num_samples // 2, dims=2)[:, :, :num_samples]
