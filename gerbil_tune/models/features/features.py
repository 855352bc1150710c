"""What a network sees of a batch of events, and the shapes of it.

Letters: B batch, F planes (channels over time, or images), T samples, P planes of correlations, L lags,
Y rows and X columns of a map.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

FeatureKind = Literal["waveform", "gcc", "maps"]


@dataclass(slots=True)
class Features:
    """The inputs of an architecture; those it does not use are None.

    Attributes:
        lengths_B: (B,) int64, samples of each event.
        waveform_BFT: (B, F, T) float32, channels over time, zero in the padding. F is the kinds of channels
            times the microphones, kind by kind.
        gcc_BPL: (B, P, L) float32, correlation by pair and lag, unit mean square over an event.
        maps_BFYX: (B, F, Y, X) float32, steered response, an image a band (and height); rows are y.
    """

    lengths_B: Tensor
    waveform_BFT: Tensor | None = None
    gcc_BPL: Tensor | None = None
    maps_BFYX: Tensor | None = None

    def __len__(self) -> int:
        return len(self.lengths_B)

    def rows(self, rows: slice | Tensor) -> "Features":
        """Some of the events."""
        return Features(
            self.lengths_B[rows],
            None if self.waveform_BFT is None else self.waveform_BFT[rows],
            None if self.gcc_BPL is None else self.gcc_BPL[rows],
            None if self.maps_BFYX is None else self.maps_BFYX[rows],
        )

    def with_rows(self, rows_R: Tensor, others: "Features") -> "Features":
        """These features, with the events ``rows_R`` from ``others``; of the same lengths."""

        def put(mine: Tensor | None, theirs: Tensor | None) -> Tensor | None:
            if mine is None or theirs is None:
                return mine
            return mine.index_copy(0, rows_R, theirs)

        return Features(
            self.lengths_B,
            put(self.waveform_BFT, others.waveform_BFT),
            put(self.gcc_BPL, others.gcc_BPL),
            put(self.maps_BFYX, others.maps_BFYX),
        )


@dataclass(frozen=True, slots=True)
class InputShapes:
    """How large the features of an event are.

    Attributes:
        waveform_planes: Channels over time.
        window_length: Samples that a network over time runs over at once; longer events are seen in several
            windows.
        gcc_planes: Correlations.
        num_lags: Lags of each, centred on zero.
        map_planes: Images.
        map_shape: Rows and columns of each.
        map_extent_mm: Where the outer edges of the outermost cells lie, (x_low, x_high, y_low, y_high).
    """

    waveform_planes: int
    window_length: int
    gcc_planes: int
    num_lags: int
    map_planes: int
    map_shape: tuple[int, int]
    map_extent_mm: tuple[float, float, float, float] | None = None

    def empty(self, kinds: frozenset[FeatureKind], num_events: int, num_samples: int) -> Features:
        """Features of these shapes with no particular content, on torch's default device."""
        shapes: dict[FeatureKind, tuple[int, ...]] = {
            "waveform": (self.waveform_planes, num_samples),
            "gcc": (self.gcc_planes, self.num_lags),
            "maps": (self.map_planes, *self.map_shape),
        }
        waveform, gcc, maps = (
            torch.empty(num_events, *shape) if kind in kinds else None
            for kind, shape in shapes.items()
        )
        return Features(torch.full((num_events,), num_samples), waveform, gcc, maps)
