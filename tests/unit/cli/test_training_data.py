"""What train and search open: the split and the events that were asked for. No Ray, no network."""

import os

import numpy as np
import pytest
from typer.testing import CliRunner

from gerbil_tune.cli.app import app
from gerbil_tune.cli.study_run import check_data
from gerbil_tune.cli.train import _identity
from gerbil_tune.cli.training_data import describe, open_training_data
from gerbil_tune.config.schema import DataConfig, ExperimentConfig
from gerbil_tune.config.space import load_space
from gerbil_tune.errors import ConfigError, DatasetError
from gerbil_tune.search.storage import open_study
from tests.integration.command_line import SPACE


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows(opened):
    splits = opened.splits
    return [part.rows.tolist() for part in (splits.train, splits.validation, splits.test)]


def save(path, places):
    path.parent.mkdir(exist_ok=True)
    np.save(path, np.array(places))
    return path


def test_from_data_split_to_training(make_event_file, folder, capsys):
    make_event_file("calls.h5", num_events=60)
    save(folder / "clean.npy", np.arange(10, 60))
    arguments = ["data", "split", "calls.h5", "--out", "split", "--events", "clean.npy"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    capsys.readouterr()
    data, config = [folder / "calls.h5"], DataConfig()
    opened = open_training_data(data, config, folder / "study", split=folder / "split")
    assert capsys.readouterr().out == f"split: index files of {folder / 'split'}\n"
    parts = [
        np.load(folder / "split" / f"{name}_set.npy").tolist() for name in ("train", "val", "test")
    ]
    assert rows(opened) == parts
    assert describe(opened).startswith("40 training, 5 validation, 5 test events; 4 microphones")
    # The study keeps the split, and its continuation needs no --split.
    assert rows(open_training_data(data, config, folder / "study")) == parts

    fewer = save(folder / "fewer.npy", np.arange(30, 60))
    few = open_training_data(data, config, folder / "other", split=folder / "split", events=fewer)
    assert rows(few) == [[place for place in part if place >= 30] for part in parts]
    with pytest.raises(DatasetError, match="study was begun with another split"):
        open_training_data(data, config, folder / "study", split=folder / "split", events=fewer)
    # Without a split, training makes the one that data split made.
    new = open_training_data(data, config, folder / "new", events=folder / "clean.npy")
    assert rows(new) == parts


def test_a_study_goes_on_with_its_own_events_only(make_event_file, folder):
    path, config = make_event_file("calls.h5", num_events=60), DataConfig()
    save(folder / "split" / "train_set.npy", np.arange(40))
    save(folder / "split" / "val_set.npy", np.arange(40, 50))
    (folder / "space.yaml").write_text(SPACE)
    study_dir = folder / "study"
    study_dir.mkdir()
    study = open_study(f"sqlite:///{study_dir}/o.db", "tiny", load_space(folder / "space.yaml", ()))

    def begin(where, **options):
        check_data(study, open_training_data([path], config, folder / where, **options))

    begin("a", split=folder / "split")
    begin("a", split=folder / "split")
    begin("a")
    save(folder / "split" / "test_set.npy", np.arange(50, 60))
    begin("b", split=folder / "split")  # a test part decides nothing
    without_first = save(folder / "events.npy", np.arange(1, 60))
    with pytest.raises(ConfigError, match=r"another split of them \(data_fingerprint"):
        begin("c", split=folder / "split", events=without_first)
    save(folder / "split" / "val_set.npy", np.arange(41, 50))
    with pytest.raises(ConfigError, match=r"of them \(validation_fingerprint"):
        begin("d", split=folder / "split")


def test_a_changed_split_is_another_training_run(folder):
    split, events = folder / "split", folder / "events.npy"
    data, experiment = [folder / "calls.h5"], ExperimentConfig()
    save(split / "train_set.npy", [1, 2])
    save(events, [1, 2, 3])
    seen = {
        _identity(experiment, data, None, None),
        _identity(experiment, data, split, None),
        _identity(experiment, data, split, events),
        _identity(experiment, data, split, folder / "missing.npy"),
    }
    assert len(seen) == 4
    assert _identity(experiment, data, split, events) in seen
    save(split / "train_set.npy", [1, 3])
    assert _identity(experiment, data, split, events) not in seen


def test_the_cache_folder_is_told_to_all_processes(make_event_file, folder, monkeypatch):
    monkeypatch.setenv("GERBIL_TUNE_CACHE_DIR", "elsewhere")
    make_event_file(
        "calls.h5", num_events=30, audio_options={"chunks": True, "compression": "gzip"}
    )
    done = CliRunner().invoke(
        app, ["data", "split", "calls.h5", "--cache-dir", "my cache"], catch_exceptions=False
    )
    assert done.exit_code == 0
    assert os.environ["GERBIL_TUNE_CACHE_DIR"] == str(folder / "my cache")
    assert any((folder / "my cache").rglob("*"))
