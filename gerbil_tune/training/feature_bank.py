"""Features of events, kept after their first computation where they never change.

A network that sees correlations or maps alone gets the same numbers each epoch, unless events are cropped at
random or their audio is augmented. Computing them costs more than the network itself, so they are kept: in
memory, or, where many runs see the same ones, in a file of the cache that all runs of a machine share.

Letters: B batch, N events, R numbers of an event's features, K keypoints, D axes.
"""

import hashlib
import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.data.batches import EvaluationBatches
from gerbil_tune.data.events import EventSet
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.features.extractor import FeatureExtractor
from gerbil_tune.models.features.features import FeatureKind, Features, InputShapes
from gerbil_tune.models.registry import ARCHITECTURES
from gerbil_tune.training.feature_file import make_feature_file, open_feature_file

_MAX_BYTES = 2 * 1024**3
_FLOAT_BYTES = 4
_BATCH = 64
# Correlations do not change with the sign of the audio, and mirroring takes them as they are.
_HARMLESS = {"polarity_prob", "mirror_prob"}
_FORMAT = 1
"""Of what is computed: to be raised with any change that makes other numbers of the same audio."""


def features_are_constant(
    config: ExperimentConfig, extractor: FeatureExtractor, events: EventSet
) -> bool:
    """Whether training sees the same features of each event in every epoch."""
    changing = [
        name
        for name, value in config.augmentation
        if name.endswith("_prob") and value > 0 and name not in _HARMLESS
    ]
    return (
        "waveform" not in extractor.uses
        and not changing
        and not events.is_impulse_response
        and int(events.lengths.max()) <= config.data.crop_length
    )


