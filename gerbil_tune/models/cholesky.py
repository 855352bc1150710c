"""Arithmetic with lower Cholesky factors, axis by axis.

Written as elementwise operations, which broadcast: a factor that many events share is never copied for them.

Letters: D axes, E more axes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from gerbil_tune.models.expanded import distinct


def axis_offsets(places_D: Tensor, origins_D: Tensor) -> list[Tensor]:
    """Differences of (..., D) tensors that broadcast, one tensor an axis."""
    pairs = zip(places_D.unbind(-1), origins_D.unbind(-1), strict=True)
    return [place - origin for place, origin in pairs]


def mahalanobis_squared(offsets: Sequence[Tensor], tril_DD: Tensor) -> Tensor:
    """Square of the solution of tril · x = offset, by forward substitution.

    Args:
        offsets: One tensor an axis.
        tril_DD: (..., D, D) lower triangular, diagonal over 0; its leading dimensions broadcast with the
            offsets.
    """
    whitened: list[Tensor] = []
    for i, offset in enumerate(offsets):
        rest = offset
        for j, earlier in enumerate(whitened):
            rest = rest - tril_DD[..., i, j] * earlier
        whitened.append(rest / tril_DD[..., i, i])
    squares = [value.square() for value in whitened]
    return sum(squares[1:], squares[0])


def log_det(tril_DD: Tensor) -> Tensor:
    """Logarithm of the determinant of (..., D, D) lower factors; of size 1 where an expanded view repeats."""
    return distinct(tril_DD, tril_DD.dim() - 2).diagonal(dim1=-2, dim2=-1).log().sum(-1)


def lower_factor(rows_DE: Tensor) -> Tensor:
    """Lower Cholesky factor of rows · rowsᵀ, by the modified method of Gram and Schmidt.

    The product itself is never formed, which would square the ratio of the widest axis to the narrowest.

    Args:
        rows_DE: (..., D, E), of rank D.

    Returns:
        (..., D, D) with a positive diagonal.
    """
    directions: list[Tensor] = []
    factor_rows: list[Tensor] = []
    for row_E in rows_DE.unbind(-2):
        entries: list[Tensor] = []
        rest_E = row_E
        for direction_E in directions:
            entries.append((rest_E * direction_E).sum(-1))
            rest_E = rest_E - entries[-1][..., None] * direction_E
        entries.append(torch.linalg.vector_norm(rest_E, dim=-1))
        directions.append(rest_E / entries[-1][..., None])
        zeros = [torch.zeros_like(entries[-1])] * (rows_DE.shape[-2] - len(entries))
        factor_rows.append(torch.stack(entries + zeros, dim=-1))
    return torch.stack(factor_rows, dim=-2)
