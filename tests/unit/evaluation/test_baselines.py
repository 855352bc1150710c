from pathlib import Path

import h5py
import numpy as np
import pytest

from gerbil_tune.data.events import open_events
from gerbil_tune.errors import DatasetError
from gerbil_tune.evaluation.baselines import chance_predictions, repeat_for_keypoints, srp_phat
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.units import SPEED_OF_SOUND_M_S

SAMPLE_RATE_HZ = 125_000.0
ARENA_MM = (572.0, 366.0)
MICROPHONES_MM = (
    (-308.0, -206.0, 368.0),
    (308.0, -206.0, 368.0),
    (-308.0, 206.0, 368.0),
    (308.0, 206.0, 368.0),
)
HEIGHT_MM = 20.0
SETUP = RecordingSetup(4, SAMPLE_RATE_HZ, ARENA_MM, MICROPHONES_MM)


class Events:
    """Events in memory."""

    def __init__(self, audio: list[np.ndarray]) -> None:
        self.audio = audio
        self.lengths = np.array([len(event) for event in audio])

    def read(self, i: int, /) -> np.ndarray:
        return self.audio[i]


def noise_burst(rng: np.random.Generator, length: int) -> np.ndarray:
    return rng.normal(size=length)


def sweep(rng: np.random.Generator, length: int) -> np.ndarray:
    """A call with a harmonic, 20 to 40 kHz."""
    time_s = np.arange(length) / SAMPLE_RATE_HZ
    start_hz, end_hz = rng.uniform(20e3, 30e3), rng.uniform(30e3, 40e3)
    phase = 2 * np.pi * (start_hz * time_s + (end_hz - start_hz) * time_s**2 / (2 * time_s[-1]))
    return (np.sin(phase) + 0.3 * np.sin(2 * phase)) * np.hanning(length)


def record(call, place_mm, *, length=5000, noise=0.0, walls=0.0, rng=None) -> np.ndarray:
    """Free field, or with the four walls and the floor as mirrors of this reflectivity: (T, C)."""
    rng = rng or np.random.default_rng(0)
    spectrum = np.fft.rfft(call(rng, length - 800), 2 * length)
    frequency_hz = np.fft.rfftfreq(2 * length, 1 / SAMPLE_RATE_HZ)
    source = np.array([*place_mm, HEIGHT_MM])
    sources = [(source, 1.0)]
    for axis, plane_mm in ((0, 300.0), (0, -300.0), (1, 195.0), (1, -195.0), (2, 0.0)):
        image = source.copy()
        image[axis] = 2 * plane_mm - image[axis]
        sources.append((image, walls))
    audio = np.zeros((length, 4))
    for position, gain in sources:
        for channel, microphone in enumerate(MICROPHONES_MM):
            distance_m = np.linalg.norm(position - microphone) / 1000
            turn = np.exp(-2j * np.pi * frequency_hz * distance_m / SPEED_OF_SOUND_M_S)
            audio[:, channel] += np.fft.irfft(spectrum * turn * gain / distance_m)[:length]
    return (audio + noise * audio.std() * rng.normal(size=audio.shape)).astype(np.float32)


def places(count: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.48, 0.48, (count, 2)) * ARENA_MM


def locate(audio: list[np.ndarray], **options) -> np.ndarray:
    options.setdefault("coherence_weighted", True)
    predicted = srp_phat(Events(audio), SETUP, HEIGHT_MM, **options)
    assert predicted.shape == (len(audio), 1, 2)
    assert predicted.dtype == np.float32
    return predicted[:, 0]


@pytest.mark.parametrize("call", [noise_burst, sweep])
def test_clean_calls_in_the_free_field_are_found_within_5_mm(call) -> None:
    rng = np.random.default_rng(3)
    truth = places(12)
    predicted = locate([record(call, place, rng=rng) for place in truth])

    assert np.linalg.norm(predicted - truth, axis=1).max() < 5.0


