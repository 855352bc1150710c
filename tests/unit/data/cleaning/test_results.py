import csv
import json

import numpy as np
import pytest

from gerbil_tune.config.cleaning import load_cleaning
from gerbil_tune.config.schema import DataConfig
from gerbil_tune.data.cleaning.cleaning import clean_events
from gerbil_tune.data.cleaning.filters import FilterOutcome
from gerbil_tune.data.cleaning.results import measured_quantiles, write_cleaning
from gerbil_tune.data.events import open_events, recording_setup
from gerbil_tune.data.files.index_files import read_indices


def noise(lengths, seed):
    return np.random.default_rng(seed).normal(0, 0.01, (sum(lengths), 4))


@pytest.fixture
def written(make_event_file, tmp_path):
    """Two files of 5 and 4 events; event 2 of the second is silent, event 1 of the first is outside."""
    lengths = [300, 400, 500, 600, 700]
    locations = np.zeros((5, 2))
    locations[1] = 0, 300
    first = make_event_file("a.h5", lengths=lengths, locations=locations, audio=noise(lengths, 0))
    audio = noise(lengths[:4], 1)
    audio[700:1200] = 0
    second = make_event_file("b.h5", lengths=lengths[:4], locations=np.zeros((4, 2)), audio=audio)
    whole = open_events([first, second])
    events = whole.subset([8, 7, 1, 0])
    setup = recording_setup(events, DataConfig())
    config = load_cleaning(None, ["snr/min_db=1"])
    result = clean_events(events, setup, config)
    folder = tmp_path / "deep" / "cleaned"
    write_cleaning(folder, events, setup, result, config, fingerprint=whole.fingerprint())
    return folder, whole


def test_the_index_holds_places_of_the_whole_data(written):
    folder, whole = written
    stored = np.load(folder / "kept.npy")
    assert (stored.tolist(), stored.dtype, stored.ndim) == ([8, 0], np.int64, 1)
    assert read_indices(folder / "kept.npy", len(whole)).tolist() == [8, 0]


def test_nothing_half_made_is_left(written):
    assert sorted(path.name for path in written[0].iterdir()) == [
        "cleaning.json",
        "kept.npy",
        "measures.csv",
    ]


def test_the_report(written):
    folder, whole = written
    report = json.loads((folder / "cleaning.json").read_text())
    assert report["data"]["fingerprint"] == whole.fingerprint()
    assert report["data"]["num_events"] == 9
    assert [file.rsplit("/", 1)[1] for file in report["data"]["files"]] == ["a.h5", "b.h5"]
    assert (report["looked_at"], report["kept"]) == (4, 2)
    assert report["site"]["sample_rate_hz"] == 125_000
    assert report["removed"] == [
        {"event": 7, "where": "event 2 of b.h5", "reasons": ["silence: no sound at all"]},
        {
            "event": 1,
            "where": "event 1 of a.h5",
            "reasons": ["outside_arena: nose is 122 mm outside"],
        },
    ]
    outside = report["filters"]["outside_arena"]
    assert (outside["removed"], outside["removed_by_no_other"], outside["at_most"]) == (1, 1, 20)
    assert outside["median"] == pytest.approx(-178)
    assert report["filters"]["silence"]["at_least"] == -40
    assert report["filters"]["skeleton"]["skipped"] == "there is one keypoint, nose"


def test_the_config_in_the_report_can_be_used_again(written, tmp_path):
    folder, _ = written
    config = json.loads((folder / "cleaning.json").read_text())["config"]
    path = tmp_path / "again.json"
    path.write_text(json.dumps(config))
    again = load_cleaning(path)
    assert again.snr.min_db == 1
    assert "skeleton" not in again.model_fields_set


def test_the_measures(written):
    with (written[0] / "measures.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["event"] for row in rows] == ["8", "7", "1", "0"]
    assert [row["file"] for row in rows] == ["b.h5", "b.h5", "a.h5", "a.h5"]
    assert [row["event_in_file"] for row in rows] == ["3", "2", "1", "0"]
    assert [row["kept"] for row in rows] == ["1", "0", "0", "1"]
    assert [row["removed_by"] for row in rows] == ["", "silence", "outside_arena", ""]
    assert [row["duration (ms)"] for row in rows] == ["4.8", "4", "3.2", "2.4"]
    assert rows[1]["silence (dB re the median event)"] == "-inf"
    assert rows[0]["snr (dB)"] == ""  # one frame
    assert float(rows[2]["outside_arena (mm beyond a wall)"]) == 122
    assert "skeleton (robust SD)" not in rows[0]


def test_quantiles_are_on_the_side_of_the_limit():
    measures = np.array([np.nan, -np.inf, *range(101)], dtype=np.float64)
    hit = np.zeros(len(measures), dtype=np.bool_)
    lowest = FilterOutcome("snr", hit, measures, "dB", 3.0, True)
    assert measured_quantiles(lowest) == (50, 1)
    assert measured_quantiles(FilterOutcome("clipping", hit, measures, "%", 3.0)) == (50, 99)
    assert measured_quantiles(FilterOutcome("not_finite", hit)) is None
    nothing = FilterOutcome("snr", hit[:1], measures[:1], "dB", 3.0, True)
    assert measured_quantiles(nothing) is None
