import numpy as np
import pytest

from gerbil_tune.data.checks.audio import check_audio
from gerbil_tune.data.checks.audio_scan import scan_audio
from gerbil_tune.data.events import open_events
from gerbil_tune.data.files.writer import write_events

EVENTS, LENGTH = 20, 300


@pytest.fixture
def noise():
    return np.random.default_rng(0).normal(0, 1000, (EVENTS, LENGTH, 4))


@pytest.fixture
def findings(make_event_file):
    """What the pass says of audio (events, samples, microphones), by code."""

    def check(audio, dtype="float32", **options):
        path = make_event_file(
            lengths=[audio.shape[1]] * len(audio),
            audio=audio.reshape(-1, audio.shape[2]),
            dtype=dtype,
            **options,
        )
        found = check_audio(scan_audio(open_events(path)))
        assert len({finding.code for finding in found}) == len(found)
        return {finding.code: finding for finding in found}

    return check


@pytest.mark.parametrize("dtype", ["int16", "int32", "float32", "float64"])
@pytest.mark.parametrize("scale", [0.02, 1.0, 6.0])
def test_noise_is_good(findings, noise, dtype, scale):
    assert findings(noise * scale, dtype) == {}


def test_counts_and_examples(findings, noise):
    noise[2:12, 5, 0] = np.nan
    noise[14] = 0
    found = findings(noise)
    assert set(found) == {"nan-audio", "silent-events"}
    assert found["nan-audio"].count == 10
    assert found["nan-audio"].examples == tuple(f"event {i} of events.h5" for i in range(2, 7))
    assert found["silent-events"].examples == ("event 14 of events.h5",)


@pytest.mark.parametrize(("num_events", "code"), [(11, "dead"), (10, "partly-dead")])
def test_a_microphone_is_dead_that_is_silent_in_most_events(findings, noise, num_events, code):
    noise[:num_events, :, 1] = 7
    assert set(findings(noise)) == {f"{code}-microphones"}


def test_silent_events_do_not_make_microphones_dead(findings, noise):
    noise[:15] = 0
    assert set(findings(noise)) == {"silent-events"}


def test_a_dead_microphone_has_no_level_and_no_offset(findings, noise):
    noise[..., 0] = 4000
    assert set(findings(noise)) == {"dead-microphones"}


@pytest.mark.parametrize(("offset", "told"), [(900, False), (1100, True)])
def test_an_offset_beyond_one_standard_deviation(findings, noise, offset, told):
    noise[..., 2] += offset
    assert set(findings(noise)) == ({"offset"} if told else set())


@pytest.mark.parametrize(
    ("factor", "told"), [(8, False), (12, True), (1 / 8, False), (1 / 12, True)]
)
def test_levels_beyond_20_db(findings, noise, factor, told):
    noise[..., 2] *= factor
    assert set(findings(noise)) == ({"microphone-levels"} if told else set())


def test_a_call_beside_one_microphone_is_no_fault_of_levels(findings, noise):
    noise[3, :, 1] *= 1000
    assert findings(noise) == {}


def test_few_events_say_nothing_of_levels(findings, noise):
    noise[..., 2] *= 100
    assert findings(noise[:7]) == {}


@pytest.mark.parametrize(("factor", "told"), [(1e-4, True), (0.03, False)])
def test_a_microphone_far_below_the_others_is_dead(findings, noise, factor, told):
    noise[3:, :, 1] *= factor
    expected = "dead-microphones" if told else "microphone-levels"
    assert set(findings(noise)) == {expected}


@pytest.mark.parametrize(("factor", "told"), [(0.011, False), (0.009, True)])
def test_events_40_db_below_the_median(findings, noise, factor, told):
    noise[5] *= factor
    found = findings(noise)
    assert set(found) == ({"quiet-events"} if told else set())
    if told:
        assert found["quiet-events"].count == 1


def test_integers_of_few_steps(findings, noise):
    assert findings(noise / 500, "int16")["few-steps"].count == EVENTS
    noise[5] /= 500
    assert set(findings(noise, "int16")) == {"quiet-events"}


@pytest.mark.parametrize(
    ("factor", "code"), [(1e16, "huge-audio"), (1e-22, "tiny-audio"), (1e-19, None), (1e12, None)]
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_squares_must_fit_in_float32(findings, noise, dtype, factor, code):
    assert set(findings(noise * factor, dtype)) == ({code} if code else set())


def test_numbers_whose_squares_overflow_float64(findings, noise):
    noise[4] *= 1e200
    assert set(findings(noise, "float64")) == {"huge-audio"}


def test_copies_are_compared_sample_by_sample(findings, noise):
    # The same values in another order: extremes, mean and variance agree, the audio does not.
    noise = np.round(noise)
    noise[..., 3] = noise[:, ::-1, 0]
    assert findings(noise, "float64") == {}
    noise[..., 3] = noise[..., 0]
    assert findings(noise, "float64")["duplicate-microphones"].count == 1


def test_impulse_responses_have_no_levels_to_compare(findings):
    decay = np.exp(-np.arange(1000) / 100)[:, None]
    audio = np.random.default_rng(0).normal(size=(EVENTS, 1000, 4)) * decay
    audio[..., 0] /= 50
    audio[..., 1] += 10
    assert findings(audio, layout="rir") == {}


def test_statistics_that_are_not_of_the_audio(make_event_file, tmp_path):
    import h5py

    path = write_events(tmp_path / "copy.h5", open_events(make_event_file(num_events=10)))
    assert check_audio(scan_audio(open_events(path))) == []
    with h5py.File(path, "r+") as file:
        file["event_sd"][3, 1] *= 1.1
    (finding,) = check_audio(scan_audio(open_events(path)))
    assert (finding.code, finding.examples) == ("stale-statistics", ("event 3 of copy.h5",))
