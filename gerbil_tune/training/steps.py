"""The input of each optimizer step: features and locations, augmented; streamed or from memory.

Letters: B batch, K keypoints, D axes.
"""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.data.augment import Augmenter
from gerbil_tune.data.batches import Batch, EvaluationBatches, TrainingBatches, prefetch
from gerbil_tune.data.events import EventSet
from gerbil_tune.data.shards import evaluation_shard, training_schedule
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.features import Features
from gerbil_tune.models.localizer import Localizer
from gerbil_tune.models.mirroring import MirrorAugmentation
from gerbil_tune.training.feature_bank import FeatureBank, features_are_constant
from gerbil_tune.training.job import TrainingJob
from gerbil_tune.training.session import TrainingSession

StepInput = tuple[Features, Tensor]
"""Features and locations (B, K, D) in mm."""


class TrainingSteps(Protocol):
    """Inputs of the steps of one worker.

    Attributes:
        num_steps: Steps in an epoch, the same on all workers.
    """

    num_steps: int

    def epoch(self, epoch: int) -> Iterator[StepInput]:
        """Inputs of one epoch, in an order that depends on seed and epoch alone."""


def make_training_steps(
    config: ExperimentConfig,
    setup: RecordingSetup,
    events: EventSet,
    model: Localizer,
    session: TrainingSession,
) -> TrainingSteps:
    """Keep features in memory where they are constant and fit, else stream audio."""
    if features_are_constant(config, model, events) and FeatureBank.fits(model, events):
        return BankedSteps(config, setup, events, model, session)
    return StreamedSteps(config, setup, events, model, session)


class StreamedSteps:
    """Reads, augments and transforms audio for every step."""

    def __init__(
        self,
        config: ExperimentConfig,
        setup: RecordingSetup,
        events: EventSet,
        model: Localizer,
        session: TrainingSession,
    ) -> None:
        self._seed = config.training.seed
        self._model = model
        self._session = session
        self._augmenter = Augmenter(config.augmentation)
        self._mirror = MirrorAugmentation(config.augmentation.mirror_prob, setup)
        self._batches = TrainingBatches(
            events,
            crop_length=config.data.crop_length,
            global_batch_size=config.training.global_batch_size,
            seed=config.training.seed,
            world_size=session.world_size,
            rank=session.rank,
        )
        self.num_steps = self._batches.num_steps

    def epoch(self, epoch: int) -> Iterator[StepInput]:
        """Inputs of one epoch."""
        generator = augmentation_generator(self._seed, epoch, self._session.rank)
        for batch in on_device(self._batches.epoch(epoch), self._session.device):
            changed = self._augmenter(batch, generator)
            assert changed.locations_BKD_mm is not None
            with torch.no_grad():
                features = self._model.extract_features(changed.audio_BTC, changed.lengths_B)
            yield self._mirror(features, changed.locations_BKD_mm, generator)


class BankedSteps:
    """Takes features from memory; reads audio in the first epochs alone."""

    def __init__(
        self,
        config: ExperimentConfig,
        setup: RecordingSetup,
        events: EventSet,
        model: Localizer,
        session: TrainingSession,
    ) -> None:
        self._config = config
        self._session = session
        self._num_events = len(events)
        self._mirror = MirrorAugmentation(config.augmentation.mirror_prob, setup)
        self._bank = FeatureBank(
            model, events, crop_length=config.data.crop_length, device=session.device
        )
        self.num_steps = len(self._schedule(0))

    def epoch(self, epoch: int) -> Iterator[StepInput]:
        """Inputs of one epoch."""
        seed = self._config.training.seed
        generator = augmentation_generator(seed, epoch, self._session.rank)
        for indices_B in self._schedule(epoch):
            yield self._mirror(*self._bank.get(indices_B), generator)

    def _schedule(self, epoch: int) -> np.ndarray:
        return training_schedule(
            self._num_events,
            epoch=epoch,
            seed=self._config.training.seed,
            global_batch_size=self._config.training.global_batch_size,
            world_size=self._session.world_size,
            rank=self._session.rank,
        )


class ValidationSet:
    """One worker's share of the validation events: each once over all workers."""

    def __init__(self, model: Localizer, job: TrainingJob, session: TrainingSession) -> None:
        self._model = model
        self._session = session
        self._batch = max(1, job.config.training.global_batch_size // session.world_size)
        self._crop_length = job.config.data.evaluation_crop_length
        self._events = job.splits.validation
        self._bank: FeatureBank | None = None
        if not model.network.uses_audio and FeatureBank.fits(model, self._events):
            share = evaluation_shard(
                len(self._events), world_size=session.world_size, rank=session.rank
            )
            self._bank = FeatureBank(
                model,
                self._events.subset(share),
                crop_length=self._crop_length,
                device=session.device,
            )

    def batches(self) -> Iterator[StepInput]:
        """Features and locations, in the same order each time."""
        if self._bank is not None:
            yield from self._bank.batches(self._batch)
            return
        batches = EvaluationBatches(
            self._events,
            crop_length=self._crop_length,
            per_worker_batch_size=self._batch,
            world_size=self._session.world_size,
            rank=self._session.rank,
        )
        for batch in on_device(iter(batches), self._session.device):
            assert batch.locations_BKD_mm is not None
            yield (
                self._model.extract_features(batch.audio_BTC, batch.lengths_B),
                batch.locations_BKD_mm,
            )


def augmentation_generator(seed: int, epoch: int, rank: int) -> torch.Generator:
    """Random numbers of one epoch on one worker, the same after a restart."""
    return torch.Generator().manual_seed(mix_seed(seed, epoch, rank, stream=1))


def mix_seed(seed: int, epoch: int, rank: int, *, stream: int = 0) -> int:
    """One 63-bit seed from several numbers."""
    entropy = (seed & (2**63 - 1), epoch, rank, stream)
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)


def on_device(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """Move batches to the device; on a GPU a thread reads ahead."""
    if device.type == "cpu":
        yield from batches
    else:
        for batch in prefetch(batches):
            yield batch.to(device)
