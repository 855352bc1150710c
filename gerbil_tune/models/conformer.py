"""conformer: self-attention and convolution in turn.

Letters: B batch, C channels, T samples or frames, H hidden (the width), N heads, E numbers of a head.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from gerbil_tune.config.architectures import ConformerConfig
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.architecture import OutputShape
from gerbil_tune.models.conv import ChannelNorm, SameConv1d, masked_mean
from gerbil_tune.models.features.features import InputShapes
from gerbil_tune.models.regularization import StochasticDepth, depth_probabilities
from gerbil_tune.models.scaling import time_mask
from gerbil_tune.models.windows import TemporalArchitecture

_MOST_FRAMES_PER_RADIAN = 10_000.0  # as in RoFormer


class Frames(NamedTuple):
    """What all layers need to know of the frames of a batch.

    Attributes:
        mask_B1T: 1 inside each event, 0 in its padding.
        keys_B11T: True where attention may look.
        cosine_TE: Of the angle by which each frame turns each pair of numbers of a head.
        sine_TE: Its sine.
    """

    mask_B1T: Tensor
    keys_B11T: Tensor
    cosine_TE: Tensor
    sine_TE: Tensor


def make_frames(mask_B1T: Tensor, numbers_per_head: int) -> Frames:
    """Describe the frames that a mask admits, for heads of so many numbers."""
    keys_B11T = mask_B1T.bool()[:, None]
    # A softmax over no key at all would be NaN; the first frame of an empty event is zero.
    keys_B11T[..., 0] = True
    pairs = numbers_per_head // 2
    pair_E = torch.arange(pairs, device=mask_B1T.device)
    rate_E = _MOST_FRAMES_PER_RADIAN ** (-pair_E / max(pairs, 1))
    frame_T = torch.arange(mask_B1T.shape[2], device=mask_B1T.device)
    angle_TE = frame_T[:, None] * rate_E
    return Frames(mask_B1T, keys_B11T, angle_TE.cos(), angle_TE.sin())


def rotated(x_BNTE: Tensor, frames: Frames) -> Tensor:
    """Turn pairs of numbers by angles in proportion to time, so that products know the distance in time.

    Rotary position embedding (Su et al. 2021, arXiv:2104.09864), number i paired with i + E // 2; an odd last
    number stays.
    """
    pairs = frames.cosine_TE.shape[1]
    first, second = x_BNTE[..., :pairs], x_BNTE[..., pairs : 2 * pairs]
    cosine, sine = frames.cosine_TE, frames.sine_TE
    turned = (first * cosine - second * sine, first * sine + second * cosine)
    return torch.cat((*turned, x_BNTE[..., 2 * pairs :]), dim=3)


class RotaryAttention(nn.Module):
    """Self-attention of several heads among the frames of an event, by content and distance in time."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.project_in = nn.Linear(width, 3 * width, bias=False)
        self.project_out = nn.Linear(width, width)

    def forward(self, x_BTH: Tensor, frames: Frames) -> Tensor:
        """Return (B, T, H); in the padding it may be anything."""
        by_head = self.project_in(x_BTH).unflatten(2, (3, self.num_heads, -1))
        query_BNTE, key_BNTE, value_BNTE = by_head.permute(2, 0, 3, 1, 4)
        mixed_BNTE = nn.functional.scaled_dot_product_attention(
            rotated(query_BNTE, frames),
            rotated(key_BNTE, frames),
            value_BNTE,
            attn_mask=frames.keys_B11T,
        )
        mixed_BTH: Tensor = self.project_out(mixed_BNTE.transpose(1, 2).flatten(2))
        return mixed_BTH


class ConvolutionModule(nn.Module):
    """A gated linear unit, a depthwise convolution over time, and a projection.

    The paper's batch norm is a norm over channels here, which padding and the other events do not change.
    """

    def __init__(self, width: int, kernel_size: int) -> None:
        super().__init__()
        self.expand = nn.Linear(width, 2 * width)
        self.depthwise = nn.Conv1d(
            width, width, kernel_size, padding=kernel_size // 2, groups=width
        )
        self.norm = ChannelNorm(width)
        self.contract = nn.Linear(width, width)

    def forward(self, x_BTH: Tensor, frames: Frames) -> Tensor:
        """Return (B, T, H); in the padding it may be anything."""
        gated_BTH = nn.functional.glu(self.expand(x_BTH), dim=2)
        inside_BHT = gated_BTH.transpose(1, 2) * frames.mask_B1T
        active_BHT = nn.functional.silu(self.norm(self.depthwise(inside_BHT)))
        contracted_BTH: Tensor = self.contract(active_BHT.transpose(1, 2))
        return contracted_BTH


