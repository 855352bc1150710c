import gc
import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gerbil_tune.data.batches import EvaluationBatches, TrainingBatches, prefetch
from gerbil_tune.data.events import open_events
from gerbil_tune.data.files.mapping import AudioMapping
from gerbil_tune.errors import ConfigError, DatasetError


@pytest.fixture
def events(make_event_file):
    """30 events of 20 to 200 samples in two files."""
    options = {"lengths": (20, 200), "dtype": "int16", "num_microphones": 3}
    paths = [make_event_file("a.h5", num_events=18, **options)]
    paths.append(make_event_file("b.h5", num_events=12, seed=1, **options))
    return open_events(paths)


def training(events, **options):
    defaults = {"crop_length": 64, "global_batch_size": 12, "seed": 3}
    return TrainingBatches(events, **{**defaults, **options})


def rows(batches):
    """What each event of a list of batches was seen as, without the padding."""
    return {
        int(i): audio[:length].numpy().tobytes()
        for batch in batches
        for i, audio, length in zip(batch.indices_B, batch.audio_BTC, batch.lengths_B, strict=True)
    }


def check_batch(events, batch, crop_length):
    """Each row is a stretch of its event, padded with zeros to the longest of the batch."""
    assert batch.audio_BTC.shape[1] == max(int(batch.lengths_B.max()), 1)
    assert batch.lengths_B.dtype == batch.indices_B.dtype == torch.int64
    np.testing.assert_array_equal(
        batch.locations_BKD_mm, events.locations_mm[batch.indices_B.numpy()]
    )
    for i, audio_TC, length in zip(
        batch.indices_B.tolist(), batch.audio_BTC.numpy(), batch.lengths_B.tolist(), strict=True
    ):
        event = events.read(i)
        assert length == min(len(event), crop_length)
        assert not audio_TC[length:].any()
        stretches = np.lib.stride_tricks.sliding_window_view(event, length, axis=0)
        crop = audio_TC[:length].astype(event.dtype).T
        assert (stretches == crop).all(axis=(1, 2)).any()


def test_training_batches_hold_crops_of_their_events(events):
    batches = training(events)
    assert batches.num_steps == 2
    seen = list(batches.epoch(0))
    assert len(seen) == 2
    for batch in seen:
        assert batch.audio_BTC.dtype == torch.int16
        check_batch(events, batch, crop_length=64)


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ("int16", torch.int16),
        (">i2", torch.int16),
        ("float32", torch.float32),
        (">f4", torch.float32),
        ("float64", torch.float32),
    ],
)
def test_types_and_values_of_the_audio(make_event_file, stored, expected):
    events = open_events(make_event_file(dtype=stored, lengths=[50] * 4))
    (batch,) = EvaluationBatches(events, crop_length=50, per_worker_batch_size=4)
    assert batch.audio_BTC.dtype == expected
    native = {torch.int16: np.int16, torch.float32: np.float32}[expected]
    for i, audio in zip(batch.indices_B.tolist(), batch.audio_BTC.numpy(), strict=True):
        np.testing.assert_array_equal(audio, events.read(i).astype(native))


def test_wider_integers_are_fractions_of_their_full_scale(make_event_file):
    audio = np.array([[-(2**31)], [0], [2**30]])
    path = make_event_file(dtype="int32", lengths=[3], num_microphones=1, audio=audio)
    (batch,) = EvaluationBatches(
        open_events(path), crop_length=3, per_worker_batch_size=1, with_statistics=True
    )
    assert batch.audio_BTC.flatten().tolist() == [-1.0, 0.0, 0.5]
    assert batch.mean_BC is not None
    assert batch.sd_BC is not None
    assert batch.mean_BC.item() == pytest.approx(-1 / 6)
    assert batch.sd_BC.item() == pytest.approx(np.std([-1.0, 0.0, 0.5]))


