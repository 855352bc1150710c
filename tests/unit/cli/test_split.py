"""``gerbil-tune data split``, as a user sees it."""

import json
import re
from itertools import chain

import numpy as np
import pytest
from typer.testing import CliRunner

from gerbil_tune.cli.app import app
from gerbil_tune.data.events import open_events
from gerbil_tune.errors import ConfigError, DatasetError

SHORT = {"lengths": (5, 9)}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def split(*arguments):
    return CliRunner().invoke(app, ["data", "split", *map(str, arguments)], catch_exceptions=False)


def read(folder):
    return {path.stem: np.load(path).tolist() for path in sorted(folder.glob("*.npy"))}


def test_what_is_printed_and_written(make_event_file, folder):
    groups = np.repeat(np.arange(20), 4)
    make_event_file("calls.h5", num_events=80, groups=groups, **SHORT)
    done = split("calls.h5", "--out", "my split")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[:2] == [
        "80 events in 1 file",
        "split by 20 groups (group_ids or session_ids), stratified over 2 x 2 cells of the arena",
    ]
    header = "part events groups distance by chance mean location median duration"
    assert lines[2].split() == header.split()
    assert [re.split(r"\s{2,}", line.strip())[:3] for line in lines[3:6]] == [
        ["train", "64", "16"],
        ["val", "8", "2"],
        ["test", "8", "2"],
    ]
    assert lines[6:] == [
        "distance: how far a part's places in the arena are from those of all events, 0 (alike) to 1; by "
        "chance: the same for random parts of that size, on average",
        "wrote train_set.npy, val_set.npy, test_set.npy and split.json to my split",
        "next: gerbil-tune search SPACE.yaml --data calls.h5 --split 'my split'",
    ]
    parts = read(folder / "my split")
    assert sorted(chain(*parts.values())) == list(range(80))
    record = json.loads((folder / "my split" / "split.json").read_text())
    assert record["data"]["fingerprint"] == open_events(folder / "calls.h5").fingerprint()
    assert 0 <= record["parts"]["val_set"]["distance"] <= 1


def test_chosen_events_of_several_files(make_event_file, folder):
    for seed in range(2):
        make_event_file(f"{seed}.h5", num_events=20, seed=seed, **SHORT)
    np.save("clean.npy", np.arange(5, 40))
    options = ("--set", "data/test_fraction=0", "--set", "data/validation_fraction=0.2")
    done = split("0.h5", "1.h5", "--events", "clean.npy", *options)
    assert done.stdout.splitlines()[0] == "40 events in 2 files, 35 of them chosen by clean.npy"
    assert done.stdout.splitlines()[-1].endswith(
        "--data 0.h5 --data 1.h5 --split indices --events clean.npy"
    )
    parts = read(folder / "indices")
    assert {name: len(part) for name, part in parts.items()} == {"train_set": 28, "val_set": 7}
    assert sorted(chain(*parts.values())) == list(range(5, 40))


def test_data_without_locations(make_event_file, folder):
    make_event_file("calls.h5", num_events=30, locations=None, **SHORT)
    done = split("calls.h5", "--group-by", "none")
    assert "split by event, at random (no locations)" in done.stdout
    assert done.stdout.splitlines()[2].split() == ["part", "events", "median", "duration"]


def test_a_mean_next_to_the_centre_has_no_sign(make_event_file, folder):
    make_event_file("calls.h5", num_events=30, locations=np.full((30, 2), -0.2), **SHORT)
    lines = split("calls.h5").stdout.splitlines()
    assert sum("0, 0 mm" in line for line in lines) == 3
    assert "-0" not in "".join(lines)


def test_a_folder_that_is_split_already_is_split_anew(make_event_file, folder):
    for seed, name in enumerate(("train_set", "val_set")):
        make_event_file(f"data/{name}.h5", num_events=15, seed=seed, **SHORT)
    done = split("data")
    assert done.stderr == (
        "warning: data is split by its files already (train_set, val_set); all their events are divided "
        "anew\n"
    )
    assert sum(len(part) for part in read(folder / "indices").values()) == 30


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["--group-by", "cage"], DatasetError, "cannot group by 'cage'.*valid: file, gap, none"),
        (["--group-by", "file"], DatasetError, "has 1 group, but .*--group-by none"),
        (["--gap-s", "0"], ConfigError, "--gap-s must be a number of seconds above 0, but is 0"),
        (["--set", "data/test_fraction=0.5"], ConfigError, "data/test_fraction"),
        (["--events", "none.npy"], DatasetError, "none.npy: does not exist"),
    ],
)
def test_what_cannot_be_done(make_event_file, folder, arguments, error, message):
    make_event_file("calls.h5", num_events=30, **SHORT)
    with pytest.raises(error, match=message):
        split("calls.h5", *arguments)
    assert not (folder / "indices").exists()
