"""Residual branches that training leaves out at random."""

import torch
from torch import Tensor, nn


def depth_probabilities(last: float, num_blocks: int) -> tuple[float, ...]:
    """Probability of leaving out each block, growing linearly to the last one's (Huang et al. 2016)."""
    return tuple(last * block / num_blocks for block in range(1, num_blocks + 1))


class StochasticDepth(nn.Module):
    """Leave out a residual branch of an event in training, with a probability; scale what stays.

    Huang et al. 2016 (arXiv:1603.09382), drawn for each event rather than each step, from torch's generator.
    In evaluation it does nothing: the scale ``1 / (1 - probability)`` keeps the expectation.

    Attributes:
        probability: Of leaving a branch out, in [0, 1).
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, branch: Tensor) -> Tensor:
        """Return the branch, (B, ...), zero for the events that go without."""
        if not self.training or self.probability == 0.0:
            return branch
        kept_B = torch.rand(len(branch), device=branch.device) >= self.probability
        # Divided before the mask: 1 / (1 - p) as a number of bfloat16 would be off by up to 0.4 %.
        scaled = branch / (1.0 - self.probability)
        return scaled * kept_B.view(-1, *[1] * (branch.dim() - 1))

    def extra_repr(self) -> str:
        """Return what printing a network shows."""
        return f"probability={self.probability:g}"
