"""Features of events, kept after their first computation where they never change.

A network that sees correlations alone gets the same numbers each epoch, unless events are cropped at random
or their audio is augmented. Computing them costs more than the network itself, so they are kept in memory.

Letters: B batch, N events, K keypoints, D axes.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.data.batches import EvaluationBatches
from gerbil_tune.data.events import EventSet
from gerbil_tune.models.features import Features
from gerbil_tune.models.localizer import Localizer

_MAX_BYTES = 2 * 1024**3
_BATCH = 64
# Correlations do not change with the sign of the audio, and mirroring takes them as they are.
_HARMLESS = {"polarity_prob", "mirror_prob"}


def features_are_constant(config: ExperimentConfig, model: Localizer, events: EventSet) -> bool:
    """Whether training sees the same features of each event in every epoch."""
    changing = [
        name
        for name, value in config.augmentation
        if name.endswith("_prob") and value > 0 and name not in _HARMLESS
    ]
    return (
        not model.network.uses_audio
        and not changing
        and not events.is_impulse_response
        and int(events.lengths.max()) <= config.data.crop_length
    )


class FeatureBank:
    """Correlations and locations of a set of events, computed when first asked for.

    Args:
        model: Whose features; one that does not use the audio itself.
        events: N events with locations.
        crop_length: Samples of an event that are used, from its middle.
        device: Where features are computed and kept.
    """

    def __init__(
        self, model: Localizer, events: EventSet, *, crop_length: int, device: torch.device
    ) -> None:
        self._model = model
        self._events = events
        self._crop_length = crop_length
        self._device = device
        self._has = np.zeros(len(events), dtype=bool)
        planes, lags = model.gcc.num_planes, model.gcc.num_lags
        self._gcc_NPL = torch.empty(len(events), planes, lags, device=device)
        assert events.locations_mm is not None
        self._locations_NKD = torch.from_numpy(events.locations_mm).to(device)
        self._lengths_N = torch.from_numpy(np.minimum(events.lengths, crop_length)).to(device)

    @staticmethod
    def fits(model: Localizer, events: EventSet) -> bool:
        """Whether the features of all events take no more than 2 GiB."""
        return 4 * len(events) * model.gcc.num_planes * model.gcc.num_lags <= _MAX_BYTES

    def get(self, indices_B: np.ndarray) -> tuple[Features, Tensor]:
        """Features and locations (B, K, D) in mm of the events with these numbers."""
        # By blocks of neighbours, not by what is asked for: which events are computed together shows in the
        # last bits, and a run that goes on asks in another order than one that was not interrupted.
        for block in np.unique(indices_B[~self._has[indices_B]] // _BATCH):
            self._compute(block * _BATCH)
        rows_B = torch.from_numpy(np.asarray(indices_B, np.int64)).to(self._device)
        features = Features(None, self._lengths_N[rows_B], self._gcc_NPL[rows_B])
        return features, self._locations_NKD[rows_B]

    def fill(self, stop: Callable[[], bool]) -> None:
        """Compute what is missing, until ``stop`` says so."""
        for first in range(0, len(self._has), _BATCH):
            if stop():
                return
            if not self._has[first]:
                self._compute(first)

    def batches(self, size: int) -> Iterator[tuple[np.ndarray, Features, Tensor]]:
        """Numbers of the events and ``get`` of them, for all in order, ``size`` at a time."""
        for start in range(0, len(self._has), size):
            indices_B = np.arange(start, min(start + size, len(self._has)))
            yield indices_B, *self.get(indices_B)

    @torch.no_grad()
    def _compute(self, first: int) -> None:
        """Compute the block that begins with an event."""
        indices = np.arange(first, min(first + _BATCH, len(self._has)))
        batches = EvaluationBatches(
            self._events.subset(indices),
            crop_length=self._crop_length,
            per_worker_batch_size=_BATCH,
            with_statistics=self._model.uses_statistics,
        )
        for batch in batches:
            batch = batch.to(self._device)
            features = self._model.extract_features(
                batch.audio_BTC, batch.lengths_B, batch.mean_BC, batch.sd_BC, may_overwrite=True
            )
            assert features.gcc_BPL is not None
            rows = torch.from_numpy(indices[batch.indices_B.cpu().numpy()]).to(self._device)
            self._gcc_NPL[rows] = features.gcc_BPL
        self._has[indices] = True
