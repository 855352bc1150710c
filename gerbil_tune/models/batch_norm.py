"""Batch norm whose statistics are those of the events, however they are padded and shared out.

Letters: B batch, C channels, T samples.
"""

from typing import Any, Literal

import torch
import torch.distributed
from torch import Tensor, nn

StatisticsOf = Literal["workers", "worker", "running"]


class MaskedBatchNorm(nn.BatchNorm1d):
    """Batch norm over the unpadded times of all events of a step.

    torch's own counts the padding, which differs from worker to worker, and its SyncBatchNorm needs a GPU.

    Attributes:
        statistics_of: In training, normalize with the statistics of this worker alone, of all workers of
            the process group together, or with the running ones, which then stay as they are.
    """

    statistics_of: StatisticsOf = "worker"

    def forward(self, x_BCT: Tensor, mask_B1T: Tensor | None = None) -> Tensor:
        """Normalize each channel, then gain and bias.

        Args:
            x_BCT: (B, C, T).
            mask_B1T: (B, 1, T), 1 inside each event and 0 in its padding; None: no padding.
        """
        if not self.training or self.statistics_of == "running":
            return nn.functional.batch_norm(
                x_BCT, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        mask_B1T = x_BCT.new_ones(()) if mask_B1T is None else mask_B1T.float()
        with torch.autocast(x_BCT.device.type, enabled=False):
            centred_BCT, variance_C = self._batch_statistics(x_BCT.float(), mask_B1T)
            factor_C = self.weight * torch.rsqrt(variance_C + self.eps)
            return (centred_BCT * factor_C[:, None] + self.bias[:, None]).to(x_BCT.dtype)

    def _batch_statistics(self, x_BCT: Tensor, mask_B1T: Tensor) -> tuple[Tensor, Tensor]:
        """The input less its mean, and its variance; the running statistics follow."""
        ones_BCT = torch.ones_like(x_BCT[:, :1]) * mask_B1T
        sums = torch.cat([(x_BCT * mask_B1T).sum((0, 2)), ones_BCT.sum().view(1)])
        sums = self._over_workers(sums)
        count, mean_C = sums[-1].clamp_min(1.0), sums[:-1] / sums[-1].clamp_min(1.0)
        # In two passes: mean squares less squared means would cancel.
        centred_BCT = x_BCT - mean_C[:, None]
        variance_C = self._over_workers((centred_BCT.square() * mask_B1T).sum((0, 2))) / count
        self._note(mean_C.detach(), (variance_C * count / (count - 1).clamp_min(1.0)).detach())
        return centred_BCT, variance_C

    def _over_workers(self, sums: Tensor) -> Tensor:
        if self.statistics_of == "worker":
            return sums
        total: Tensor = _SumOverWorkers.apply(sums)  # type: ignore[no-untyped-call]
        return total

    @torch.no_grad()
    def _note(self, mean_C: Tensor, variance_C: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean_C, self.momentum)
        self.running_var.lerp_(variance_C, self.momentum)


class _SumOverWorkers(torch.autograd.Function):
    """Sum over all workers; the gradient is the sum of their gradients."""

    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:
        return _summed(part)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _summed(gradients[0])


def _summed(part: Tensor) -> Tensor:
    total = part.contiguous().clone()
    torch.distributed.all_reduce(total)
    return total


def use_statistics_of(network: nn.Module, whose: StatisticsOf) -> None:
    """Choose the statistics that all batch norms of a network take in training."""
    for module in network.modules():
        if isinstance(module, MaskedBatchNorm):
            module.statistics_of = whose
