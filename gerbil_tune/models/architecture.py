"""What every architecture offers."""

from abc import abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from gerbil_tune.models.features import Features


class Architecture(nn.Module):
    """From features to the raw numbers that a head reads.

    Attributes:
        uses_audio: Whether the scaled audio is an input.
        uses_gcc: Whether the cross-correlations are an input.
        readout: The last linear layer, (…, num_outputs); the head sets its first bias.
    """

    uses_audio: ClassVar[bool]
    uses_gcc: ClassVar[bool]
    readout: nn.Linear

    @abstractmethod
    def forward(self, features: Features) -> Tensor:
        """Return raw outputs, (B, num_outputs)."""
