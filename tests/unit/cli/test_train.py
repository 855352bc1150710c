"""What train says after a run, and keeps of it; the training itself is tested where it takes its time."""

import shlex

import numpy as np
import pytest
from typer.testing import CliRunner

from gerbil_tune.cli.app import app
from gerbil_tune.cli.train import (
    _identity,
    _keep_split,
    _say_where_it_goes_on,
    evaluation_command,
)
from gerbil_tune.cli.training_data import TrainingData, open_training_data, warn_of_changes
from gerbil_tune.config.load import load_experiment
from gerbil_tune.config.schema import DataConfig, ExperimentConfig
from gerbil_tune.data.splits.splits import Splits, load_splits
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.tracking.store import known_warnings_ignored
from gerbil_tune.training.checkpoints import (
    Checkpoint,
    PartialEpoch,
    Progress,
    write_checkpoint,
)
from gerbil_tune.training.job import TrainingJob

SETUP = RecordingSetup(4, 50_000.0, (572.0, 356.0))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def after_training(folder, make_bundle):
    """The printed command of a run on some data, and the part that it should score."""

    def after(data, **options):
        bundle = make_bundle()
        path = data[0] if len(data) == 1 else data
        splits = load_splits(path, DataConfig(), folder / "run", **options)
        _keep_split(folder / "run", splits, bundle)
        return evaluation_command(bundle, data, options.get("split")), splits.test

    return after


def run(line):
    """Parse and run a command that was printed."""
    program, *words = shlex.split(line)
    assert program == "gerbil-tune"
    with known_warnings_ignored():
        return CliRunner().invoke(app, words, catch_exceptions=False).stdout


@pytest.mark.parametrize("kept", ["new split", "split of one's own"])
def test_the_test_part_of_an_index_split_is_scored(make_event_file, folder, after_training, kept):
    data = [make_event_file(f"my calls {seed}.h5", num_events=30, seed=seed) for seed in range(2)]
    options = {}
    if kept != "new split":
        (folder / "split").mkdir()
        for name, places in (("train", range(40)), ("val", range(40, 50)), ("test", [51, 59, 3])):
            np.save(
                folder / "split" / f"{name}_set.npy", np.setdiff1d(places, [3] * (name != "test"))
            )
        options["split"] = folder / "split"
    line, test = after_training(data, **options)
    assert " --events " in line
    assert f"{len(test)} events of " in run(line)
    chosen = np.load(shlex.split(line)[-1])
    assert chosen.tolist() == test.rows.tolist()


def test_a_test_file_is_scored(make_event_file, folder, after_training):
    for seed, name in enumerate(("train_set", "val_set", "test_set")):
        make_event_file(f"data/{name}.h5", num_events=20 - seed, seed=seed)
    line, _ = after_training([folder / "data"])
    assert line.endswith(f"--data {folder}/data/test_set.h5")
    assert "18 events of " in run(line)


def test_chosen_events_of_a_test_file_are_scored(make_event_file, folder, after_training):
    for seed, name in enumerate(("train_set", "val_set", "test_set")):
        make_event_file(f"data/{name}.h5", num_events=20, seed=seed)
    # By name the test file comes first.
    np.save("chosen.npy", np.array([3, 5, *range(20, 60)]))
    line, test = after_training([folder / "data"], events=folder / "chosen.npy")
    assert test.rows.tolist() == [3, 5]
    assert "2 events of " in run(line)


def test_without_a_test_part_there_is_a_placeholder(make_event_file, folder, after_training):
    for seed, name in enumerate(("train_set", "val_set")):
        make_event_file(f"data/{name}.h5", num_events=20, seed=seed)
    line, test = after_training([folder / "data"])
    assert test is None
    assert line.endswith(" --data TEST.h5")
    assert evaluation_command(folder, [], None).endswith(" --data TEST.h5")


@pytest.mark.parametrize("how", ["rewritten", "truncated", "deleted", "left alone"])
def test_data_that_changed_meanwhile_are_told(make_event_file, folder, capsys, how):
    path = make_event_file("calls.h5", num_events=40)
    opened = open_training_data([path], DataConfig(), folder / "run")
    assert isinstance(opened, TrainingData)
    fingerprint = opened.splits.train.fingerprint()
    if how == "rewritten":
        with path.open("r+b") as file:
            file.seek(opened.splits.train.files[0].audio_offset_bytes)
            file.write(b"\1" * 10_000)
    elif how == "truncated":
        with path.open("r+b") as file:
            file.truncate(5000)
    elif how == "deleted":
        path.unlink()
    capsys.readouterr()
    warn_of_changes(opened, fingerprint)
    told = capsys.readouterr().err
    assert told.count("\n") == (how != "left alone")
    if how != "left alone":
        start = "warning: the model was trained on the data as they were when it began, but "
        assert told.startswith(f"{start}{path}")


@pytest.mark.parametrize(
    ("places", "told"),
    [
        ([], ""),
        ([(2, 0), (3, 0)], "continuing after epoch 3/9\n"),
        ([(3, 0), (3, 120)], "continuing after epoch 3/9 and step 120 of the next\n"),
        ([(3, 120), (4, 0)], "continuing after epoch 4/9\n"),
    ],
)
def test_where_a_run_goes_on_is_told(folder, capsys, places, told):
    config = ExperimentConfig.model_validate({"training": {"epochs": 9}})
    job = TrainingJob(config, SETUP, Splits(None, None, None), folder / "run")
    for epoch, step in places:
        progress = Progress(epoch, PartialEpoch(step))
        write_checkpoint(job.run_dir, Checkpoint({}, progress, {"param_groups": []}))
    _say_where_it_goes_on(job)
    assert capsys.readouterr().out == told


def run_id(*overrides):
    return _identity(load_experiment(None, list(overrides)), [], None, None)


@pytest.mark.parametrize(
    "same", ["training/checkpoint_interval_s=9", "training/accumulate_steps=4"]
)
def test_a_run_is_the_same_however_it_is_saved_and_fitted_into_memory(same):
    assert run_id(same) == run_id()
    assert run_id("training/epochs=3", same) == run_id("training/epochs=3") != run_id()
