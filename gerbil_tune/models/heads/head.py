"""What every head offers."""

from abc import abstractmethod

import torch
from torch import Tensor, nn

from gerbil_tune.models.architecture import OutputShape
from gerbil_tune.models.density import LocationDensity

FIRST_SPREAD = 0.3
"""Of a usual initial weight, for a first standard deviation of one unit."""


class Head(nn.Module):
    """From raw network outputs to a density over locations in millimetres; it has no parameters.

    A subclass is constructed as ``(config, setup)``.

    Attributes:
        output_shape: What it reads.
    """

    output_shape: OutputShape

    @property
    def num_outputs(self) -> int:
        """Raw numbers an event."""
        return self.output_shape.num_outputs

    @abstractmethod
    def forward(self, raw_BO: Tensor, mm_per_unit_D: Tensor) -> LocationDensity:
        """Read raw outputs.

        Args:
            raw_BO: (B, num_outputs), any floating type; read in float32.
            mm_per_unit_D: (D,) float32, millimetres for one network unit; the origin of both is that of
                locations.
        """

    @abstractmethod
    def _first_outputs(self, first_sd_units_D: Tensor) -> Tensor:
        """Raw outputs of a wide density at the arena's centre, (num_outputs,) float32.

        Args:
            first_sd_units_D: (D,) its standard deviation, in network units.
        """

    def initialize_readout(self, readout: nn.Linear | nn.Conv2d, first_sd_units_D: Tensor) -> None:
        """Start with a wide density at the arena's centre: the first steps then learn, not recover.

        Args:
            readout: The layer that produces the raw outputs; its weights are scaled down.
            first_sd_units_D: (D,) standard deviation to start from, in network units.
        """
        assert readout.bias is not None
        with torch.no_grad():
            # By the first standard deviation: near the centre in mm, however large a network unit is.
            readout.weight.mul_(FIRST_SPREAD * first_sd_units_D.min().clamp_max(1.0))
            readout.bias.copy_(self._first_outputs(first_sd_units_D))


def inverse_softplus(values: Tensor) -> Tensor:
    """What softplus turns into these values, over 0."""
    return values + torch.log(-torch.expm1(-values))
