import json

import numpy as np
import pytest

from gerbil_tune.config.schema import DataConfig
from gerbil_tune.data.events import open_events
from gerbil_tune.data.files.shard_set import write_shards
from gerbil_tune.data.splits.new_split import check_record, make_split, summarize_parts, write_split
from gerbil_tune.errors import ConfigError, DatasetError

SHORT = {"lengths": (5, 9)}
QUARTER = DataConfig(validation_fraction=0.25)


def write(folder, events, config=QUARTER, **options):
    split = make_split(events, config, **options)
    summaries = summarize_parts(split, events)
    write_split(folder, split, events, config, gap_s=1.0, summaries=summaries)
    return split


@pytest.mark.parametrize(
    ("test_fraction", "sizes"), [(None, [20, 10, 10]), (0.1, [26, 10, 4]), (0.0, [30, 10])]
)
def test_the_test_part_has_a_size_of_its_own(make_event_file, test_fraction, sizes):
    events = open_events(make_event_file(num_events=40, **SHORT))
    config = DataConfig(validation_fraction=0.25, test_fraction=test_fraction)
    assert [len(part) for part in make_split(events, config).parts.values()] == sizes


def test_only_chosen_events_take_part_and_bouts_are_those_of_all(make_event_file):
    # Without its middle event, the bout 0-1-2 would fall apart.
    onsets = np.concatenate([[0.0, 0.9, 1.8], 10 + 5.0 * np.arange(17)])
    events = open_events(make_event_file(num_events=20, onsets_s=onsets, **SHORT))
    chosen = np.array([19, *range(2, 19), 0])
    for seed in range(5):
        config = DataConfig(validation_fraction=0.25, split_seed=seed)
        parts = make_split(events, config, chosen=chosen).parts.values()
        assert sorted(np.concatenate(list(parts)).tolist()) == sorted(chosen.tolist())
        assert all((0 in part) == (2 in part) for part in parts)


def test_a_split_without_locations_is_one_by_group_only(make_event_file):
    events = open_events(make_event_file(num_events=20, locations=None, **SHORT))
    split = make_split(events, QUARTER)
    assert split.cells is None
    assert split.describe() == "by event, at random (no locations)"
    summary = summarize_parts(split, events)["val_set"]
    assert (summary.distance, summary.random_distance, summary.mean_location_mm) == (None,) * 3


def test_parts_are_described_by_known_values(make_event_file):
    # One corner holds three quarters of the events.
    corners = np.repeat([[-250.0, -150.0], [250.0, 150.0]], [60, 20], axis=0)
    path = make_event_file(
        lengths=[125] * 60 + [250] * 20, locations=corners, sample_rate_hz=125_000.0
    )
    events = open_events(path)
    split = make_split(events, QUARTER)
    for name, size in (("train_set", 40), ("val_set", 20), ("test_set", 20)):
        summary = summarize_parts(split, events)[name]
        assert summary.num_events == size
        assert summary.num_groups is None
        assert summary.distance == 0
        assert summary.mean_location_mm == (-125.0, -75.0)
        assert summary.median_duration_s == pytest.approx(1e-3)
        assert 0 < summary.random_distance < 0.2


def test_stratified_parts_are_closer_than_chance(make_event_file):
    groups = np.repeat(np.arange(60), 5)
    events = open_events(make_event_file(num_events=300, groups=groups, **SHORT))
    by_event = make_split(events, DataConfig(), group_by="none")
    by_group = make_split(events, DataConfig())
    for split, most in ((by_event, 0.3), (by_group, 0.6)):
        summary = summarize_parts(split, events)["val_set"]
        assert summary.num_events == 30
        assert summary.distance < most * summary.random_distance
    assert summarize_parts(by_group, events)["train_set"].num_groups == 48


