"""micset-net: an array as a set of microphones at known places.

Letters: B batch, P pairs, O orientations of a pair (two), I planes of a pair, L lags, C channels, M positions
on the shortened lag axis, Q points relative to a pair's longest lag, G numbers that describe where a pair
stands, H width, A attention heads.
"""

import torch
from torch import Tensor, nn

from gerbil_tune.config.architectures import MicSetNetConfig
from gerbil_tune.errors import ConfigError
from gerbil_tune.geometry import RecordingSetup, microphone_pairs
from gerbil_tune.models.architecture import Architecture, OutputShape
from gerbil_tune.models.features.features import Features, InputShapes
from gerbil_tune.units import distance_to_delay_s

_NUM_POINTS = 64
_LAG_MARGIN = 1.1  # as of the correlations: warm air, a microphone placed a little off
_FEEDFORWARD_FACTOR = 2


class MicSetNet(Architecture):
    """A shared encoder of each microphone pair, attention among pairs, and attention pooling.

    Nothing depends on the order of the microphones, nor is their number built in: what a pair hears is a
    token, told where its two microphones stand (Grinstein et al. 2023, arXiv:2306.16081, who add pairs up;
    attention among them is that of a Set Transformer, Lee et al. 2019, arXiv:1810.00825). Lags are seen
    relative to the longest that the pair can hear, and places in halves of the arena's longest side, the unit
    of locations under isotropic scaling: a larger copy of an arena and its array has the same places and
    directions, and weights fit any number of lags.
    """

    uses = frozenset({"gcc"})

    def __init__(
        self,
        config: MicSetNetConfig,
        setup: RecordingSetup,
        inputs: InputShapes,
        outputs: OutputShape,
    ) -> None:
        super().__init__()
        width = config.width
        self.encoder = _PairEncoder(config, _PairGeometry(setup), inputs)
        self.layers = nn.Sequential(*(_AttentionLayer(config) for _ in range(config.num_layers)))
        self.pool = _AttentionPool(width, config.num_heads)
        self.hidden = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Dropout(config.dropout))
        self.readout = nn.Linear(width, outputs.num_outputs)

    def forward(self, features: Features) -> Tensor:
        """Return raw outputs, (B, num_outputs)."""
        assert features.gcc_BPL is not None
        pairs_BPH = self.layers(self.encoder(features.gcc_BPL))
        raw: Tensor = self.readout(self.hidden(self.pool(pairs_BPH)))
        return raw


class _PairGeometry:
    """Where the microphones of each pair stand.

    Attributes:
        places_POG: Both positions and their distance, in halves of the arena's longest side; the second
            orientation names the second microphone first.
        longest_lag_P: In samples, of sound along the line through both microphones.

    Raises:
        ConfigError: If the positions are unknown.
    """

    def __init__(self, setup: RecordingSetup) -> None:
        if setup.microphones_mm is None:
            raise ConfigError(
                "model/kind micset-net needs the microphone positions, but the recording setup does not "
                f"state them; write the attribute microphones_mm ({setup.num_microphones}, 3) to the data "
                "file, or choose a model/kind that does without, as gcc-net"
            )
        microphones_mm_C3 = torch.tensor(setup.microphones_mm, dtype=torch.float32)
        pairs_PO = torch.tensor(microphone_pairs(setup.num_microphones))
        ends_mm_PO3 = microphones_mm_C3[pairs_PO]
        distance_mm_P = torch.linalg.vector_norm(ends_mm_PO3[:, 0] - ends_mm_PO3[:, 1], dim=-1)
        self.longest_lag_P = distance_mm_P * (distance_to_delay_s(1.0) * setup.sample_rate_hz)
        both_ways = (ends_mm_PO3.flatten(1), ends_mm_PO3.flip(1).flatten(1))
        places_mm_POG = torch.stack(
            [torch.cat((way, distance_mm_P[:, None]), dim=1) for way in both_ways], dim=1
        )
        self.places_POG = places_mm_POG / (max(setup.arena_mm[:2]) / 2)


class _PairEncoder(nn.Module):
    """One vector a pair, from its correlation and the places of its microphones.

    A pair is encoded in both orientations (lags turned round, places exchanged) and the two are added: which
    microphone is named first makes no difference. Convolutions halve the lag axis at each block; the result
    is read at points that are equally spaced between the longest lags that the pair can hear, which are the
    directions of a far source, and a linear layer keeps their positions. Places modulate what it gives (FiLM,
    Perez et al. 2018, arXiv:1709.07871).
    """

    places_POG: Tensor
    resampling_PMQ: Tensor

    def __init__(
        self, config: MicSetNetConfig, geometry: _PairGeometry, inputs: InputShapes
    ) -> None:
        super().__init__()
        num_pairs, _, num_places = geometry.places_POG.shape
        self.num_pairs = num_pairs
        planes_per_pair = inputs.gcc_planes // num_pairs
        self.convolutions = _convolutions(config, planes_per_pair)
        resampling_PMQ = _resampling(config, geometry.longest_lag_P, inputs.num_lags)
        self.register_buffer("places_POG", geometry.places_POG, persistent=False)
        self.register_buffer("resampling_PMQ", resampling_PMQ, persistent=False)
        width = config.width
        self.project = nn.Sequential(
            nn.Dropout(config.dropout), nn.Linear(config.num_channels * _NUM_POINTS, width)
        )
        self.modulation = nn.Sequential(
            nn.Linear(num_places, width), nn.GELU(), nn.Linear(width, 2 * width)
        )
        self.merge = nn.Sequential(nn.GELU(), nn.Dropout(config.dropout), nn.Linear(width, width))

    def forward(self, gcc_BPL: Tensor) -> Tensor:
        """Return (B, P, H) from (B, I P, L): the correlations of all pairs, then perhaps their envelopes."""
        num_pairs, batch_size = self.num_pairs, len(gcc_BPL)
        lags_BIPL = gcc_BPL.reshape(batch_size, -1, num_pairs, gcc_BPL.shape[-1])
        lags_PBIL = lags_BIPL.permute(2, 0, 1, 3)
        lags_POBIL = torch.stack((lags_PBIL, lags_PBIL.flip(-1)), dim=1)
        encoded: Tensor = self.convolutions(lags_POBIL.flatten(0, 2))
        # Pairs come first throughout, so that each meets its own matrix without a copy.
        points = torch.bmm(encoded.reshape(num_pairs, -1, encoded.shape[-1]), self.resampling_PMQ)
        vectors_POBH = self.project(points.view(num_pairs, 2, batch_size, -1))
        scale_PO1H, shift_PO1H = self.modulation(self.places_POG)[:, :, None].chunk(2, dim=-1)
        merged_POBH: Tensor = self.merge(vectors_POBH * (1.0 + scale_PO1H) + shift_PO1H)
        return merged_POBH.sum(1).transpose(0, 1)


