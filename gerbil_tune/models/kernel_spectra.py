"""Spectra of kernels between calls, for as long as their weights stay as they are.

A network that predicts convolves with the same weights again and again, and for few events at a time their
spectra take longer than the products with them.
"""

import threading
from collections.abc import Hashable, MutableMapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

_MOST_BYTES = 256 << 20


@dataclass(slots=True)
class _OfWeight:
    """What is kept of one weight, and the values that it had."""

    values: Tensor
    spectra: dict[Hashable, Tensor] = field(default_factory=dict)

    @property
    def num_bytes(self) -> int:
        return self.values.nbytes + sum(tensor.nbytes for tensor in self.spectra.values())


class SpectraStore:
    """Keeps spectra of parameters; a parameter that is written to, replaced or gone loses its own.

    All values are compared at each call, which takes little time beside the products: torch's count of the
    writes to a tensor misses those of fused optimizers. Of other tensors, which are made anew for each call,
    nothing is kept. Threads may share a store.

    Args:
        most_bytes: What is held at most, over all weights; beyond it nothing more is kept.
    """

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._weights: MutableMapping[Tensor, _OfWeight] = WeakTensorKeyDictionary()

    def find(self, weight: Tensor, key: Hashable) -> Tensor | None:
        """Spectra that were kept of a weight as it is now, or None."""
        with self._lock:
            kept = self._weights.get(weight)
            if kept is None or not torch.equal(kept.values, weight):
                return None
            return kept.spectra.get(key)

    def keep(self, weight: Tensor, key: Hashable, spectra: Tensor) -> None:
        """Keep spectra, which must not be written to afterwards, where there is room."""
        if not isinstance(weight, nn.Parameter):
            return
        with self._lock:
            kept = self._weights.get(weight)
            if kept is None or not torch.equal(kept.values, weight):
                self._weights.pop(weight, None)
                kept = _OfWeight(weight.detach().clone())
            others = sum(other.num_bytes for other in self._weights.values() if other is not kept)
            if others + kept.num_bytes + spectra.nbytes <= self._most_bytes:
                kept.spectra[key] = spectra
                self._weights[weight] = kept
