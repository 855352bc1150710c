"""Lower triangles in raw outputs.

Letters: E axes, S entries of the triangle.
"""

import torch
from torch import Tensor, nn

from gerbil_tune.models.heads.head import inverse_softplus


class LowerTriangle(nn.Module):
    """A lower triangle row by row (00, 10, 11, ...), whose diagonal goes through softplus.

    The order is the predecessors'. A row is in network units of its axis, so that the covariance L Lᵀ scales
    with the units of both of its axes.

    Args:
        size: E.
        min_sd_mm: Added to the diagonal.
    """

    rows_S: Tensor
    columns_S: Tensor

    def __init__(self, size: int, min_sd_mm: float) -> None:
        super().__init__()
        self.size = size
        self.min_sd_mm = min_sd_mm
        rows_S, columns_S = torch.tril_indices(size, size)
        self.register_buffer("rows_S", rows_S, persistent=False)
        self.register_buffer("columns_S", columns_S, persistent=False)
        self.num_entries = len(rows_S)

    def forward(self, raw_S: Tensor, mm_per_unit_E: Tensor) -> Tensor:
        """Return lower Cholesky factors, (..., E, E) mm, of raw outputs (..., S)."""
        unit_mm_S = mm_per_unit_E[self.rows_S]
        diagonal_S = nn.functional.softplus(raw_S) * unit_mm_S + self.min_sd_mm
        entries_S = torch.where(self.rows_S == self.columns_S, diagonal_S, raw_S * unit_mm_S)
        tril_EE = raw_S.new_zeros(*raw_S.shape[:-1], self.size, self.size)
        tril_EE[..., self.rows_S, self.columns_S] = entries_S
        return tril_EE

    def first_outputs(self, first_sd_units_E: Tensor) -> Tensor:
        """Raw outputs of independent axes with these standard deviations, (S,)."""
        raw_EE = torch.diag(inverse_softplus(first_sd_units_E))
        return raw_EE[self.rows_S, self.columns_S]
