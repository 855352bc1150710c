"""srp-net: images of where the sound may have come from.

Letters: B batch, F planes, C channels, A attention maps, Y rows and X columns of a map, N cells of it, V rows
and U columns of a head's grid, H hidden.
"""

import math

import torch
from torch import Tensor, nn

from gerbil_tune.config.architectures import SrpNetConfig
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.architecture import Architecture, OutputShape
from gerbil_tune.models.features.features import Features, InputShapes
from gerbil_tune.models.regularization import StochasticDepth, depth_probabilities

_NUM_ATTENTION_MAPS = 4
_SMALLEST_SD = 0.01  # of half the map: far below a cell, and a square root of nothing has no slope


class SrpNet(Architecture):
    """Residual convolutions over steered-response maps, which stay images until the end.

    The highest peak of a map need not be the caller: echoes make others, and a tonal call repeats its own. A
    network over maps of several bands learns which to believe (Diaz-Guerra et al. 2021, arXiv:2006.09006, for
    directions over time). Blocks are pre-activation (He et al. 2016, arXiv:1603.05027); two planes with the
    coordinates of each cell are added to the maps (CoordConv, Liu et al. 2018, arXiv:1807.03247), because
    echoes depend on the place. What comes out is images as well, the maps themselves among them, which no
    normalization has touched. A head over a grid reads a score for each cell; any other reads where a few
    attention maps look, how widely, and what they see there.
    """

    uses = frozenset({"maps"})
    places_2YX: Tensor

    def __init__(
        self,
        config: SrpNetConfig,
        setup: RecordingSetup,
        inputs: InputShapes,
        outputs: OutputShape,
    ) -> None:
        super().__init__()
        channels, kernel_size = config.num_channels, config.kernel_size
        places_2YX = _cell_places(inputs.map_shape)
        self.register_buffer("places_2YX", places_2YX, persistent=False)
        self.stem = nn.Conv2d(
            inputs.map_planes + 2, channels, kernel_size, padding=kernel_size // 2
        )
        probabilities = depth_probabilities(config.stochastic_depth, config.num_blocks)
        self.blocks = nn.Sequential(*(_ResidualBlock(config, p) for p in probabilities))
        self.activate = nn.Sequential(_map_norm(channels), nn.GELU())
        self.summary: nn.Module = nn.Identity()
        self.resample: nn.Module = nn.Identity()
        if outputs.grid_shape is None:
            self.summary = _AttentionSummary(config, inputs.map_planes, places_2YX)
            self.readout = nn.Linear(config.hidden, outputs.num_outputs)
        else:
            num_images = outputs.num_outputs // math.prod(outputs.grid_shape)
            self.readout = nn.Conv2d(channels + inputs.map_planes, num_images, 1)
            same_extent = inputs.map_extent_mm == outputs.grid_extent_mm
            if not same_extent or inputs.map_shape != outputs.grid_shape:
                self.resample = _GridResampling(inputs, outputs.grid_shape, outputs.grid_extent_mm)

    def forward(self, features: Features) -> Tensor:
        """Return raw outputs, (B, num_outputs)."""
        assert features.maps_BFYX is not None
        maps_BFYX = features.maps_BFYX
        places_B2YX = self.places_2YX.expand(len(maps_BFYX), -1, -1, -1)
        x_BCYX = self.stem(torch.cat((maps_BFYX, places_B2YX), dim=1))
        x_BCYX = self.activate(self.blocks(x_BCYX))
        seen = self.summary(torch.cat((x_BCYX, maps_BFYX.to(x_BCYX.dtype)), dim=1))
        raw: Tensor = self.resample(self.readout(seen)).flatten(1)
        return raw


def _map_norm(num_channels: int) -> nn.Module:
    """Normalize over channels and cells of an event together: a peak stays higher than what surrounds it."""
    return nn.GroupNorm(1, num_channels)


class _ResidualBlock(nn.Module):
    """A convolution over cells and one over channels, added to what came in.

    To the first is added what the whole image holds, its mean and maximum of each channel (global pooling
    bias, Wu 2019, arXiv:1902.10565): a peak counts by what the others are.
    """

    def __init__(self, config: SrpNetConfig, depth_probability: float) -> None:
        super().__init__()
        channels, kernel_size = config.num_channels, config.kernel_size
        self.activate = nn.Sequential(_map_norm(channels), nn.GELU())
        self.over_cells = nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2)
        self.of_all_cells = nn.Linear(2 * channels, channels, bias=False)
        self.over_channels = nn.Sequential(
            _map_norm(channels),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Conv2d(channels, channels, 1),
            StochasticDepth(depth_probability),
        )

    def forward(self, x_BCYX: Tensor) -> Tensor:
        active_BCYX = self.activate(x_BCYX)
        pooled = torch.cat((active_BCYX.mean((2, 3)), active_BCYX.amax((2, 3))), dim=1)
        branch_BCYX = self.over_cells(active_BCYX) + self.of_all_cells(pooled)[:, :, None, None]
        summed: Tensor = x_BCYX + self.over_channels(branch_BCYX)
        return summed


