"""The input of each optimizer step: features and locations, augmented; streamed or from memory.

Letters: B batch, N events, K keypoints, D axes.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.data.augment.augmenter import Augmenter
from gerbil_tune.data.augment.draws import EventDraws
from gerbil_tune.data.batches import Batch, EvaluationBatches, TrainingBatches, prefetch
from gerbil_tune.data.events import EventSet
from gerbil_tune.data.shards import evaluation_shard, training_schedule
from gerbil_tune.data.sources import open_sounds
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.features.features import Features
from gerbil_tune.models.localizer import Localizer
from gerbil_tune.models.mirroring import MirrorAugmentation
from gerbil_tune.training.feature_bank import FeatureBank, feature_key, features_are_constant
from gerbil_tune.training.job import TrainingJob
from gerbil_tune.training.session import TrainingSession

StepInput = tuple[Features, Tensor]
"""Features and locations (B, K, D) in mm."""
ValidationInput = tuple[Features, Tensor, np.ndarray]
"""Features, locations (B, K, D) in mm, and the places (B,), int64, of the events in their set."""


class TrainingSteps(Protocol):
    """Inputs of the steps of one worker.

    Attributes:
        num_steps: Steps in an epoch, the same on all workers.
    """

    num_steps: int

    def prepare(self, stop: Callable[[], bool]) -> None:
        """Do what takes long before the first step; as soon as ``stop`` says so, leave the rest undone."""

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[StepInput]:
        """Inputs of one epoch from a step on, in an order that depends on seed and epoch alone."""


def make_training_steps(
    config: ExperimentConfig,
    setup: RecordingSetup,
    events: EventSet,
    model: Localizer,
    session: TrainingSession,
    *,
    feature_cache: Path | None = None,
) -> TrainingSteps:
    """Keep features in memory or a cache where they are constant and fit, else stream audio.

    Args:
        config: The experiment.
        setup: The recording site.
        events: The training set.
        model: Whose extractor computes the features.
        session: Which worker this is.
        feature_cache: Folder of features that several runs see alike; None: there is none.
    """
    extractor = model.extractor
    if features_are_constant(config, extractor, events) and FeatureBank.fits(extractor, events):
        return BankedSteps(config, setup, events, model, session, feature_cache=feature_cache)
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
        self._model = model
        self._device = session.device
        self._seed = config.training.seed
        self._crop_length = config.data.crop_length
        self._sounds = open_sounds(events, config.data, setup.sample_rate_hz)
        self._draws = EventDraws(len(events), setup.num_microphones, seed=config.training.seed)
        self._augmenter = Augmenter(config.augmentation, self._draws, setup.sample_rate_hz)
        self._mirror = MirrorAugmentation(config.augmentation.mirror_prob, setup)
        self._batches = TrainingBatches(
            events,
            crop_length=samples_to_read(events, config.data.crop_length),
            global_batch_size=config.training.global_batch_size,
            seed=config.training.seed,
            world_size=session.world_size,
            rank=session.rank,
            pin_memory=session.device.type == "cuda",
            with_statistics=model.uses_statistics,
        )
        self.num_steps = self._batches.num_steps

    def prepare(self, stop: Callable[[], bool]) -> None:
        """Nothing."""

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[StepInput]:
        """Inputs of one epoch from a step on."""
        for on_host in read_ahead(self._batches.epoch(epoch, start_step), self._device):
            yield self._transform(on_host, epoch)

    @torch.no_grad()
    def _transform(self, on_host: Batch, epoch: int) -> StepInput:
        """All that happens to a batch on the device before the network sees it."""
        batch = on_host.to(self._device)
        if self._sounds is None:
            batch = self._augmenter(batch, epoch, on_host)
        else:
            batch = self._sounds.render(
                batch, seed=self._seed, epoch=epoch, max_samples=self._crop_length
            )
            batch = self._augmenter(batch, epoch)
        features = self._model.extractor(
            batch.audio_BTC, batch.lengths_B, batch.mean_BC, batch.sd_BC, may_overwrite=True
        )
        assert batch.locations_BKD_mm is not None
        mirrored_B2 = self._draws.mirrored(
            self._mirror.probability, epoch, on_host.indices_B.numpy()
        )
        return self._mirror(features, batch.locations_BKD_mm, torch.from_numpy(mirrored_B2))


class BankedSteps:
    """Takes features from memory; reads audio before the first step alone."""

    def __init__(
        self,
        config: ExperimentConfig,
        setup: RecordingSetup,
        events: EventSet,
        model: Localizer,
        session: TrainingSession,
        *,
        feature_cache: Path | None = None,
    ) -> None:
        self._config = config
        self._session = session
        self._num_events = len(events)
        self._draws = EventDraws(len(events), setup.num_microphones, seed=config.training.seed)
        self._mirror = MirrorAugmentation(config.augmentation.mirror_prob, setup)
        self._bank = _open_bank(
            model,
            events,
            config=config,
            setup=setup,
            crop_length=config.data.crop_length,
            device=session.device,
            feature_cache=feature_cache,
        )
        self.num_steps = len(self._schedule(0))

    def prepare(self, stop: Callable[[], bool]) -> None:
        """Compute the features of all events."""
        self._bank.fill(stop)

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[StepInput]:
        """Inputs of one epoch from a step on."""
        for indices_B in self._schedule(epoch)[start_step:]:
            mirrored_B2 = self._draws.mirrored(self._mirror.probability, epoch, indices_B)
            yield self._mirror(*self._bank.get(indices_B), torch.from_numpy(mirrored_B2))

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
        training = job.config.training
        most = training.global_batch_size // session.world_size
        self._batch = max(1, most // training.accumulate_steps)
        self._crop_length = job.config.data.evaluation_crop_length
        self._events = job.splits.validation
        self._seed = job.config.training.seed
        self._sounds = open_sounds(self._events, job.config.data, job.setup.sample_rate_hz)
        self._banked_N = evaluation_shard(
            len(self._events), world_size=session.world_size, rank=session.rank
        )
        self._bank: FeatureBank | None = None
        extractor = model.extractor
        fits = FeatureBank.fits(extractor, self._events)
        if fits and self._sounds is None and "waveform" not in extractor.uses:
            self._bank = _open_bank(
                model,
                self._events.subset(self._banked_N),
                config=job.config,
                setup=job.setup,
                crop_length=self._crop_length,
                device=session.device,
                feature_cache=job.feature_cache,
            )

    def batches(self) -> Iterator[ValidationInput]:
        """What is to be predicted; in the same order each time, but for each model and rank in its own."""
        if self._bank is not None:
            self._bank.fill(self._session.stop_requested)
            for rows_B, features, locations_BKD in self._bank.batches(self._batch):
                yield features, locations_BKD, self._banked_N[rows_B]
            return
        batches = self._read(
            self._events, self._batch, self._session.world_size, self._session.rank
        )
        for on_host in read_ahead(iter(batches), self._session.device):
            batch = self._render(on_host)
            assert batch.locations_BKD_mm is not None
            features = self._model.extractor(
                batch.audio_BTC, batch.lengths_B, batch.mean_BC, batch.sd_BC, may_overwrite=True
            )
            yield features, batch.locations_BKD_mm, on_host.indices_B.numpy()

    def audio(self, num_events: int) -> Batch:
        """One batch of the first events, at most ``num_events``, on the device."""
        events = self._events.subset(np.arange(min(num_events, len(self._events))))
        return self._render(next(iter(self._read(events, num_events))))

    def _read(
        self, events: EventSet, size: int, world_size: int = 1, rank: int = 0
    ) -> EvaluationBatches:
        return EvaluationBatches(
            events,
            crop_length=samples_to_read(events, self._crop_length),
            per_worker_batch_size=size,
            world_size=world_size,
            rank=rank,
            pin_memory=self._session.device.type == "cuda",
            with_statistics=self._model.uses_statistics,
        )

    def _render(self, on_host: Batch) -> Batch:
        """The batch on the device; impulse responses as the recordings that they stand for."""
        batch = on_host.to(self._session.device)
        if self._sounds is None:
            return batch
        return self._sounds.render(
            batch, seed=self._seed, epoch=None, max_samples=self._crop_length
        )


def _open_bank(
    model: Localizer,
    events: EventSet,
    *,
    config: ExperimentConfig,
    setup: RecordingSetup,
    crop_length: int,
    device: torch.device,
    feature_cache: Path | None,
) -> FeatureBank:
    """Bank of a set of events, in the cache where there is one."""
    cache_file = None
    if feature_cache is not None:
        key = feature_key(config, setup, events.fingerprint(), crop_length)
        # Another kind of processor computes other last bits, and a run that goes on must find its own.
        cache_file = feature_cache / f"{key}-{device.type}.npy"
    return FeatureBank(
        model.extractor, events, crop_length=crop_length, device=device, cache_file=cache_file
    )


def samples_to_read(events: EventSet, crop_length: int) -> int:
    """Samples of an event that are read at most: impulse responses whole, their recordings are cropped."""
    return int(events.lengths.max()) if events.is_impulse_response else crop_length


def mix_seed(seed: int, epoch: int, rank: int, step: int) -> int:
    """One 63-bit seed from several numbers."""
    entropy = (seed & (2**63 - 1), epoch, rank, step)
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)


def read_ahead(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """Where a GPU computes meanwhile, let a thread read the next batches."""
    return batches if device.type == "cpu" else prefetch(batches)