def feature_key(
    config: ExperimentConfig, setup: RecordingSetup, data_fingerprint: str, crop_length: int
) -> str:
    """Hash of all that determines the features in a bank, 64 hex digits.

    Args:
        config: Those features count that its architecture uses, and the audio scaling if it changes them.
        setup: The recording site.
        data_fingerprint: Of the events.
        crop_length: Samples of an event that are used, from its middle.
    """
    uses = ARCHITECTURES[config.model.kind].uses
    scaling = config.scaling.audio
    facts: dict[str, Any] = {
        "format": _FORMAT,
        "features": {kind: getattr(config.features, kind).model_dump() for kind in sorted(uses)},
        # Any other is a factor common to all channels, which cancels.
        "scaling": scaling.kind if scaling.kind == "channel_zscore" else None,
        "setup": setup.to_json(),
        "data": data_fingerprint,
        "crop_length": crop_length,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


class FeatureBank:
    """Features and locations of a set of events, computed when first asked for.

    Args:
        extractor: Of the features; one that does not use the waveform.
        events: N events with locations.
        crop_length: Samples of an event that are used, from its middle.
        device: Where features are computed and kept.
        cache_file: File of the features, which ``fill`` makes where there is none; None: they are kept in
            the memory of this process alone.
    """

    def __init__(
        self,
        extractor: FeatureExtractor,
        events: EventSet,
        *,
        crop_length: int,
        device: torch.device,
        cache_file: Path | None = None,
    ) -> None:
        self._extractor = extractor
        self._events = events
        self._crop_length = crop_length
        self._device = device
        self._cache_file = cache_file
        self._shapes = _event_shapes(extractor.shapes, extractor.uses)
        self._row_size = sum(math.prod(shape) for shape in self._shapes.values())
        self._has = np.zeros(len(events), dtype=bool)
        self._rows_NR = torch.empty(0, self._row_size, device=device)
        assert events.locations_mm is not None
        self._locations_NKD = torch.from_numpy(events.locations_mm).to(device)
        self._lengths_N = torch.from_numpy(np.minimum(events.lengths, crop_length)).to(device)
        if cache_file is not None:
            self._take(open_feature_file(cache_file, (len(events), self._row_size)))

    @staticmethod
    def fits(extractor: FeatureExtractor, events: EventSet) -> bool:
        """Whether the features of all events take no more than 2 GiB."""
        shapes = _event_shapes(extractor.shapes, extractor.uses)
        numbers = sum(math.prod(shape) for shape in shapes.values())
        return _FLOAT_BYTES * len(events) * numbers <= _MAX_BYTES

    def get(self, indices_B: np.ndarray) -> tuple[Features, Tensor]:
        """Features and locations (B, K, D) in mm of the events with these numbers."""
        # By blocks of neighbours, not by what is asked for: which events are computed together shows in the
        # last bits, and a run that goes on asks in another order than one that was not interrupted.
        for block in np.unique(indices_B[~self._has[indices_B]] // _BATCH):
            self._keep(block * _BATCH)
        places_B = torch.from_numpy(np.asarray(indices_B, np.int64)).to(self._device)
        features = self._features(self._lengths_N[places_B], self._rows_NR[places_B])
        return features, self._locations_NKD[places_B]

    def fill(self, stop: Callable[[], bool]) -> None:
        """Compute what is missing, or wait for another process that does, until ``stop`` says so."""
        if self._has.all():
            return
        if self._cache_file is not None:
            self._fill_from_file(self._cache_file, stop)
        for first in range(0, len(self._has), _BATCH):
            if stop():
                return
            if not self._has[first]:
                self._keep(first)

    def batches(self, size: int) -> Iterator[tuple[np.ndarray, Features, Tensor]]:
        """Numbers of the events and ``get`` of them, for all in order, ``size`` at a time."""
        for start in range(0, len(self._has), size):
            indices_B = np.arange(start, min(start + size, len(self._has)))
            yield indices_B, *self.get(indices_B)

    def _fill_from_file(self, path: Path, stop: Callable[[], bool]) -> None:
        """Share the features of all events; without a cache that can be written, change nothing."""
        shape = (len(self._has), self._row_size)
        blocks = (self._compute(first).cpu().numpy() for first in range(0, shape[0], _BATCH))
        try:
            self._take(make_feature_file(path, shape, blocks, stop))
        except OSError as error:
            print(
                f"{path.parent}: cannot be used ({error}); features are kept in the memory of this run",
                file=sys.stderr,
            )

    def _take(self, rows_NR: np.ndarray | None) -> None:
        """Use rows of a file from now on, mapped on a CPU, copied to any other device."""
        if rows_NR is not None:
            self._rows_NR = torch.from_numpy(rows_NR).to(self._device)
            self._has[:] = True

    def _keep(self, first: int) -> None:
        """Compute and keep the block that begins with an event."""
        if len(self._rows_NR) < len(self._has):
            self._rows_NR = torch.empty(len(self._has), self._row_size, device=self._device)
        self._rows_NR[first : first + _BATCH] = self._compute(first)
        self._has[first : first + _BATCH] = True

    @torch.no_grad()
    def _compute(self, first: int) -> Tensor:
        """Rows of the block that begins with an event, (at most 64, R)."""
        indices = np.arange(first, min(first + _BATCH, len(self._has)))
        batches = EvaluationBatches(
            self._events.subset(indices),
            crop_length=self._crop_length,
            per_worker_batch_size=_BATCH,
            with_statistics=self._extractor.uses_statistics,
        )
        rows_BR = torch.empty(len(indices), self._row_size, device=self._device)
        for batch in batches:
            batch = batch.to(self._device)
            features = self._extractor(
                batch.audio_BTC, batch.lengths_B, batch.mean_BC, batch.sd_BC, may_overwrite=True
            )
            kept = [part for part in (features.gcc_BPL, features.maps_BFYX) if part is not None]
            rows_BR[batch.indices_B] = torch.cat([part.flatten(1) for part in kept], dim=1)
        return rows_BR

    def _features(self, lengths_B: Tensor, rows_BR: Tensor) -> Features:
        sizes = [math.prod(shape) for shape in self._shapes.values()]
        parts = zip(self._shapes.items(), torch.split(rows_BR, sizes, dim=1), strict=True)
        kept = {
            kind: part_BR.reshape(len(part_BR), *shape).contiguous()
            for (kind, shape), part_BR in parts
        }
        return Features(lengths_B, gcc_BPL=kept.get("gcc"), maps_BFYX=kept.get("maps"))


def _event_shapes(
    shapes: InputShapes, uses: frozenset[FeatureKind]
) -> dict[FeatureKind, tuple[int, ...]]:
    """Shape of each kind of features that a bank keeps of an event, in the order of its row."""
    every: dict[FeatureKind, tuple[int, ...]] = {
        "gcc": (shapes.gcc_planes, shapes.num_lags),
        "maps": (shapes.map_planes, *shapes.map_shape),
    }
    return {kind: shape for kind, shape in every.items() if kind in uses}
