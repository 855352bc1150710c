import numpy as np
import pytest

from gerbil_tune.data.checks import audio_scan
from gerbil_tune.data.checks.audio_scan import scan_audio
from gerbil_tune.data.events import open_events
from gerbil_tune.errors import DatasetError


@pytest.fixture
def small_blocks(monkeypatch):
    """Events of several blocks, and tasks of a few events."""
    monkeypatch.setattr(audio_scan, "_BLOCK_VALUES", 400)
    monkeypatch.setattr(audio_scan, "_TASK_EVENTS", 3)


@pytest.mark.parametrize("dtype", ["int16", "float32", "float64"])
@pytest.mark.parametrize("num_threads", [1, 3])
@pytest.mark.usefixtures("small_blocks")
def test_each_event_is_summarized(make_event_file, dtype, num_threads):
    events = open_events(make_event_file(num_events=31, dtype=dtype))
    told = []
    scan = scan_audio(events, num_threads=num_threads, advance=told.append)
    assert sum(told) == 31
    for row, place in enumerate(scan.places_N):
        audio = events.read(place).astype(np.float64)
        np.testing.assert_array_equal(scan.low_NC[row], audio.min(axis=0))
        np.testing.assert_array_equal(scan.high_NC[row], audio.max(axis=0))
        np.testing.assert_allclose(scan.mean_NC[row], audio.mean(axis=0), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(scan.sd_NC[row], audio.std(axis=0), rtol=1e-9)
    assert scan.places_N.tolist() == list(range(31))
    assert scan.finite_N.all()
    assert not scan.constant_NC.any()
    assert len(set(scan.keys_N.tolist())) == 31


@pytest.mark.usefixtures("small_blocks")
def test_the_result_does_not_depend_on_the_threads(make_event_file):
    events = open_events(make_event_file(num_events=40))
    one, many = (scan_audio(events, num_threads=threads) for threads in (1, 5))
    for name in ("low_NC", "high_NC", "mean_NC", "sd_NC", "keys_N"):
        np.testing.assert_array_equal(getattr(one, name), getattr(many, name))


def test_some_events_some_samples_and_no_empty_ones(make_event_file):
    lengths = [300] * 10
    lengths[4] = 0
    events = open_events(make_event_file(lengths=lengths))
    told = []
    scan = scan_audio(events, np.array([2, 4, 7]), max_samples=100, advance=told.append)
    assert sum(told) == 3
    assert scan.places_N.tolist() == [2, 7]
    audio = events.read(7, 0, 100)
    np.testing.assert_array_equal(scan.high_NC[1], audio.max(axis=0))
    assert scan.spread(np.array([False, True]), False).tolist() == [i == 7 for i in range(10)]
    whole = scan.spread(np.array([[1.0, 2.0], [3.0, 4.0]]), np.nan)
    assert whole[[2, 7]].tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert np.isnan(whole).all(axis=1).sum() == 8


def test_equal_audio_has_equal_keys_in_any_type(make_event_file):
    audio = np.random.default_rng(0).integers(-9000, 9000, (3000, 4))
    paths = [
        make_event_file(f"{dtype}.h5", lengths=[300] * 10, audio=audio, dtype=dtype)
        for dtype in ("int16", "int32", "float64")
    ]
    keys = [scan_audio(open_events(path)).keys_N.tolist() for path in paths]
    assert keys[0] == keys[1] == keys[2]


def test_copies_of_channels_are_noticed_unless_an_event_contradicts(make_event_file):
    audio = np.random.default_rng(0).normal(size=(10, 300, 5))
    audio[..., 3], audio[..., 4] = audio[..., 1], -audio[..., 0]
    audio[..., 2] = audio[..., 0]
    audio[9, 200, 2] += 1e-3
    audio[5, 3, 1] = np.nan  # says nothing
    path = make_event_file(
        lengths=[300] * 10, audio=audio.reshape(-1, 5), num_microphones=5, dtype="float64"
    )
    scan = scan_audio(open_events(path))
    assert np.argwhere(scan.same_CC).tolist() == [[1, 3]]
    assert np.argwhere(scan.opposite_CC).tolist() == [[0, 4]]
    assert scan.finite_N.tolist() == [i != 5 for i in range(10)]


def test_two_dead_channels_are_no_copies(make_event_file):
    audio = np.random.default_rng(0).normal(size=(3000, 4))
    audio[:, 1:3] = 0
    scan = scan_audio(open_events(make_event_file(lengths=[300] * 10, audio=audio)))
    assert not scan.same_CC.any()
    assert not scan.opposite_CC.any()
    assert scan.constant_NC.tolist() == [[False, True, True, False]] * 10


def test_one_sample_is_not_constant(make_event_file):
    audio = np.random.default_rng(0).normal(size=(10, 4))
    scan = scan_audio(open_events(make_event_file(lengths=[1] * 10, audio=audio)))
    assert not scan.constant_NC.any()


def test_a_file_that_is_gone(make_event_file):
    path = make_event_file(num_events=5)
    events = open_events(path)
    path.unlink()
    with pytest.raises(DatasetError, match="cannot be mapped"):
        scan_audio(events)


def test_an_error_in_a_thread_arrives(make_event_file, monkeypatch):
    events = open_events(make_event_file(num_events=40))

    def fail(*_):
        raise MemoryError("no room")

    monkeypatch.setattr(audio_scan, "summarize", fail)
    with pytest.raises(MemoryError, match="no room"):
        scan_audio(events)
