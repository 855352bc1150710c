from itertools import chain

import numpy as np
import pytest

from gerbil_tune.config.schema import DataConfig
from gerbil_tune.data.events import open_events
from gerbil_tune.data.splits.new_split import make_split
from gerbil_tune.data.splits.new_split import write_split as write_new_split
from gerbil_tune.data.splits.splits import load_splits
from gerbil_tune.errors import DatasetError

SHORT = {"lengths": (5, 9)}


def sets(splits):
    parts = (splits.train, splits.validation, splits.test)
    return [None if part is None else part.rows.tolist() for part in parts]


def test_one_file_is_split_written_and_read_back(make_event_file, tmp_path):
    path = make_event_file(num_events=40, **SHORT)
    save_dir = tmp_path / "runs" / "one"
    first = load_splits(path, DataConfig(validation_fraction=0.2), save_dir)
    assert [len(part) for part in sets(first)] == [24, 8, 8]
    names = sorted(file.name for file in save_dir.iterdir())
    assert names == ["test_set.npy", "train_set.npy", "val_set.npy"]
    assert np.load(save_dir / "val_set.npy").tolist() == first.validation.rows.tolist()
    other = DataConfig(validation_fraction=0.1, split_seed=9)
    assert sets(load_splits(path, other, save_dir)) == sets(first)
    assert sets(load_splits(path, other)) != sets(first)


def test_groups_of_the_file_are_used(make_event_file):
    groups = np.repeat(np.arange(10), 4)
    path = make_event_file(num_events=40, groups=groups, group_dataset="session_ids", **SHORT)
    splits = load_splits(path, DataConfig(validation_fraction=0.2))
    parts = [set(part.groups.tolist()) for part in (splits.train, splits.validation, splits.test)]
    assert [len(part) for part in parts] == [6, 2, 2]
    assert len(set.union(*parts)) == 10


def test_an_interrupted_split_is_made_again(make_event_file, tmp_path):
    path = make_event_file(num_events=40, **SHORT)
    first = load_splits(path, DataConfig(), tmp_path / "run")
    (tmp_path / "run" / "train_set.npy").unlink()
    assert sets(load_splits(path, DataConfig(), tmp_path / "run")) == sets(first)


def test_a_split_of_the_predecessor_without_test(make_event_file, tmp_path):
    path = make_event_file(num_events=5, **SHORT)
    np.save(tmp_path / "train_set.npy", np.array([4, 0]))
    np.save(tmp_path / "val_set.npy", np.array([2], dtype=np.int32))
    assert sets(load_splits(path, DataConfig(), tmp_path)) == [[4, 0], [2], None]


@pytest.mark.parametrize(
    ("name", "indices", "message"),
    [
        ("val_set", [3, 5], "names events 3 to 5, but the data has 5 events"),
        ("val_set", [-1, 2], "names events -1 to 2"),
        ("val_set", [0], "in more than one of train_set, val_set"),
        ("train_set", [1, 1], "names event 1 twice"),
        ("test_set", [2], "in more than one"),
        ("test_set", [], "not empty"),
        ("test_set", [0.5], "1-D array of integers"),
        ("test_set", [[4]], "1-D array of integers"),
        ("val_set", None, "val_set.npy is missing"),
    ],
)
def test_a_written_split_that_does_not_fit(make_event_file, tmp_path, name, indices, message):
    path = make_event_file(num_events=5, **SHORT)
    split = {"train_set": [0, 1], "val_set": [2], name: indices}
    for part, values in split.items():
        if values is not None:
            np.save(tmp_path / f"{part}.npy", np.array(values))
    with pytest.raises(DatasetError, match=message):
        load_splits(path, DataConfig(), tmp_path)


