import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gerbil_tune.config.schema import DataConfig
from gerbil_tune.data.splits import load_splits, split_events
from gerbil_tune.errors import DatasetError

SHORT = {"lengths": (5, 9)}


def sets(splits):
    parts = (splits.train, splits.validation, splits.test)
    return [None if part is None else part.rows.tolist() for part in parts]


@settings(max_examples=150)
@example(num_events=4, fraction=0.49, seed=0, num_held_out=2)
@given(
    st.integers(3, 400),
    st.floats(0.01, 0.49),
    st.integers(-10, 10**6),
    st.integers(1, 2),
)
def test_a_split_by_event_has_the_sizes_asked_for(num_events, fraction, seed, num_held_out):
    options = {"groups": None, "fraction": fraction, "seed": seed, "num_held_out": num_held_out}
    try:
        parts = split_events(num_events, **options)
    except DatasetError:
        pytest.fail("there are enough events")
    assert sorted(np.concatenate(parts).tolist()) == list(range(num_events))
    wanted = max(1, round(fraction * num_events))
    assert all(1 <= len(part) <= wanted for part in parts[1:])
    assert len(parts[0]) >= 1
    assert all((np.diff(part) > 0).all() for part in parts)
    again = split_events(num_events, **options)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))


@given(
    st.lists(st.integers(-3, 12), min_size=3, max_size=300).filter(lambda x: len(set(x)) >= 3),
    st.floats(0.01, 0.49),
    st.integers(0, 10**6),
)
def test_a_split_by_group_divides_no_group(groups, fraction, seed):
    groups = np.array(groups)
    parts = split_events(len(groups), groups=groups, fraction=fraction, seed=seed)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(groups)))
    assert all(len(part) for part in parts)
    names = [set(groups[part].tolist()) for part in parts]
    assert not names[0] & names[1]
    assert not names[0] & names[2]
    assert not names[1] & names[2]
    wanted = max(1, round(fraction * len(groups)))
    assert all(
        len(part) <= wanted or len(name) == 1
        for part, name in zip(parts[1:], names[1:], strict=True)
    )


def test_seeds_differ():
    first, second = (
        split_events(100, groups=None, fraction=0.1, seed=seed)[1].tolist() for seed in (0, 1)
    )
    assert first != second


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
        ("train_set", [1, 1], "twice in one"),
        ("test_set", [2], "in more than one"),
        ("test_set", [], "not empty"),
        ("test_set", [0.5], "1-D array of integers"),
        ("test_set", [[4]], "1-D array of integers"),
        ("val_set", None, "cannot be read as an array"),
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
    with pytest.raises(DatasetError, match="cannot be read as an array"):
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
        ({"groups": np.repeat([0, 1], 6)}, "has 2 groups of events"),
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