def test_a_split_is_written_with_its_record(make_event_file, tmp_path):
    path = make_event_file(num_events=40, **SHORT)
    events = open_events(path)
    split = write(tmp_path / "new" / "out", events)
    folder = tmp_path / "new" / "out"
    names = sorted(file.name for file in folder.iterdir())
    assert names == ["split.json", "test_set.npy", "train_set.npy", "val_set.npy"]
    for name, part in split.parts.items():
        assert np.load(folder / f"{name}.npy").tolist() == part.tolist()
    record = json.loads((folder / "split.json").read_text())
    assert record["method"] == "by event, stratified over 2 x 2 cells of the arena"
    assert record["data"] == {
        "files": ["events.h5"],
        "num_events": 40,
        "chosen_events": 40,
        "fingerprint": events.fingerprint(),
    }
    assert record["parts"]["val_set"]["num_events"] == 10
    assert (record["seed"], record["group_by"]) == (0, "none")
    assert set(record["versions"]) == {"gerbil_tune", "numpy"}


def test_a_folder_keeps_its_split(make_event_file, tmp_path):
    events = open_events(make_event_file(num_events=40, **SHORT))
    write(tmp_path / "out", events)
    write(tmp_path / "out", events)  # the same again
    other = DataConfig(validation_fraction=0.25, split_seed=1)
    with pytest.raises(
        ConfigError, match=r"out holds another split, or .*\(train_set\.npy differs\)"
    ):
        write(tmp_path / "out", events, other)
    with pytest.raises(ConfigError, match="out holds another split"):
        write(tmp_path / "out", events, DataConfig(validation_fraction=0.25, test_fraction=0.0))
    (tmp_path / "out" / "val_set.npy").unlink()
    with pytest.raises(ConfigError, match=r"or a part of one \(val_set\.npy is missing\)"):
        write(tmp_path / "out", events)
    with pytest.raises(
        DatasetError, match=r"out: val_set\.npy of the split that split\.json descr"
    ):
        check_record(tmp_path / "out", events)
    (tmp_path / "out" / "train_set.npy").unlink()  # as after an interruption
    write(tmp_path / "out", events, DataConfig(validation_fraction=0.25, test_fraction=0.0))
    assert not (tmp_path / "out" / "test_set.npy").exists()


def test_a_folder_that_cannot_be_written(make_event_file, tmp_path):
    events = open_events(make_event_file(num_events=40, **SHORT))
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        write(tmp_path / "file" / "out", events)


def test_the_record_knows_its_data(make_event_file, tmp_path):
    path = make_event_file(num_events=40, keypoints=("Nose", "Head"), **SHORT)
    events = open_events(path)
    write(tmp_path / "out", events, chosen=np.arange(30))
    check_record(tmp_path / "out", events)
    moved = path.rename(path.with_name("moved.h5"))
    check_record(tmp_path / "out", open_events(moved))
    check_record(tmp_path, events)  # no record
    other = open_events(make_event_file(num_events=40, seed=1, **SHORT))
    with pytest.raises(DatasetError, match=r"made for other data \(40 events of events.h5"):
        check_record(tmp_path / "out", other)


def test_shards_are_the_data_that_they_were_made_of(make_event_file, tmp_path):
    events = open_events(make_event_file(num_events=40, layout="vocalocator", **SHORT))
    write(tmp_path / "out", events)
    write_shards(events, tmp_path / "shards", shard_bytes=2000, processes=1)
    shards = open_events(tmp_path / "shards")
    assert len(shards.files) > 1
    check_record(tmp_path / "out", shards)
    write_shards(events.subset(np.arange(30)), tmp_path / "fewer", processes=1)
    with pytest.raises(DatasetError, match="made for other data"):
        check_record(tmp_path / "out", open_events(tmp_path / "fewer"))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"data": {"fingerprint": "x"}}'])
def test_a_record_that_cannot_be_read(make_event_file, tmp_path, text):
    (tmp_path / "split.json").write_text(text)
    with pytest.raises(DatasetError, match="cannot be read as the record of a split"):
        check_record(tmp_path, open_events(make_event_file(**SHORT)))
