import time
from pathlib import Path

import numpy as np
import pytest

from gerbil_tune.config.schema import DataConfig
from gerbil_tune.data.checks.cheap import Finding, cheap_checks, raise_on_errors
from gerbil_tune.data.events import open_events, recording_setup
from gerbil_tune.errors import DatasetError

ARENA_MM = (572.0, 356.0)


def check(path, **config):
    events = open_events(path)
    return cheap_checks(events, recording_setup(events, DataConfig(**config)))


def inside(num_events=100, num_axes=2, seed=0):
    half = np.array([286.0, 178.0, 150.0][:num_axes])
    locations = np.random.default_rng(seed).uniform(-half, half, (num_events, num_axes))
    locations[:, 2:] += 150
    return locations


def single(findings, level, *parts):
    """The one finding has this level, and all parts of the text in order."""
    assert [finding.level for finding in findings] == [level], findings
    position = -1
    for part in parts:
        assert part in findings[0].message, findings[0].message
        assert findings[0].message.index(part) > position
        position = findings[0].message.index(part)
    assert "\n" not in findings[0].message


@pytest.mark.parametrize("num_axes", [2, 3])
@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_good_data_gives_no_finding(make_event_file, num_axes, dtype):
    options = {"locations": inside(num_axes=num_axes), "arena_mm": (*ARENA_MM, 300.0)}
    path = make_event_file(num_events=100, dtype=dtype, **options)
    assert check(path) == []
    assert cheap_checks(open_events(path), None) == []


def test_locations_that_are_not_finite(make_event_file):
    locations = inside()
    locations[[7, 9], 1] = np.nan
    locations[11, 0] = np.inf
    path = make_event_file(num_events=100, locations=locations)
    single(check(path), "error", "3 of 100 events", "event 7 of events.h5", "not finite")


@pytest.mark.parametrize(("factor", "unit"), [(1e-3, "m"), (1e-1, "cm")])
def test_locations_in_another_unit(make_event_file, factor, unit):
    options = {"num_events": 100, "locations": inside() * factor}
    single(
        check(make_event_file(**options)),
        "error",
        f"in {unit};",
        f"'units' of the file to '{unit}'",
    )
    assert check(make_event_file(attributes={"units": unit}, **options)) == []
    believed = check(make_event_file(attributes={"units": "mm"}, **options))
    if unit == "cm":  # the middle of the arena is a place to be
        assert believed == []
    else:
        single(believed, "warning", "in m;", "it says another")


def test_locations_from_the_corner(make_event_file):
    locations = inside() + np.array([286.0, 178.0])
    path = make_event_file(num_events=100, locations=locations)
    single(check(path), "error", "from a corner", "subtract half the arena [572.0, 356.0]")


def test_few_locations_outside_are_a_warning(make_event_file):
    locations = inside()
    locations[4] = [286 * 1.24, 0]
    locations[[5, 6]] = [[286 * 1.26, 0], [0, -178 * 1.26]]
    path = make_event_file(num_events=100, locations=locations)
    single(check(path), "warning", "2 of 100 events", "event 5 of", "25%", "[[360.4, 0.0]]")


def test_most_locations_outside_are_an_error(make_event_file):
    path = make_event_file(num_events=100, locations=inside() * 10)
    single(check(path), "error", "outside the arena", "check data/arena_mm")


def test_height_is_counted_from_the_floor(make_event_file):
    locations = inside(num_axes=3)
    locations[3, 2] = -50
    path = make_event_file(num_events=100, locations=locations, arena_mm=(*ARENA_MM, 300.0))
    single(check(path), "warning", "1 of 100 events", "event 3 of")


def test_all_keypoints_are_looked_at(make_event_file):
    locations = np.stack([inside(), inside() + 5], axis=1)
    locations[8] = [[280, 0], [380, 0]]
    path = make_event_file(num_events=100, locations=locations, keypoints=["a", "b"])
    single(check(path), "warning", "1 of 100 events", "event 8 of", "[[280.0, 0.0], [380.0, 0.0]]")