@pytest.mark.parametrize("stored", ["int16", "float32"])
def test_statistics_are_of_the_whole_event_whatever_is_cropped(make_event_file, stored):
    events = open_events(
        [make_event_file(f"{seed}.h5", dtype=stored, num_events=9, seed=seed) for seed in (1, 2)]
    ).subset([3, 17, 0, 9])
    batches = TrainingBatches(
        events, crop_length=20, global_batch_size=2, seed=0, with_statistics=True
    )
    for _ in range(2):  # computed, then kept
        for batch in batches.epoch(0):
            for place, i in enumerate(batch.indices_B.tolist()):
                audio = events.read(i).astype(np.float64)
                np.testing.assert_allclose(batch.mean_BC[place], audio.mean(0), rtol=1e-5)
                np.testing.assert_allclose(batch.sd_BC[place], audio.std(0), rtol=1e-5)


def test_no_statistics_where_nobody_asks(make_event_file):
    (batch,) = EvaluationBatches(
        open_events(make_event_file(num_events=2)), crop_length=9, per_worker_batch_size=2
    )
    assert batch.mean_BC is None
    assert batch.to("cpu").sd_BC is None


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    world_size=st.sampled_from([1, 2, 3, 4, 6, 12]),
    seed=st.integers(-5, 1000),
    epoch=st.integers(0, 100),
    crop_length=st.integers(1, 250),
)
def test_workers_together_see_what_one_sees(events, world_size, seed, epoch, crop_length):
    options = {"seed": seed, "crop_length": crop_length}
    alone = list(training(events, **options).epoch(epoch))
    ranks = [
        list(training(events, world_size=world_size, rank=rank, **options).epoch(epoch))
        for rank in range(world_size)
    ]
    assert {len(batches) for batches in ranks} == {len(alone)}
    for step, whole in enumerate(alone):
        parts = [batches[step] for batches in ranks]
        assert torch.equal(torch.cat([part.indices_B for part in parts]), whole.indices_B)
        assert rows(parts) == rows([whole])


def test_a_run_goes_on_within_an_epoch(events):
    batches = training(events, global_batch_size=5)
    whole, rest = list(batches.epoch(2)), list(batches.epoch(2, start_step=4))
    assert len(rest) == len(whole) - 4
    for expected, received in zip(whole[4:], rest, strict=True):
        assert torch.equal(expected.indices_B, received.indices_B)
        assert torch.equal(expected.audio_BTC, received.audio_BTC)


def test_crops_change_with_the_epoch_and_reach_both_ends(make_event_file):
    ramp = np.tile(np.arange(10, dtype=np.int16)[:, None], (1, 1))
    events = open_events(
        make_event_file(lengths=[10], num_microphones=1, audio=ramp, dtype="int16")
    )
    batches = training(events, crop_length=8)
    starts = [int(next(batches.epoch(epoch)).audio_BTC[0, 0, 0]) for epoch in range(300)]
    counts = np.bincount(starts, minlength=3)
    assert len(counts) == 3
    assert (np.abs(counts - 100) < 40).all()  # five standard deviations of a fair draw


@pytest.mark.parametrize("world_size", [1, 3, 7])
def test_evaluation_sees_the_middle_of_each_event_once(events, world_size):
    seen = []
    for rank in range(world_size):
        batches = EvaluationBatches(
            events, crop_length=64, per_worker_batch_size=4, world_size=world_size, rank=rank
        )
        received = list(batches)
        assert len(received) == len(batches)
        longest = [int(length) for batch in received for length in batch.lengths_B]
        assert longest == sorted(longest, reverse=True)
        for batch in received:
            check_batch(events, batch, crop_length=64)
        seen += received
    assert sum(len(batch.indices_B) for batch in seen) == len(events)
    middles = rows(seen)
    assert len(middles) == len(events)
    for i in range(len(events)):
        event = events.read(i)
        first = max(len(event) - 64, 0) // 2
        assert middles[i] == event[first : first + 64].tobytes()


def test_more_workers_than_events(events):
    few = events.subset([0, 1])
    batches = EvaluationBatches(few, crop_length=9, per_worker_batch_size=4, world_size=3, rank=2)
    assert len(batches) == len(list(batches)) == 0
    with pytest.raises(DatasetError, match="2 training events for 3 workers"):
        training(few, world_size=3)
    with pytest.raises(ConfigError, match="multiple of the 5 workers"):
        training(events, world_size=5)
    with pytest.raises(ConfigError, match="per_worker_batch_size is 0"):
        EvaluationBatches(few, crop_length=9, per_worker_batch_size=0)


