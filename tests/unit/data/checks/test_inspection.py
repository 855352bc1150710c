import json

import numpy as np
import pytest

from gerbil_tune.config.schema import DataConfig
from gerbil_tune.data.checks.inspection import inspect


def look(*paths, **options):
    return inspect(list(paths), options.pop("config", DataConfig()), **options)


def codes(found):
    return [finding.code for finding in found.findings]


def test_what_is_in_one_file(make_event_file):
    path = make_event_file(
        lengths=[250, 500, 1000],
        dtype="int16",
        layout="vocalocator",
        keypoints=["nose", "tail"],
        locations=np.random.default_rng(0).uniform(-150, 150, (3, 2, 2)),
        groups=[5, 5, 9],
        onsets_s=[0.0, 1.0, 2.0],
    )
    found = look(path)
    assert found.findings == []
    (file,), (everything,) = found.files, found.sets
    assert (file.layout, file.storage, file.dtype) == ("vocalocator", "contiguous", "int16")
    assert (file.microphones, file.axes, file.keypoints) == (4, 2, ("nose", "tail"))
    assert (file.groups, file.states_onsets, file.is_labelled) == (2, True, True)
    assert (everything.name, everything.groups) == ("all", 2)
    # 250, 500 and 1000 samples at 125 kHz
    assert everything.lengths.range_ms == (2.0, 4.0, 8.0)
    assert everything.lengths.seconds == 1750 / 125_000


def test_the_config_fills_what_is_not_stated(make_event_file):
    path = make_event_file(sample_rate_hz=None, arena_mm=None)
    config = DataConfig(sample_rate_hz=1e5, arena_mm=(600.0, 400.0))
    found = look(path, config=config)
    assert found.findings == []
    assert found.files[0].lengths.sample_rate_hz == 1e5
    assert found.files[0].arena_mm == (600.0, 400.0)


def test_parts_of_a_folder_and_of_index_files(make_event_file, tmp_path):
    for name, number in (("train_set", 30), ("val_set", 10)):
        make_event_file(f"parts/{name}.h5", num_events=number, seed=number)
    make_event_file("parts/other.h5", num_events=7)  # no part, not read by training either
    found = look(tmp_path / "parts")
    assert [(one.name, one.lengths.events) for one in found.sets] == [
        ("all", 40),
        ("train_set", 30),
        ("val_set", 10),
    ]
    path = make_event_file("whole.h5", num_events=20)
    for name, places in (("train_set", range(15)), ("val_set", range(15, 20))):
        np.save(tmp_path / f"{name}.npy", np.array(places))
    found = look(path, split_folder=tmp_path)
    assert [(one.name, one.lengths.events) for one in found.sets][1:] == [
        ("train_set", 15),
        ("val_set", 5),
    ]
    assert look(path).sets[0].files == (str(path),)


def test_files_that_do_not_fit_are_looked_at_one_by_one(make_event_file):
    locations = np.full((12, 2), 10.0)
    first = make_event_file("a.h5", locations=locations)
    second = make_event_file("b.h5", num_microphones=2, dtype="int16", seed=1)
    found = look(first, second, full=False)
    assert codes(found) == ["files-disagree", "equal-locations"]
    assert [one.lengths.events for one in found.sets] == [12, 12]


def test_one_wrong_file_of_many_is_found_and_a_common_fault_told_once(make_event_file):
    good = [make_event_file(f"{i}.h5", num_events=20, seed=i) for i in range(4)]
    places = np.random.default_rng(0).uniform(-280, 280, (20, 2)) * [1, 0.6]
    wrong = make_event_file("wrong.h5", num_events=20, locations=places / 10, seed=9)
    found = look(*good, wrong)
    assert codes(found) == ["locations-unit"]
    assert found.findings[0].message.startswith("wrong.h5: ")
    broken = [
        make_event_file(f"nan{i}.h5", locations=np.full((12, 2), np.nan), seed=20 + i)
        for i in range(3)
    ]
    found = look(*broken)
    assert codes(found) == ["nan-locations"]
    assert found.findings[0].count == 36


def test_nothing_can_be_opened(tmp_path):
    found = look(tmp_path / "none.h5", tmp_path)
    assert codes(found) == ["cannot-open", "cannot-open"]
    assert (found.sets, found.files) == ([], [])
    assert found.to_json()["usable"] is False


@pytest.mark.parametrize(("factor", "cleanable"), [(1.0, True), (0.1, False)])
def test_what_cleaning_can_mend(make_event_file, factor, cleanable):
    places = np.random.default_rng(0).uniform(-280, 280, (20, 2)) * [1, 0.6]
    places[4] = [500, 0] if cleanable else places[4]
    found = look(make_event_file(num_events=20, locations=places * factor))
    assert found.wants_cleaning == cleanable
    assert not look(make_event_file(num_events=20)).wants_cleaning


def test_json_is_json(make_event_file):
    found = look(make_event_file(sample_rate_hz=None, num_events=5))
    text = json.dumps(found.to_json(), allow_nan=False)
    assert json.loads(text)["findings"][0]["code"] == "no-sample-rate"
    assert found.num_errors == 1
    assert found.num_warnings == 0


def test_progress_is_told(make_event_file, capsys, monkeypatch):
    import gerbil_tune.data.checks.inspection as inspection

    told = []
    real = inspection.progress_bar

    def recorded(total, **options):
        told.append((total, options))
        return real(total, **options)

    monkeypatch.setattr(inspection, "progress_bar", recorded)
    path = make_event_file(lengths=[300] * 20)
    look(path, show_progress=True)
    assert told == [(20, {"doing": "reading audio", "show": True})]
    assert capsys.readouterr().out == ""