def test_a_pickled_array_is_refused(make_event_file, tmp_path):
    path = make_event_file(num_events=5, **SHORT)
    np.save(tmp_path / "train_set.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "val_set.npy", np.array([0]))
    with pytest.raises(DatasetError, match="holds Python objects"):
        load_splits(path, DataConfig(), tmp_path)


def test_folder_with_three_files(make_event_file, tmp_path):
    for seed, name in enumerate(("train_set", "val_set", "test_set")):
        make_event_file(f"data/{name}.h5", num_events=6 - seed, seed=seed, **SHORT)
    splits = load_splits(tmp_path / "data", DataConfig(), tmp_path / "run")
    assert [len(part) for part in sets(splits)] == [6, 5, 4]
    assert splits.validation.files[0].path.name == "val_set.h5"
    assert not (tmp_path / "run").exists()


def test_folder_without_validation(make_event_file, tmp_path):
    make_event_file("data/train_set.h5", num_events=20, **SHORT)
    for _ in range(2):
        splits = load_splits(tmp_path / "data", DataConfig(), tmp_path / "run")
        assert [None if part is None else len(part) for part in sets(splits)] == [18, 2, None]
    make_event_file("data/test_set.h5", num_events=7, seed=1, **SHORT)
    with_test = load_splits(tmp_path / "data", DataConfig(), tmp_path / "run")
    assert sets(with_test)[:2] == sets(splits)[:2]
    assert len(with_test.test) == 7
    names = sorted(file.name for file in (tmp_path / "run").iterdir())
    assert names == ["train_set.npy", "val_set.npy"]


def test_folder_of_other_files_is_one_data_set(make_event_file, tmp_path):
    for seed in range(3):
        make_event_file(f"data/day_{seed}.hdf5", num_events=10, seed=seed, **SHORT)
    splits = load_splits(tmp_path / "data", DataConfig())
    assert sum(len(part) for part in sets(splits)) == 30
    as_list = load_splits(sorted((tmp_path / "data").iterdir()), DataConfig())
    assert sets(as_list) == sets(splits)


def test_keypoints_of_the_config_are_selected(make_event_file):
    path = make_event_file(num_events=10, keypoints=["Nose", "Head"], **SHORT)
    splits = load_splits(path, DataConfig(keypoints=("Head",)))
    assert splits.train.locations_mm.shape == (8, 1, 2)
    with pytest.raises(DatasetError, match="valid: Nose, Head"):
        load_splits(path, DataConfig(keypoints=("Tail",)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_events": 2}, "has 2 events, but a split needs at least 3"),
        ({"groups": np.repeat([0, 1], 6)}, "has 2 groups, but"),
        ({"locations": None}, "training needs the location"),
    ],
)
def test_data_that_cannot_be_split(make_event_file, options, message):
    with pytest.raises(DatasetError, match=message):
        load_splits(make_event_file(**options), DataConfig())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_microphones": 3}, "microphones: 3, but 4"),
        ({"sample_rate_hz": 1000.0}, "sample_rate_hz' is 1000.0, but 125000.0"),
    ],
)
def test_files_of_a_folder_must_fit(make_event_file, tmp_path, options, message):
    make_event_file("data/train_set.h5", **SHORT)
    make_event_file("data/val_set.h5", **SHORT, **options)
    with pytest.raises(DatasetError, match=message):
        load_splits(tmp_path / "data", DataConfig())


# A split that lies in a folder.


def write_split(folder, **parts):
    folder.mkdir(parents=True, exist_ok=True)
    for name, places in parts.items():
        np.save(folder / f"{name}_set.npy", np.array(places))
    return folder


@pytest.mark.parametrize("inner", ["", "indices"])
def test_an_explicit_split_comes_before_everything(make_event_file, tmp_path, inner):
    for seed, name in enumerate(("train_set", "val_set")):
        make_event_file(f"data/{name}.h5", num_events=6, seed=seed, **SHORT)
    write_split(tmp_path / "data", train=[1], val=[2], test=[3])
    write_split(tmp_path / "run", train=[1], val=[2], test=[3])
    folder = write_split(tmp_path / "split" / inner, train=[0, 11, 5], val=[6, 3])
    splits = load_splits(tmp_path / "data", DataConfig(), split=tmp_path / "split")
    assert sets(splits) == [[0, 11, 5], [6, 3], None]
    assert splits.origin == f"index files of {folder}"


