"""Arrays that are used again when nobody holds them any more.

A new array of tens of megabytes costs as much as filling it: the system hands out zeroed pages, one fault
after another, and takes them back with the array. Batches come and go by the thousand.
"""

import threading
import weakref
from math import prod

import numpy as np
import numpy.typing as npt
import torch

_MOST_BUFFERS = 8


class BufferPool:
    """Memory for CPU tensors, lent until the last tensor and view of it is gone.

    Nothing has to be given back, and nothing that is still held is ever overwritten. Threads may share it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # A view goes with each loan: as long as a tensor lives on the memory, it holds the view.
        self._buffers: list[tuple[npt.NDArray[np.uint8], weakref.ref[npt.NDArray[np.uint8]]]] = []

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """A contiguous tensor of any content.

        Args:
            shape: Its shape, without zeros.
            dtype: Its type.
        """
        num_bytes = prod(shape) * dtype.itemsize
        with self._lock:
            view = self._take(num_bytes)
        return torch.from_numpy(view).view(dtype).view(shape)

    def _take(self, num_bytes: int) -> npt.NDArray[np.uint8]:
        free = [number for number, (_, loan) in enumerate(self._buffers) if loan() is None]
        fitting = [number for number in free if len(self._buffers[number][0]) >= num_bytes]
        if fitting:
            buffer = self._buffers.pop(fitting[0])[0]
        else:
            if free:  # too small from now on
                self._buffers.pop(free[0])
            # NumPy asks the system for huge pages, torch does not.
            buffer = np.empty(num_bytes, np.uint8)
        view = buffer[:num_bytes]
        if len(self._buffers) < _MOST_BUFFERS:
            self._buffers.append((buffer, weakref.ref(view)))
        return view
