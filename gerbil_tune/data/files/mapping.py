"""Audio mapped into memory at its place in a file."""

import mmap
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


class AudioMapping:
    """A read-only array on a part of a file.

    Attributes:
        audio: All samples, (total, C) in the file's dtype; reading it reads the file, or the page cache.
    """

    def __init__(
        self, path: Path, dtype: np.dtype[Any], shape: tuple[int, int], offset_bytes: int
    ) -> None:
        """Map a part of a file.

        Raises:
            OSError: If the file cannot be opened.
            ValueError: If it is shorter than the array.
        """
        self._offset_bytes = offset_bytes
        count = shape[0] * shape[1]
        with path.open("rb") as stream:
            self._map = mmap.mmap(
                stream.fileno(), offset_bytes + count * dtype.itemsize, access=mmap.ACCESS_READ
            )
        flat: npt.NDArray[Any] = np.frombuffer(self._map, dtype, count, offset_bytes)
        self.audio = flat.reshape(shape)
        self._bytes_a_sample = shape[1] * dtype.itemsize

    def will_need(self, first: int, num_samples: int) -> None:
        """Let the system read samples [first, first + num_samples) from the disk while we do other things.

        Copying from pages that are not there reads them a few at a time, each with as much beyond it as the
        system is used to read ahead, which random crops have no use for.
        """
        if not hasattr(self._map, "madvise") or num_samples == 0:
            return
        begin = self._offset_bytes + first * self._bytes_a_sample
        aligned = begin - begin % mmap.PAGESIZE
        length = begin + num_samples * self._bytes_a_sample - aligned
        self._map.madvise(mmap.MADV_WILLNEED, aligned, length)