def test_empty_and_short_events(make_event_file):
    lengths = [300] * 20
    lengths[3], lengths[5], lengths[6] = 0, 245, 246
    findings = check(make_event_file(lengths=lengths))
    # 674 mm of arena diagonal at 343.2 m/s and 125 kHz: 245.4 samples
    assert [finding.level for finding in findings] == ["error", "warning"]
    assert [finding.code for finding in findings] == ["empty-events", "short-events"]
    assert "1 of 20 events (first: event 3 of events.h5) have no samples" in findings[0].message
    assert (
        "1 of 20 events (first: event 5 of events.h5) are shorter than 246" in findings[1].message
    )


def test_samples_of_no_event(make_event_file):
    path = make_event_file(
        lengths=[300] * 20, audio=np.random.default_rng(0).normal(size=(6500, 4))
    )
    single(check(path), "warning", "500 of 6500 samples of events.h5 belong to no event")


def test_a_config_that_contradicts_the_file(make_event_file):
    findings = check(make_event_file(num_events=20), sample_rate_hz=100_000.0)
    single(findings, "warning", "sample_rate_hz is 100000.0", "events.h5 states 125000.0")


def broken_audio(num_events=20, length=300):
    return np.random.default_rng(0).normal(size=(num_events, length, 4))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_audio_that_is_not_finite(make_event_file, value):
    audio = broken_audio()
    audio[6, 100, 2] = audio[9, 0, 0] = value
    path = make_event_file(lengths=[300] * 20, audio=audio.reshape(-1, 4))
    single(
        check(path),
        "error",
        "2 of 20 events",
        "event 6 of",
        "NaN or infinite",
        "data clean",
    )


def test_silent_events(make_event_file):
    audio = broken_audio()
    audio[6] = 0
    audio[8] = 0.25
    path = make_event_file(lengths=[300] * 20, audio=audio.reshape(-1, 4))
    single(check(path), "warning", "2 of 20 events", "event 6 of", "is silent")
    path = make_event_file(lengths=[300] * 20, audio=np.zeros((6000, 4)))
    single(check(path), "error", "20 of 20 events", "is silent")


def test_a_dead_microphone(make_event_file):
    audio = broken_audio()
    audio[..., 2] = 0
    path = make_event_file(lengths=[300] * 20, audio=audio.reshape(-1, 4))
    single(check(path), "warning", "microphones [2]", "all 20 events")


def test_at_most_64_events_are_read(make_event_file):
    path = make_event_file(lengths=[300] * 200, audio=np.zeros((60000, 4)))
    single(check(path), "error", "64 of 200 events", "of 64 events looked at")


def test_the_first_error_is_raised():
    warning, first, second = (
        Finding("warning", "w"),
        Finding("error", "first fault"),
        Finding("error", "second fault"),
    )
    raise_on_errors([], Path("a.h5"))
    raise_on_errors([warning], Path("a.h5"))
    with pytest.raises(DatasetError, match=r"^a.h5: first fault \(and 1 more\)$"):
        raise_on_errors([warning, first, second], Path("a.h5"))
    with pytest.raises(DatasetError, match=r"^a.h5: first fault$"):
        raise_on_errors([first], Path("a.h5"))


def test_a_finding_needs_a_level_and_a_message_only():
    finding = Finding("error", "a fault")
    assert (finding.code, finding.count, finding.examples) == ("other", 1, ())
    assert finding.to_json() == {
        "level": "error",
        "code": "other",
        "message": "a fault",
        "count": 1,
        "examples": [],
    }


def test_at_most_five_examples(make_event_file):
    locations = inside()
    locations[10:30] = np.nan
    finding = check(make_event_file(num_events=100, locations=locations))[0]
    assert (finding.code, finding.count) == ("nan-locations", 20)
    assert finding.examples == tuple(f"event {i} of events.h5" for i in range(10, 15))


def test_many_events_take_less_than_a_second(make_event_file):
    number = 200_000
    path = make_event_file(
        lengths=np.full(number, 2),
        num_microphones=2,
        audio=np.random.default_rng(0).integers(-9000, 9000, (2 * number, 2)),
        dtype="int16",
        locations=inside(number, num_axes=3),
        arena_mm=(*ARENA_MM, 300.0),
    )
    events = open_events(path)
    setup = recording_setup(events, DataConfig())
    started = time.process_time()
    findings = cheap_checks(events, setup)
    assert time.process_time() - started < 1
    assert [finding.code for finding in findings] == ["index-not-in-samples"]
