import numpy as np
import pytest

from gerbil_tune.data.checks.signal_to_noise import Frames, estimate_snr_db
from gerbil_tune.data.events import open_events
from gerbil_tune.evaluation.event_snr import ragged_snr_db, snr_db


def test_all_events_at_once_are_as_each_alone():
    rng = np.random.default_rng(0)
    num_frames = rng.integers(4, 40, 100)
    first = np.cumsum(num_frames) - num_frames
    powers = rng.gamma(1, 1, (num_frames.sum(), 3))
    powers[first[3] : first[4], 1] = 0  # a dead microphone
    powers[first[5] : first[6]] = 0  # all dead
    powers[first[6] : first[7] - 1, 2] = 0  # digital silence but for one frame
    found = ragged_snr_db(powers, num_frames, 0.1)
    alone = [
        estimate_snr_db(powers[start : start + count].T, 0.1)
        for start, count in zip(first, num_frames, strict=True)
    ]
    np.testing.assert_allclose(found, alone)
    assert np.isnan(found[5])
    assert np.isposinf(found[6])


@pytest.mark.parametrize("dtype", ["float32", "int16"])
def test_events_of_files(make_event_file, dtype):
    lengths = [2600, 100, 5000, 2000, 9001]
    paths = [make_event_file(f"{i}.h5", lengths=lengths, dtype=dtype, seed=i) for i in range(2)]
    events = open_events(paths).subset([7, 0, 1, 4, 9, 2])
    found = snr_db(events, 125_000.0)
    frames = Frames(500)
    alone = [estimate_snr_db(frames.powers_CF(events.read(i)), 0.1) for i in range(len(events))]
    np.testing.assert_allclose(found, alone, atol=1e-4)
    assert np.isnan(found).tolist() == [False, False, True, False, False, False]


def test_audio_that_is_not_finite_is_not_known(make_event_file):
    audio = np.random.default_rng(0).standard_normal((6000, 4))
    audio[100, 2] = np.nan
    audio[3500, 1] = np.inf
    events = open_events(make_event_file(lengths=[3000, 3000], audio=audio))
    assert np.isnan(snr_db(events, 125_000.0)).all()