def test_a_split_needs_a_training_and_a_validation_part(make_event_file, tmp_path):
    path = make_event_file(num_events=6, **SHORT)
    with pytest.raises(DatasetError, match=r"none: does not exist, but --split takes a folder"):
        load_splits(path, DataConfig(), split=tmp_path / "none")
    with pytest.raises(
        DatasetError, match=r"split: holds a part .*: val_set\.npy is missing; copy"
    ):
        load_splits(path, DataConfig(), split=write_split(tmp_path / "split", train=[0]))
    with pytest.raises(
        DatasetError, match=r"train_set\.npy: is a file, but --split takes a folder"
    ):
        load_splits(path, DataConfig(), split=tmp_path / "split" / "train_set.npy")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"empty: holds no train_set\.npy, but --split takes a "):
        load_splits(path, DataConfig(), split=tmp_path / "empty")


@pytest.mark.parametrize("place", ["data", "data/indices"])
def test_index_files_beside_the_data_are_used(make_event_file, tmp_path, place):
    for seed in range(2):
        make_event_file(f"data/{seed}.h5", num_events=5, seed=seed, **SHORT)
    write_split(tmp_path / place, train=[0, 7], val=[4, 5], test=[9])
    splits = load_splits(tmp_path / "data", DataConfig(), tmp_path / "run")
    assert sets(splits) == [[0, 7], [4, 5], [9]]
    assert splits.validation.describe(0) == "event 4 of 0.h5"
    assert splits.validation.describe(1) == "event 0 of 1.h5"
    assert splits.origin == f"index files of {tmp_path / place}"
    files = load_splits([tmp_path / "data" / "0.h5", tmp_path / "data" / "1.h5"], DataConfig())
    assert files.origin.startswith("new, by event")


def test_files_of_a_split_come_before_index_files(make_event_file, tmp_path):
    for seed, name in enumerate(("train_set", "val_set")):
        make_event_file(f"data/{name}.h5", num_events=6, seed=seed, **SHORT)
    write_split(tmp_path / "data", train=[1], val=[2])
    splits = load_splits(tmp_path / "data", DataConfig())
    assert [len(part) for part in sets(splits)[:2]] == [6, 6]
    assert splits.origin == f"the files train_set.h5, val_set.h5 of {tmp_path / 'data'}"


def test_a_split_from_elsewhere_is_kept_and_cannot_be_exchanged(make_event_file, tmp_path):
    path = make_event_file(num_events=6, **SHORT)
    one = write_split(tmp_path / "one", train=[0, 1], val=[2], test=[3])
    two = write_split(tmp_path / "two", train=[0, 1], val=[2])
    run = tmp_path / "run"
    load_splits(path, DataConfig(), run, split=one)
    again = load_splits(path, DataConfig(), run)
    assert sets(again) == [[0, 1], [2], [3]]
    assert again.origin == f"as kept in {run}"
    assert sets(load_splits(path, DataConfig(), run, split=one)) == sets(again)
    with pytest.raises(DatasetError, match=r"run was begun with another split.*it has a test_set"):
        load_splits(path, DataConfig(), run, split=two)
    assert sets(load_splits(path, DataConfig(), run, split=run)) == sets(again)


def test_the_record_of_a_split_is_heeded(make_event_file, tmp_path):
    path = make_event_file(num_events=40, **SHORT)
    whole, config = open_events(path), DataConfig()
    new = make_split(whole, config)
    write_new_split(tmp_path / "split", new, whole, config, gap_s=1.0, summaries={})
    splits = load_splits(path, config, split=tmp_path / "split")
    assert sets(splits) == [part.tolist() for part in new.parts.values()]
    assert sets(load_splits(path, config)) == sets(splits)  # training splits as data split does
    other = make_event_file("other.h5", num_events=40, seed=1, **SHORT)
    with pytest.raises(DatasetError, match="made for other data"):
        load_splits(other, config, split=tmp_path / "split")


# Events that are chosen by an index file.


def choose(tmp_path, places):
    np.save(tmp_path / "chosen.npy", np.array(places))
    return tmp_path / "chosen.npy"


