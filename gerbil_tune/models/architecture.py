"""What every architecture offers."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from gerbil_tune.models.features.features import FeatureKind, Features


@dataclass(frozen=True, slots=True)
class OutputShape:
    """What a head reads.

    Attributes:
        num_outputs: Raw numbers an event.
        grid_shape: Rows and columns, where they are images of the arena, one after the other, that a network
            over maps can make as such; num_outputs is a multiple of their product.
        grid_extent_mm: Where the outer edges of the outermost cells of such an image lie,
            (x_low, x_high, y_low, y_high).
    """

    num_outputs: int
    grid_shape: tuple[int, int] | None = None
    grid_extent_mm: tuple[float, float, float, float] | None = None


class Architecture(nn.Module):
    """From features to the raw numbers that a head reads.

    A subclass is constructed as ``(config, setup, inputs: InputShapes, outputs: OutputShape)``.

    Attributes:
        uses: The kinds of features that are its inputs.
        readout: The last layer; a head scales its weight and sets its bias. Linear to (B, num_outputs), or a
            convolution of kernel 1 to as many images as num_outputs has.
    """

    uses: ClassVar[frozenset[FeatureKind]]
    readout: nn.Linear | nn.Conv2d

    @abstractmethod
    def forward(self, features: Features) -> Tensor:
        """Return raw outputs, (B, num_outputs)."""