def test_a_finer_answer_than_the_grid() -> None:
    predicted = locate([record(noise_burst, (101.3, -57.7))])

    assert predicted[0] == pytest.approx([101.3, -57.7], abs=0.5)


def test_noise_as_loud_as_the_call_and_reflections_leave_most_calls_near() -> None:
    rng = np.random.default_rng(4)
    truth = places(20, seed=7)
    noisy = locate([record(sweep, place, noise=1.0, rng=rng) for place in truth])
    echoing = locate([record(sweep, place, noise=0.1, walls=0.5, rng=rng) for place in truth])
    chance_mm = np.median(np.linalg.norm(truth, axis=1))

    assert np.median(np.linalg.norm(noisy - truth, axis=1)) < 2.0
    assert np.median(np.linalg.norm(echoing - truth, axis=1)) < 0.3 * chance_mm


def test_neither_batch_nor_scale_nor_type_changes_an_answer() -> None:
    rng = np.random.default_rng(5)
    events = [
        record(sweep, place, length=length, noise=0.3, walls=0.4, rng=rng)
        for place, length in zip(places(5), (2000, 5000, 3300, 9000, 1200), strict=True)
    ]
    together = locate(events)
    alone = np.concatenate([locate([event]) for event in events])
    integers = [(event * 8000 / np.abs(event).max()).round().astype(np.int16) for event in events]

    assert together == pytest.approx(alone, abs=1e-3)
    assert locate([1e-4 * event for event in events]) == pytest.approx(together, abs=0.2)
    assert np.median(np.abs(locate(integers) - together)) < 0.5


def test_silence_is_put_at_the_centre() -> None:
    audio = [np.zeros((3000, 4), np.float32), record(noise_burst, (50.0, 50.0))]

    assert locate(audio)[0] == pytest.approx([0.0, 0.0])


def test_progress_counts_every_event() -> None:
    done: list[int] = []
    locate([record(noise_burst, place, length=2000) for place in places(3)], progress=done.append)

    assert sum(done) == 3


def test_reads_the_events_of_a_file(tmp_path: Path) -> None:
    truth = places(3, seed=9)
    audio = [record(noise_burst, place, length=2000 + 500 * i) for i, place in enumerate(truth)]
    with h5py.File(tmp_path / "calls.h5", "w") as file:
        file["audio"] = np.concatenate(audio)
        file["length_idx"] = np.cumsum([0, *(len(event) for event in audio)])
    predicted = srp_phat(open_events(tmp_path / "calls.h5"), SETUP, HEIGHT_MM)

    assert predicted[:, 0] == pytest.approx(truth, abs=1.0)


def test_unknown_microphones_are_an_error() -> None:
    setup = RecordingSetup(4, SAMPLE_RATE_HZ, ARENA_MM)

    with pytest.raises(DatasetError, match="microphones_mm"):
        srp_phat(Events([np.zeros((100, 4))]), setup, HEIGHT_MM)


def test_other_channels_than_microphones_are_an_error() -> None:
    with pytest.raises(DatasetError, match=r"event 1 has 3 channels, .* 4 microphones"):
        locate([np.zeros((100, 4)), np.zeros((200, 3))])


def test_chance_is_the_mean_training_location() -> None:
    train = np.array([[[0.0, 10.0]], [[20.0, 30.0]]])

    predicted = chance_predictions(train, 3)

    assert predicted.dtype == np.float32
    assert predicted == pytest.approx(np.tile([[[10.0, 20.0]]], (3, 1, 1)))


def test_chance_without_training_events_is_an_error() -> None:
    with pytest.raises(DatasetError, match="no training event"):
        chance_predictions(np.zeros((0, 1, 2)), 3)


def test_one_position_for_all_keypoints() -> None:
    positions = np.array([[[1.0, 2.0]]])

    assert repeat_for_keypoints(positions, 2).tolist() == [[[1.0, 2.0], [1.0, 2.0]]]
    assert repeat_for_keypoints(positions, 1, 20.0).tolist() == [[[1.0, 2.0, 20.0]]]