def test_only_chosen_events_of_a_split_take_part(make_event_file, tmp_path):
    path = make_event_file(num_events=10, **SHORT)
    folder = write_split(tmp_path / "split", train=[0, 1, 2, 3], val=[5, 4], test=[9, 8])
    chosen = choose(tmp_path, [8, 4, 3, 0, 7])
    splits = load_splits(path, DataConfig(), tmp_path / "run", split=folder, events=chosen)
    assert sets(splits) == [[0, 3], [4], [8]]
    assert splits.origin == f"index files of {folder} (4 events are not in {chosen})"
    assert sets(load_splits(path, DataConfig(), tmp_path / "run")) == sets(splits)
    with pytest.raises(DatasetError, match="run was begun with another split"):
        load_splits(path, DataConfig(), tmp_path / "run", split=folder)
    for part, places in (("val", [0, 8]), ("test", [0, 4]), ("train", [4, 8])):
        with pytest.raises(DatasetError, match=rf"{part}_set.npy: none of its . events is among"):
            load_splits(path, DataConfig(), split=folder, events=choose(tmp_path, places))


def test_only_chosen_events_are_split_anew(make_event_file, tmp_path):
    path = make_event_file(num_events=40, **SHORT)
    chosen = choose(tmp_path, range(39, 9, -1))
    splits = load_splits(path, DataConfig(), tmp_path / "run", events=chosen)
    assert [len(part) for part in sets(splits)] == [24, 3, 3]
    assert sorted(chain(*sets(splits))) == list(range(10, 40))
    assert splits.origin.endswith(f"(10 events are not in {chosen})")
    fewer = choose(tmp_path, range(20, 40))
    less = load_splits(path, DataConfig(validation_fraction=0.4), tmp_path / "run", events=fewer)
    assert sets(less) == [[place for place in part if place >= 20] for part in sets(splits)]


def test_chosen_events_count_through_all_files_of_a_folder(make_event_file, tmp_path):
    for seed, name in enumerate(("train_set", "val_set", "test_set")):
        make_event_file(f"data/{name}.h5", num_events=6, seed=seed, **SHORT)
    chosen = choose(
        tmp_path, [17, 2, 6, 8, 12]
    )  # test 0 to 5, training 6 to 11, validation 12 to 17
    splits = load_splits(tmp_path / "data", DataConfig(), events=chosen)
    assert sets(splits) == [[0, 2], [0, 5], [2]]
    assert splits.origin.endswith(f"of {tmp_path / 'data'} (13 events are not in {chosen})")
    with pytest.raises(DatasetError, match=r"test_set\.h5: none of its 6 events is among"):
        load_splits(tmp_path / "data", DataConfig(), events=choose(tmp_path, [6, 7, 12]))
    (tmp_path / "data" / "val_set.h5").unlink()
    chosen = choose(tmp_path, [1, 6, 7, 8, 10])
    splits = load_splits(tmp_path / "data", DataConfig(), tmp_path / "run", events=chosen)
    assert sorted(chain(*sets(splits)[:2])) == [0, 1, 2, 4]
    assert sets(splits)[2] == [1]


def test_an_index_file_of_other_data_is_refused(make_event_file, tmp_path):
    path = make_event_file(num_events=10, **SHORT)
    with pytest.raises(
        DatasetError, match=r"chosen.npy: names events 3 to 10, but the data has 10"
    ):
        load_splits(path, DataConfig(), events=choose(tmp_path, [3, 10]))


def test_bouts_are_split_whole(make_event_file):
    onsets = np.repeat(np.arange(15) * 10.0, 4) + np.tile(np.arange(4) * 0.3, 15)
    path = make_event_file(num_events=60, onsets_s=onsets, **SHORT)
    splits = load_splits(path, DataConfig(validation_fraction=0.2))
    bouts = [{place // 4 for place in part} for part in sets(splits)]
    assert [len(part) for part in bouts] == [9, 3, 3]
    assert len(set.union(*bouts)) == 15
    assert "by 15 bouts (at least 1 s apart), stratified over" in splits.origin
