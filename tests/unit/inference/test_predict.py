"""Predictions in one process against the model called on each event by itself."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gerbil_tune.config.schema import DataConfig
from gerbil_tune.data.events import open_events
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.inference.arrays import predict_arrays
from gerbil_tune.inference.predict import plan_tasks, predict_events
from gerbil_tune.models.bundle import Bundle, load_bundle
from gerbil_tune.models.density import LocationDensity

CROP = 500


@pytest.fixture(scope="module")
def bundle(make_bundle: Callable[..., Path]) -> Bundle:
    """Two keypoints in three axes, events cropped to 500 samples."""
    setup = RecordingSetup(
        4, 125_000.0, (572.0, 356.0, 300.0), keypoints=("nose", "head"), num_axes=3
    )
    path = make_bundle(setup, temperature=2.0, data=DataConfig(evaluation_crop_length=CROP))
    return load_bundle(path)


@pytest.mark.parametrize("dtype", ["float32", "int16"])
def test_each_event_gets_what_the_model_says_of_it_alone(bundle, make_event_file, dtype):
    path = make_event_file(lengths=[700, 300, 500, 20, 2000, 450, 300], dtype=dtype, locations=None)
    events = open_events(path)
    done: list[int] = []
    found = predict_events(bundle, events, per_worker_batch_size=3, progress=done.append)
    mean, covariance = found.mean_mm_NKD, found.covariance_mm2_NKDD
    assert found.nll_NK is None
    assert (mean.shape, mean.dtype) == ((7, 2, 3), np.float32)
    assert (covariance.shape, covariance.dtype) == ((7, 2, 3, 3), np.float32)
    assert sum(done) == 7
    for i in range(7):
        audio = events.read(i)
        first = (len(audio) - min(len(audio), CROP)) // 2
        crop = torch.from_numpy(audio[first : first + CROP].copy())[None]
        alone = bundle.predict_batch(crop, torch.tensor([crop.shape[1]]))
        np.testing.assert_allclose(mean[i], alone.mean_mm_BKD[0], atol=1e-2)
        np.testing.assert_allclose(
            covariance[i], alone.covariance_mm2_BKDD[0], rtol=1e-3, atol=1e-2
        )


def test_covariances_are_calibrated_and_positive(bundle, make_event_file):
    events = open_events(make_event_file())
    covariance = predict_events(bundle, events, per_worker_batch_size=64).covariance_mm2_NKDD
    assert np.linalg.eigvalsh(covariance).min() > 0


def test_padded_arrays_are_predicted_as_files_are(bundle, make_event_file):
    lengths = [700, 300, 20, 2000]
    events = open_events(make_event_file(lengths=lengths))
    padded = np.zeros((len(lengths), 2500, 4), np.float32)
    for i, length in enumerate(lengths):
        padded[i, :length] = events.read(i)
    expected = predict_events(bundle, events, per_worker_batch_size=64)
    received = predict_arrays(bundle, padded)
    for field in ("mean_mm_NKD", "covariance_mm2_NKDD"):
        np.testing.assert_allclose(
            getattr(received, field), getattr(expected, field), rtol=1e-3, atol=1e-2
        )


def test_batches_stay_within_memory(bundle, make_event_file, monkeypatch):
    events = open_events(make_event_file(lengths=[600] * 10))
    sizes: list[int] = []

    def predict_batch(self: Bundle, audio_BTC: torch.Tensor, *_: torch.Tensor | None):
        sizes.append(audio_BTC.numel())
        means = torch.zeros(len(audio_BTC), 2, 3)
        return LocationDensity.gaussian(means, torch.eye(3).expand(len(audio_BTC), 2, 3, 3))

    monkeypatch.setattr(Bundle, "predict_batch", predict_batch)
    monkeypatch.setattr("gerbil_tune.inference.predict._MAX_BATCH_VALUES", 3 * CROP * 4)
    predict_events(bundle, events, per_worker_batch_size=64)
    assert sizes == [3 * CROP * 4] * 3 + [CROP * 4]


class Lengths:
    """All that planning needs of a set of events."""

    def __init__(self, lengths: list[int]) -> None:
        self.lengths = np.array(lengths, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.lengths)


@given(
    st.lists(st.lists(st.integers(0, 3000), min_size=1, max_size=60), min_size=1, max_size=3),
    st.integers(1, 4),
)
@settings(deadline=None)
def test_tasks_hold_each_event_once(sets, per_worker_batch_size):
    tasks = plan_tasks(
        [Lengths(lengths) for lengths in sets],
        per_worker_batch_size=per_worker_batch_size,
        crop_length=1000,
    )
    seen = [(task.set_number, i) for task in tasks for i in range(task.start, task.stop)]
    assert seen == [(n, i) for n, lengths in enumerate(sets) for i in range(len(lengths))]
    assert all(task.start < task.stop for task in tasks)


def test_tasks_have_like_amounts_of_audio():
    rng = np.random.default_rng(0)
    lengths = rng.lognormal(8, 1, 5000).astype(int)
    # First all short events, then all long ones, as in a recording whose callers change.
    lengths = np.sort(lengths)
    tasks = plan_tasks([Lengths(list(lengths))], per_worker_batch_size=8, crop_length=65536)
    audio = [np.minimum(lengths[task.start : task.stop], 65536).sum() for task in tasks]
    assert len(tasks) == 79
    assert max(audio) < 1.5 * np.mean(audio)
