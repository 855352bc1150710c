"""Random numbers of training events, for augmentation.

Each depends on the seed, the epoch and the event's place in the training set, and on nothing else: not on
the worker, the number of workers, the batch or its order. Each kind of number has a stream of its own, so
that one more augmentation changes no draw of another.

Letters: B batch, N events of the set, C microphones.
"""

from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Places = npt.NDArray[np.int64]
Chosen = npt.NDArray[np.bool_]


class Draw(IntEnum):
    """What is drawn, by the number of its stream; those below 16 belong to ``shards``."""

    MIRROR_X = 16
    MIRROR_Y = 17
    POLARITY = 18
    GAIN = 19
    GAIN_DB = 20
    NOISE = 21
    NOISE_SNR = 22
    NOISE_EXPONENT = 23
    NOISE_SEED = 24
    LOW_FREQUENCY = 25
    LOW_FREQUENCY_SNR = 26
    LOW_FREQUENCY_SEED = 27
    MASK = 28
    MASK_LENGTH = 29
    MASK_START = 30
    DROPOUT = 31
    DROPOUT_NUMBER = 32
    DROPOUT_ORDER = 33
    SHIFT = 34
    SHIFT_LENGTH = 35


class EventDraws:
    """Random numbers for the events of a training set.

    A stream is drawn for all events together when an epoch first asks for it, and kept until the next: that
    takes a millisecond for 200,000 events.

    Attributes:
        num_microphones: C.
    """

    def __init__(self, num_events: int, num_microphones: int, *, seed: int) -> None:
        """Draw for N events of C microphones, with any integer as seed."""
        self.num_microphones = num_microphones
        self._num_events = num_events
        self._seed = seed % 2**64  # a seed sequence takes no negative numbers
        self._kept: dict[Draw, tuple[int, npt.NDArray[Any]]] = {}

    def uniform(self, draw: Draw, epoch: int, places_B: Places) -> Floats:
        """Numbers from 0 to below 1, float64 (B,), of the events at these places."""
        return self._all(draw, epoch)[places_B]

    def between(
        self, draw: Draw, limits: tuple[float, float], epoch: int, places_B: Places
    ) -> Floats:
        """Numbers within limits, float64 (B,)."""
        low, high = limits
        return low + (high - low) * self.uniform(draw, epoch, places_B)

    def chosen(self, draw: Draw, probability: float, epoch: int, places_B: Places) -> Chosen:
        """Which events are chosen with a probability, bool (B,)."""
        if probability == 0:
            return np.zeros(len(places_B), dtype=np.bool_)
        return self.uniform(draw, epoch, places_B) < probability

    def mirrored(self, probability: float, epoch: int, places_B: Places) -> Chosen:
        """Which events are mirrored on x and on y, bool (B, 2)."""
        axes = (Draw.MIRROR_X, Draw.MIRROR_Y)
        return np.stack([self.chosen(axis, probability, epoch, places_B) for axis in axes], axis=1)

    def by_microphone(self, draw: Draw, epoch: int, places_B: Places) -> Floats:
        """Numbers from 0 to below 1, float32 (B, C)."""
        return self._all(draw, epoch)[places_B]

    def seeds(self, draw: Draw, epoch: int, places_B: Places) -> list[int]:
        """Seeds for a waveform of each event."""
        return [int(seed) for seed in self._all(draw, epoch)[places_B]]

    def _all(self, draw: Draw, epoch: int) -> npt.NDArray[Any]:
        kept = self._kept.get(draw)
        if kept is None or kept[0] != epoch:
            kept = self._kept[draw] = epoch, self._drawn(draw, epoch)
        return kept[1]

    def _drawn(self, draw: Draw, epoch: int) -> npt.NDArray[Any]:
        generator = np.random.default_rng((self._seed, epoch, int(draw)))
        if draw in (Draw.NOISE_SEED, Draw.LOW_FREQUENCY_SEED):
            return generator.integers(2**63, size=self._num_events)
        if draw in (Draw.GAIN_DB, Draw.DROPOUT_ORDER):
            shape = (self._num_events, self.num_microphones)
            return generator.random(shape, dtype=np.float32)
        return generator.random(self._num_events)
