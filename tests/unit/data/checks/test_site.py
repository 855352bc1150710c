import numpy as np
import pytest

from gerbil_tune.config.schema import DataConfig
from gerbil_tune.data.checks.site import check_site, fewest_samples, find_setup
from gerbil_tune.data.events import open_events
from gerbil_tune.geometry import RecordingSetup

CORNERS = np.array([[-1, -1, 1], [1, -1, 1], [-1, 1, 1], [1, 1, 1]]) * [286.0, 178.0, 300.0]


def setup(rate=125_000.0, arena=(572.0, 356.0), microphones=CORNERS):
    places = None if microphones is None else tuple(tuple(map(float, row)) for row in microphones)
    return RecordingSetup(4, rate, arena, places)


def codes(make_event_file, setup):
    events = open_events(make_event_file(sample_rate_hz=None, arena_mm=None))
    return [finding.code for finding in check_site(events, setup)]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, []),
        ({"microphones": None}, []),
        ({"rate": 22_050.0}, []),
        ({"rate": 250.0}, ["implausible-sample-rate"]),
        ({"rate": 125e6}, ["implausible-sample-rate"]),
        ({"arena": (0.572, 0.356), "microphones": None}, ["implausible-arena"]),
        ({"arena": (57.2, 35.6), "microphones": CORNERS / 10}, ["implausible-arena"]),
        ({"arena": (150.0, 120.0)}, []),
        ({"microphones": CORNERS / 1000}, ["implausible-microphones"]),
        ({"microphones": CORNERS * 1000}, ["implausible-microphones"]),
        ({"microphones": CORNERS * 1.5}, []),
        ({"microphones": CORNERS[[0, 1, 2, 2]]}, ["equal-microphone-places"]),
        ({"microphones": CORNERS + np.array([286, 178, 0])}, ["microphones-origin"]),
        ({"microphones": CORNERS * [0.2, 0.2, 1] + [150, 90, 0]}, []),
    ],
)
def test_plausible_numbers(make_event_file, options, expected):
    assert codes(make_event_file, setup(**options)) == expected


def test_metres_and_centimetres_of_the_arena_are_told_apart(make_event_file):
    events = open_events(make_event_file(sample_rate_hz=None, arena_mm=None))
    for arena, unit in (((0.572, 0.356), "m"), ((57.2, 35.6), "cm")):
        (finding,) = check_site(events, setup(arena=arena, microphones=None))
        assert f"(it seems to be in {unit})" in finding.message


def test_the_longest_delay():
    # 673.7 mm at 343.2 m/s and 125 kHz: 245.4 samples
    assert fewest_samples(setup()) == 246
    assert fewest_samples(None) is None


def test_what_is_known_and_what_is_missing(make_event_file):
    events = open_events(make_event_file(sample_rate_hz=None))
    found, arena_mm, findings = find_setup(events, DataConfig())
    assert (found, arena_mm) == (None, (572.0, 356.0))
    assert [finding.code for finding in findings] == ["no-sample-rate"]
    found, arena_mm, findings = find_setup(events, DataConfig(sample_rate_hz=1e5))
    assert found is not None
    assert (found.sample_rate_hz, findings) == (1e5, [])


def test_every_missing_fact_is_told_once(make_event_file):
    events = open_events(make_event_file(sample_rate_hz=None, arena_mm=None))
    _, arena_mm, findings = find_setup(events, DataConfig(keypoints=("beak",)))
    assert arena_mm is None
    assert [finding.code for finding in findings] == ["no-sample-rate", "no-arena"]
    _, _, findings = find_setup(
        events, DataConfig(keypoints=("beak",), sample_rate_hz=1e5, arena_mm=(572.0, 356.0))
    )
    assert [finding.code for finding in findings] == ["recording-site"]
    assert "'beak'" in findings[0].message