def test_empty_events_and_missing_locations(make_event_file):
    events = open_events(make_event_file(lengths=[0, 0, 5], locations=None))
    (batch,) = EvaluationBatches(events.subset([0, 1]), crop_length=9, per_worker_batch_size=4)
    assert batch.audio_BTC.shape == (2, 1, 4)
    assert not batch.audio_BTC.any()
    assert batch.lengths_B.tolist() == [0, 0]
    assert batch.locations_BKD_mm is None
    assert batch.to("cpu").locations_BKD_mm is None


def test_to_moves_every_tensor(events):
    moved = next(training(events).epoch(0)).to("meta")
    tensors = (moved.audio_BTC, moved.lengths_B, moved.locations_BKD_mm, moved.indices_B)
    assert {tensor.device.type for tensor in tensors} == {"meta"}


def test_batches_do_not_share_memory_with_the_order(events):
    batches = EvaluationBatches(events, crop_length=64, per_worker_batch_size=30)
    (first,) = batches
    expected = first.indices_B.clone()
    first.indices_B.zero_()
    (second,) = batches
    assert torch.equal(second.indices_B, expected)


def prefetch_threads():
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def wait_until(condition):
    limit = time.monotonic() + 5
    while not condition() and time.monotonic() < limit:
        time.sleep(0.005)
    assert condition()


def test_prefetch_keeps_order_and_ends_its_thread(events):
    direct = [batch.indices_B for batch in training(events, global_batch_size=3).epoch(0)]
    ahead = prefetch(training(events, global_batch_size=3).epoch(0))
    for expected, received in zip(direct, ahead, strict=True):
        assert torch.equal(expected, received.indices_B)
    assert not prefetch_threads()


def test_prefetch_reads_no_further_than_asked():
    taken = []
    ahead = prefetch((taken.append(i) or i for i in range(100)), depth=3)
    assert next(ahead) == 0
    wait_until(lambda: taken == [0, 1, 2, 3])
    time.sleep(0.05)
    assert taken == [0, 1, 2, 3]
    ahead.close()
    assert not prefetch_threads()


def test_prefetch_raises_in_its_place():
    def broken():
        yield 1
        raise DatasetError("gone")

    ahead = prefetch(broken())
    assert next(ahead) == 1
    with pytest.raises(DatasetError, match="gone"):
        next(ahead)
    assert not prefetch_threads()


def test_prefetch_that_is_forgotten_ends_its_thread():
    ahead = prefetch(iter(range(100)))
    next(ahead)
    assert prefetch_threads()
    del ahead
    gc.collect()
    wait_until(lambda: not prefetch_threads())


@pytest.mark.parametrize(("speed", "announced"), [(0.0, 0), (float("inf"), 23)])
def test_crops_are_announced_where_reading_is_slow(make_event_file, monkeypatch, speed, announced):
    told = []
    monkeypatch.setattr("gerbil_tune.data.batches._BYTES_A_SECOND_FROM_MEMORY", speed)
    monkeypatch.setattr(
        AudioMapping, "will_need", lambda _, first, length: told.append((first, length))
    )
    events = open_events(make_event_file(num_events=24))
    batches = TrainingBatches(events, crop_length=50, global_batch_size=1, seed=0)
    read = list(batches.epoch(0))
    assert len(told) == announced
    for (first, length), batch in zip(told, read[1:], strict=False):
        crop = events.files[0].audio()[first : first + length]
        np.testing.assert_array_equal(batch.audio_BTC[0], crop)


def test_a_batch_now_and_then_shows_whether_the_disk_is_still_slow(make_event_file, monkeypatch):
    told = []
    monkeypatch.setattr("gerbil_tune.data.batches._BYTES_A_SECOND_FROM_MEMORY", float("inf"))
    monkeypatch.setattr("gerbil_tune.data.batches._BATCHES_TO_ANNOUNCE", 4)
    monkeypatch.setattr(AudioMapping, "will_need", lambda *_: told.append(len(told)))
    batches = TrainingBatches(
        open_events(make_event_file(num_events=20)), crop_length=50, global_batch_size=1, seed=0
    )
    counts = [len(told) for _ in batches.epoch(0)]
    assert np.flatnonzero(np.diff(counts) == 0).tolist() == [3, 8, 13, 18]