def _convolutions(config: MicSetNetConfig, num_planes: int) -> nn.Sequential:
    """Blocks that halve the lag axis; the first has half the channels, being the longest."""
    blocks: list[nn.Module] = []
    channels = num_planes
    for index in range(config.num_blocks):
        is_first = index == 0 and config.num_blocks > 1
        out_channels = max(1, config.num_channels // 2) if is_first else config.num_channels
        blocks += [
            nn.Conv1d(
                channels,
                out_channels,
                config.kernel_size,
                stride=2,
                padding=config.kernel_size // 2,
            ),
            # Over channels and lags together: a peak stays higher than what surrounds it.
            nn.GroupNorm(1, out_channels),
            nn.GELU(),
        ]
        channels = out_channels
    return nn.Sequential(*blocks)


def _resampling(config: MicSetNetConfig, longest_lag_P: Tensor, num_lags: int) -> Tensor:
    """Matrices (P, M, Q) from the positions of the shortened lag axis to points of each pair.

    Linear interpolation where the points of a pair are denser than the positions, averages with triangular
    weights where they are wider apart; zero beyond the lags that there are.
    """
    kernel_size, stride = config.kernel_size, 2**config.num_blocks
    num_positions = num_lags
    for _ in range(config.num_blocks):
        num_positions = (num_positions + 2 * (kernel_size // 2) - kernel_size) // 2 + 1
    # An even kernel has its centre between two samples.
    offset = ((kernel_size - 1) / 2 - kernel_size // 2) * (stride - 1)
    reach_P1 = _LAG_MARGIN * longest_lag_P[:, None] / stride
    centre = ((num_lags - 1) / 2 - offset) / stride
    points_PQ = centre + reach_P1 * torch.linspace(-1.0, 1.0, _NUM_POINTS)
    width_P11 = (reach_P1 * 2.0 / (_NUM_POINTS - 1)).clamp_min(1.0)[:, :, None]
    distances_PMQ = (points_PQ[:, None] - torch.arange(num_positions)[:, None]).abs()
    weights_PMQ: Tensor = (1.0 - distances_PMQ / width_P11).clamp_min(0.0) / width_P11
    return weights_PMQ


class _AttentionLayer(nn.Module):
    """Self-attention among pairs and a feed-forward layer (Vaswani et al. 2017, arXiv:1706.03762).

    Normalization comes first in each (Xiong et al. 2020, arXiv:2002.04745). Pairs are a set: they have no
    positions in a sequence.
    """

    def __init__(self, config: MicSetNetConfig) -> None:
        super().__init__()
        width = config.width
        self.num_heads = config.num_heads
        self.query_key_value = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 3 * width))
        self.mix = nn.Sequential(nn.Linear(width, width), nn.Dropout(config.dropout))
        self.feedforward = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, _FEEDFORWARD_FACTOR * width),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(_FEEDFORWARD_FACTOR * width, width),
            nn.Dropout(config.dropout),
        )

    def forward(self, x_BPH: Tensor) -> Tensor:
        """Return (B, P, H)."""
        parts = self.query_key_value(x_BPH).unflatten(-1, (3, self.num_heads, -1))
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        seen = nn.functional.scaled_dot_product_attention(query, key, value)
        x_BPH = x_BPH + self.mix(seen.transpose(1, 2).flatten(2))
        fed: Tensor = x_BPH + self.feedforward(x_BPH)
        return fed


class _AttentionPool(nn.Module):
    """A mean over pairs whose weights the pairs themselves give, for each head its own.

    The pooling by attention of Lee et al. (2019) with a fixed query.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = nn.LayerNorm(width)
        # A bias would cancel in the softmax.
        self.score = nn.Linear(width, num_heads, bias=False)
        self.value = nn.Linear(width, width)

    def forward(self, x_BPH: Tensor) -> Tensor:
        """Return (B, H)."""
        x_BPH = self.norm(x_BPH)
        weights_BPA1 = self.score(x_BPH).softmax(dim=1)[..., None]
        values = self.value(x_BPH).unflatten(-1, (self.num_heads, -1))
        pooled: Tensor = (weights_BPA1 * values).sum(1).flatten(1)
        return pooled
