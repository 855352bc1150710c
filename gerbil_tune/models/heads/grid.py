"""A probability for each cell of a grid over the arena.

Letters: B batch, O raw outputs, K keypoints, M cells, D axes, Z levels, Y rows, X columns.
"""

import torch
from torch import Tensor, nn

from gerbil_tune.config.heads import GridConfig
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.architecture import OutputShape
from gerbil_tune.models.arena import arena_edges_mm, cell_centres_mm, num_cells
from gerbil_tune.models.density import LocationDensity
from gerbil_tune.models.heads.head import FIRST_SPREAD, Head


class GridHead(Head):
    """Logits of cells, each a Gaussian at its centre: any shape of density, smooth between the cells.

    The raw numbers are images of Y rows by X columns, keypoint by keypoint and, of three axes, from the floor
    up: Z for each keypoint. Rows are y and columns are x, both ascending. Cells divide the arena with its
    margin evenly and are at most ``cell_mm`` wide on each axis; levels divide the height, without a margin.
    The network's units are not used.
    """

    centres_mm_MD: Tensor
    kernel_mm_DD: Tensor

    def __init__(self, config: GridConfig, setup: RecordingSetup) -> None:
        super().__init__()
        floor, heights = arena_edges_mm(setup)[:2], arena_edges_mm(setup)[2:]
        edges_mm = [(low - config.margin_mm, high + config.margin_mm) for low, high in floor]
        edges_mm.extend(heights)
        counts = [num_cells(edges, config.cell_mm) for edges in edges_mm]
        kernel_mm_D = [
            config.kernel_cells * (high - low) / count
            for (low, high), count in zip(edges_mm, counts, strict=True)
        ]
        centres_mm_MD = cell_centres_mm(edges_mm, counts)
        self.num_keypoints = len(setup.keypoints)
        self.register_buffer("centres_mm_MD", centres_mm_MD, persistent=False)
        self.register_buffer(
            "kernel_mm_DD", torch.diag(torch.tensor(kernel_mm_D)), persistent=False
        )
        self.output_shape = OutputShape(
            self.num_keypoints * len(centres_mm_MD),
            grid_shape=(counts[1], counts[0]),
            grid_extent_mm=(*edges_mm[0], *edges_mm[1]),
        )

    def forward(self, raw_BO: Tensor, mm_per_unit_D: Tensor) -> LocationDensity:
        """Read raw outputs; see ``Head``."""
        logits_BKM = raw_BO.float().reshape(-1, self.num_keypoints, len(self.centres_mm_MD))
        return LocationDensity(
            logits_BKM.log_softmax(-1),
            self.centres_mm_MD.expand(*logits_BKM.shape, -1),
            self.kernel_mm_DD.expand(*logits_BKM.shape, -1, -1),
        )

    def _first_outputs(self, first_sd_units_D: Tensor) -> Tensor:
        """As of all heads; all cells alike, which is as wide as can be."""
        return torch.zeros(self.num_outputs)

    def initialize_readout(self, readout: nn.Linear | nn.Conv2d, first_sd_units_D: Tensor) -> None:
        """Start with all cells nearly alike.

        Args:
            readout: Linear, or a convolution of kernel 1 to one plane an image; its weights are scaled down.
            first_sd_units_D: Not used: the arena is as wide as it is.
        """
        assert readout.bias is not None
        with torch.no_grad():
            readout.weight.mul_(FIRST_SPREAD)
            readout.bias.zero_()
