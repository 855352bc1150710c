"""Training on impulse responses: each epoch other sounds, validation always the same."""

import numpy as np
import pytest
import scipy.io.wavfile
import torch

from gerbil_tune.config.load import load_experiment
from gerbil_tune.data.events import open_events, recording_setup
from gerbil_tune.data.splits.splits import Splits
from gerbil_tune.errors import ConfigError
from gerbil_tune.models.localizer import Localizer
from gerbil_tune.training.job import TrainingJob
from gerbil_tune.training.loop import train_loop
from gerbil_tune.training.session import InProcessSession
from gerbil_tune.training.steps import StreamedSteps, ValidationSet, make_training_steps

SESSION = InProcessSession(lambda _: None, torch.device("cpu"))


@pytest.fixture
def job(make_event_file, tmp_path):
    wavs = tmp_path / "wavs"
    wavs.mkdir()
    generator = np.random.default_rng(0)
    for number in range(4):
        sound = generator.standard_normal(800 + 100 * number).astype(np.float32)
        scipy.io.wavfile.write(wavs / f"{number}.wav", 125_000, sound)
    config = load_experiment(
        None,
        [
            f"data/source_folder={wavs}",
            "data/crop_length=900",
            "data/evaluation_crop_length=900",
            "training/epochs=2",
            "training/global_batch_size=8",
            "augmentation/noise_prob=0.5",
            "augmentation/shift_prob=0.5",
            "model/lags/num_channels=4",
        ],
    )
    events = open_events(make_event_file(layout="rir", num_events=24))
    splits = Splits(events.subset(np.arange(16)), events.subset(np.arange(16, 24)), None)
    setup = recording_setup(events, config.data)
    return TrainingJob(config, setup, splits, tmp_path / "run")


def test_each_epoch_has_other_sounds_and_a_repeated_one_the_same(job):
    model = Localizer(job.config, job.setup)
    steps = make_training_steps(job.config, job.setup, job.splits.train, model, SESSION)
    assert isinstance(steps, StreamedSteps)
    first, again, second = (
        torch.cat([features.gcc_BPL for features, _ in steps.epoch(epoch)]) for epoch in (0, 0, 1)
    )
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.allclose(first, second)
    assert torch.isfinite(first).all()


def test_validation_always_has_the_same_sounds(job):
    validation = ValidationSet(Localizer(job.config, job.setup), job, SESSION)
    runs = [[features.gcc_BPL for features, *_ in validation.batches()] for _ in range(2)]
    for one, two in zip(*runs, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=0)


def test_the_loop_runs(job):
    progress = train_loop(job, SESSION)
    assert progress.epoch == 2
    assert np.isfinite(progress.best_value)


def test_without_sounds_it_is_refused(job):
    config = load_experiment(None, [])
    with pytest.raises(ConfigError, match="--set data/source_folder=WAVS"):
        make_training_steps(
            config, job.setup, job.splits.train, Localizer(config, job.setup), SESSION
        )