class ConformerLayer(nn.Module):
    """Half a feed-forward step, attention, convolution, half a feed-forward step, and a norm."""

    def __init__(self, config: ConformerConfig, *, drop_probability: float) -> None:
        super().__init__()
        width = config.width
        self.feed_in = _feedforward(config)
        self.attention_norm = nn.LayerNorm(width)
        self.attention = RotaryAttention(width, config.num_heads)
        self.convolution_norm = nn.LayerNorm(width)
        self.convolution = ConvolutionModule(width, config.kernel_size)
        self.feed_out = _feedforward(config)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)
        self.depth = StochasticDepth(drop_probability)

    def forward(self, x_BTH: Tensor, frames: Frames) -> Tensor:
        """Return (B, T, H); in the padding it may be anything."""
        x_BTH = x_BTH + 0.5 * self._kept(self.feed_in(x_BTH))
        x_BTH = x_BTH + self._kept(self.attention(self.attention_norm(x_BTH), frames))
        x_BTH = x_BTH + self._kept(self.convolution(self.convolution_norm(x_BTH), frames))
        x_BTH = x_BTH + 0.5 * self._kept(self.feed_out(x_BTH))
        normalized_BTH: Tensor = self.norm(x_BTH)
        return normalized_BTH

    def _kept(self, branch_BTH: Tensor) -> Tensor:
        kept_BTH: Tensor = self.depth(self.dropout(branch_BTH))
        return kept_BTH


def _feedforward(config: ConformerConfig) -> nn.Sequential:
    hidden = config.feedforward_factor * config.width
    return nn.Sequential(
        nn.LayerNorm(config.width),
        nn.Linear(config.width, hidden),
        nn.SiLU(),
        nn.Dropout(config.dropout),
        nn.Linear(hidden, config.width),
    )


class ConformerStem(nn.Module):
    """Strided convolutions, each normalized over channels as wav2vec 2.0's are (arXiv:2006.11477)."""

    def __init__(self, config: ConformerConfig, in_channels: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList()
        self.norms = nn.ModuleList()
        for stride in config.stem_strides:
            self.convs.append(
                SameConv1d(
                    in_channels,
                    config.stem_channels,
                    kernel_size=config.stem_kernel_size,
                    stride=stride,
                )
            )
            self.norms.append(ChannelNorm(config.stem_channels))
            in_channels = config.stem_channels
        self.project = nn.Linear(in_channels, config.width)

    def forward(self, x_BCT: Tensor, mask_B1T: Tensor) -> tuple[Tensor, Tensor]:
        """Return frames, (B, T, H) float32, zero in the padding, and their mask, (B, 1, T)."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x_BCT, mask_B1T = conv(x_BCT, mask_B1T)
            x_BCT = nn.functional.gelu(norm(x_BCT)) * mask_B1T
        return self.project(x_BCT.transpose(1, 2)) * mask_B1T.transpose(1, 2), mask_B1T


class Conformer(TemporalArchitecture):
    """Frames from strided convolutions, then layers of attention and convolution, averaged over time.

    After Gulati et al. 2020 (arXiv:2005.08100), with rotary positions in the place of relative sinusoidal
    ones and a norm over channels in that of batch norm. vocalocator tried one behind a residual network.
    """

    def __init__(
        self,
        config: ConformerConfig,
        setup: RecordingSetup,
        inputs: InputShapes,
        outputs: OutputShape,
    ) -> None:
        super().__init__()
        self.window_length = inputs.window_length
        self.numbers_per_head = config.width // config.num_heads
        self.stem = ConformerStem(config, inputs.waveform_planes)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(
            ConformerLayer(config, drop_probability=probability)
            for probability in depth_probabilities(config.stochastic_depth, config.num_layers)
        )
        self.readout = nn.Linear(config.width, outputs.num_outputs)

    def encode(self, x_BCT: Tensor, lengths_B: Tensor) -> Tensor:
        """Return a vector an event, (B, H)."""
        x_BTH, mask_B1T = self.stem(x_BCT, time_mask(lengths_B, x_BCT.shape[2]))
        frames = make_frames(mask_B1T, self.numbers_per_head)
        x_BTH = self.dropout(x_BTH)
        for layer in self.layers:
            x_BTH = layer(x_BTH, frames)
        return masked_mean(x_BTH.transpose(1, 2), mask_B1T)
