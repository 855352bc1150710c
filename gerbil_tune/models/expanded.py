"""Expanded views, kept as such: what all events share is there once.

Letters: B batch, K keypoints, M components.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def distinct(tensor: Tensor, num_dims: int) -> Tensor:
    """Undo ``expand`` in the first ``num_dims`` dimensions: those that repeat become of size 1."""
    for dim in range(num_dims):
        if tensor.stride(dim) == 0 and tensor.shape[dim] > 1:
            tensor = tensor.narrow(dim, 0, 1)
    return tensor


def apply_shared(tensor: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply an elementwise function, once to what an expanded view repeats."""
    return function(distinct(tensor, tensor.dim())).expand(tensor.shape)


def take_rows(tensor: Tensor, rows: slice | Tensor) -> Tensor:
    """Choose by a slice, indices or a mask along the first dimension."""
    if isinstance(rows, slice) or tensor.stride(0) != 0:
        return tensor[rows]
    count = int(rows.sum()) if rows.dtype == torch.bool else len(rows)
    return tensor[:1].expand(count, *tensor.shape[1:])


def concatenate_components(tensors: Sequence[Tensor]) -> Tensor:
    """Join (B, K, M, ...) tensors along M; what all of them share between events stays shared."""
    parts = [distinct(tensor, 2) for tensor in tensors]
    lead = [max(part.shape[dim] for part in parts) for dim in (0, 1)]
    joined = torch.cat([part.expand(*lead, *part.shape[2:]) for part in parts], dim=2)
    return joined.expand(*tensors[0].shape[:2], *joined.shape[2:])