class _AttentionSummary(nn.Module):
    """What a few attention maps see: mean place, spread and channels of each, then a hidden layer.

    The mean place under a softmax over cells is the soft-argmax (Luvizon et al. 2019, arXiv:1710.02322); the
    spread under it tells a head how sure the map is. At first the attention maps are softmaxes of the mean of
    the steered-response maps, from flat to sharp: training begins at what the peak says.
    """

    moments_5N: Tensor

    def __init__(self, config: SrpNetConfig, map_planes: int, places_2YX: Tensor) -> None:
        super().__init__()
        channels = config.num_channels + map_planes
        x_N, y_N = places_2YX.flatten(1)
        moments_5N = torch.stack((x_N, y_N, x_N * x_N, y_N * y_N, x_N * y_N))
        self.register_buffer("moments_5N", moments_5N, persistent=False)
        # A bias would cancel in the softmax.
        self.attention = nn.Conv2d(channels, _NUM_ATTENTION_MAPS, 1, bias=False)
        sharpness_A111 = torch.arange(_NUM_ATTENTION_MAPS)[:, None, None, None]
        with torch.no_grad():
            self.attention.weight[:, config.num_channels :] = sharpness_A111 / map_planes
        width = _NUM_ATTENTION_MAPS * (channels + len(moments_5N))
        self.hidden = nn.Sequential(
            nn.Dropout(config.dropout), nn.Linear(width, config.hidden), nn.GELU()
        )

    def forward(self, x_BCYX: Tensor) -> Tensor:
        """Return (B, H)."""
        weights_BAN = self.attention(x_BCYX).flatten(2).softmax(dim=2, dtype=torch.float32)
        # Not a matrix product, which autocast would round to a few millimetres.
        expected_BA5 = (weights_BAN[:, :, None] * self.moments_5N).sum(3)
        mean_BA2 = expected_BA5[..., :2]
        variance_BA2 = (expected_BA5[..., 2:4] - mean_BA2.square()).clamp_min(0.0)
        sd_BA2 = (variance_BA2 + _SMALLEST_SD**2).sqrt()
        covariance_BA1 = expected_BA5[..., 4:] - mean_BA2[..., :1] * mean_BA2[..., 1:]
        channels_BAC = weights_BAN.to(x_BCYX.dtype) @ x_BCYX.flatten(2).mT
        seen = torch.cat((mean_BA2, sd_BA2, covariance_BA1, channels_BAC.float()), dim=2)
        summary: Tensor = self.hidden(seen.flatten(1))
        return summary


class _GridResampling(nn.Module):
    """Bilinear interpolation from the cells of the maps to those of a head's grid, where each lies.

    Beyond the outermost centres a score continues as it is there. Two products with small matrices: on a GPU
    the gradients of PyTorch's own interpolation are not reproducible.
    """

    rows_VY: Tensor
    columns_XU: Tensor

    def __init__(
        self,
        inputs: InputShapes,
        grid_shape: tuple[int, int],
        grid_extent_mm: tuple[float, float, float, float] | None,
    ) -> None:
        super().__init__()
        unknown = (0.0, 1.0, 0.0, 1.0)
        is_known = inputs.map_extent_mm is not None and grid_extent_mm is not None
        from_mm = (inputs.map_extent_mm if is_known else None) or unknown
        to_mm = (grid_extent_mm if is_known else None) or unknown
        rows_VY = _interpolation(inputs.map_shape[0], from_mm[2:], grid_shape[0], to_mm[2:])
        columns_UX = _interpolation(inputs.map_shape[1], from_mm[:2], grid_shape[1], to_mm[:2])
        self.register_buffer("rows_VY", rows_VY, persistent=False)
        self.register_buffer("columns_XU", columns_UX.T.contiguous(), persistent=False)

    def forward(self, scores: Tensor) -> Tensor:
        """Return (B, images, V, U) from (B, images, Y, X)."""
        return self.rows_VY @ scores @ self.columns_XU


def _cell_places(shape: tuple[int, int]) -> Tensor:
    """Where the centre of each cell lies on x and y, (2, Y, X); the map's edges are at -1 and 1."""
    y_Y, x_X = ((2.0 * torch.arange(size) + 1.0) / size - 1.0 for size in shape)
    return torch.stack(torch.meshgrid(x_X, y_Y, indexing="xy"))


def _interpolation(
    from_size: int, from_mm: tuple[float, float], to_size: int, to_mm: tuple[float, float]
) -> Tensor:
    """Matrix (to, from) that interpolates linearly between centres."""
    from_step_mm = (from_mm[1] - from_mm[0]) / from_size
    to_step_mm = (to_mm[1] - to_mm[0]) / to_size
    centres_mm = to_mm[0] + (torch.arange(to_size) + 0.5) * to_step_mm
    positions = ((centres_mm - from_mm[0]) / from_step_mm - 0.5).clamp(0.0, from_size - 1.0)
    distances = (positions[:, None] - torch.arange(from_size)).abs()
    return (1.0 - distances).clamp_min(0.0)
