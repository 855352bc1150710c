"""Random bits that are a function of numbers alone: no generator, no state, microseconds for a batch.

A chain of SplitMix64 (Steele, Lea and Flood, 2014, Fast splittable pseudorandom number generators).
"""

import numpy as np
import numpy.typing as npt

_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_STEP = np.uint64(0x9E3779B97F4A7C15)


def mixed_bits(
    numbers_N: npt.NDArray[np.integer], seed: int, *words: int
) -> npt.NDArray[np.uint64]:
    """64 random bits for each number, others for another seed or other words.

    Args:
        numbers_N: (N,) integers.
        seed: Any integer.
        words: What else the bits depend on, integers.

    Returns:
        (N,) uint64.
    """
    state = np.array([seed % 2**64], dtype=np.uint64)
    for word in words:
        state = _mix(state) ^ np.uint64(word % 2**64)
    return _mix(_mix(state) ^ numbers_N.astype(np.uint64))


def _mix(state: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    state = state + _STEP
    state = (state ^ (state >> np.uint64(30))) * _MIX_1
    state = (state ^ (state >> np.uint64(27))) * _MIX_2
    return state ^ (state >> np.uint64(31))
