"""The trained model that a training begins with."""

import json
import shutil
from pathlib import Path

import pytest

from gerbil_tune.cli.initial_model import (
    begin_with_weights,
    bundle_of_weights,
    load_fine_tuning,
)
from gerbil_tune.cli.train import _tell_epoch, _tell_initial_weights
from gerbil_tune.config.schema import DataConfig, ExperimentConfig, FineTuneConfig
from gerbil_tune.data.splits.splits import Splits
from gerbil_tune.errors import ConfigError, ModelNotFoundError
from gerbil_tune.models.bundle import read_bundle_config
from gerbil_tune.training.checkpoints import Checkpoint, Progress, write_checkpoint
from gerbil_tune.training.job import TrainingJob
from gerbil_tune.training.notes import add_notes


@pytest.fixture(scope="module")
def bundle(make_bundle):
    return make_bundle(
        name="lab",
        data=DataConfig(
            crop_length=777,
            sample_rate_hz=5000,
            arena_mm=(9, 9),
            keypoints=("nose",),
            source_folder="wavs",
        ),
        fine_tune=FineTuneConfig(init_from="/gone", what="head"),
    )


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def test_the_config_is_that_of_the_trained_model_but_for_its_recording_site(bundle):
    own, _ = read_bundle_config(bundle)
    config = load_fine_tuning(str(bundle), None, ["training/epochs=3", "fine_tune/what=low-rank"])
    assert config.data == DataConfig(crop_length=777, keypoints=("nose",))
    assert config.fine_tune == FineTuneConfig(init_from=str(bundle), what="low-rank")
    assert config.training == own.training.model_copy(update={"epochs": 3})
    for section in ("name", "features", "scaling", "model", "head", "loss", "optimizer"):
        assert getattr(config, section) == getattr(own, section)


def test_how_it_was_itself_fine_tuned_is_not_inherited(bundle):
    config = load_fine_tuning(str(bundle / "config.json"), None, [])
    assert config.fine_tune == FineTuneConfig(init_from=str(bundle))


def test_a_config_of_ones_own_wins(bundle, folder):
    (folder / "c.yaml").write_text("name: mine\nfine_tune: {init_from: elsewhere, rank: 2}\n")
    config = load_fine_tuning(str(bundle), folder / "c.yaml", ["training/epochs=3"])
    assert (config.name, config.training.epochs) == ("mine", 3)
    assert config.model == ExperimentConfig().model
    assert config.fine_tune == FineTuneConfig(init_from=str(bundle), rank=2)


def test_names_that_yaml_would_read_otherwise_stay_as_they_are(bundle, folder):
    strange = folder / "a: [b] #ü\"'"
    shutil.copytree(bundle, strange)
    (folder / "c.yaml").write_text("name: mine")
    for config in (None, folder / "c.yaml"):
        assert load_fine_tuning(strange.name, config, []).fine_tune.init_from == str(strange)


def test_wrong_overrides_are_told(bundle):
    with pytest.raises(ConfigError, match="--set: training/epoch is not a known key"):
        load_fine_tuning(str(bundle), None, ["training/epoch=3"])


def test_a_run_that_has_begun_can_do_without_the_model(folder):
    """Whether it has begun is found out later."""
    (folder / "c.yaml").write_text("name: mine")
    config = load_fine_tuning("gone", folder / "c.yaml", [])
    assert config.fine_tune.init_from == str(folder / "gone")
    with pytest.raises(ModelNotFoundError, match="'gone' is neither"):
        load_fine_tuning("gone", None, [])
    with pytest.raises(ModelNotFoundError, match="models:/gone@champion"):
        load_fine_tuning("models:/gone@champion", folder / "c.yaml", [])


def test_an_ensemble_is_no_beginning(folder):
    (folder / "several").mkdir()
    (folder / "several/ensemble.json").write_text("{}")
    with pytest.raises(
        ConfigError, match=r"is an ensemble, .* name a member, such as .*members/00"
    ):
        load_fine_tuning("several", None, [])


def test_what_weights_depend_on_comes_with_them(bundle):
    own, _ = read_bundle_config(bundle)
    asked = ExperimentConfig.model_validate(
        {"name": "theirs", "model": {"kind": "simplenet"}, "training": {"epochs": 3}}
    )
    config = begin_with_weights(asked, bundle)
    assert (config.name, config.training, config.data) == ("theirs", asked.training, asked.data)
    assert (config.model, config.features) == (own.model, own.features)
    assert config.fine_tune == FineTuneConfig(init_from=str(bundle))


def test_weights_are_found_by_their_file_or_folder(bundle, folder):
    shutil.copytree(bundle, folder / "lab/00001")
    (folder / "configs").mkdir()
    config = folder / "configs/c.json"
    named = ["lab/00001", "lab/00001/best_weights.safetensors", "../lab/00001/best_weights.pt"]
    found = [bundle_of_weights(path, config) for path in map(Path, named)]
    assert found == [folder / "lab/00001"] * 3


def test_a_predecessors_folder_is_no_bundle(folder):
    (folder / "config.json").write_text(json.dumps({"GENERAL": {"CONFIG_NAME": "lab"}}))
    path = folder / "best_weights.pt"
    assert bundle_of_weights(path, folder / "config.json") is None


@pytest.fixture
def job(bundle, folder):
    _, setup = read_bundle_config(bundle)
    config = load_fine_tuning(str(bundle), None, [])
    return TrainingJob(config, setup, Splits(None, None, None), folder / "run")


def test_what_is_taken_is_told_before_a_run_begins(job, capsys):
    told = _tell_initial_weights(job)
    lines = capsys.readouterr().out.splitlines()
    assert set(lines) == told
    assert lines[0].startswith(
        f"training begins with the weights of {job.config.fine_tune.init_from}"
    )
    write_checkpoint(job.run_dir, Checkpoint({}, Progress(1), {"param_groups": []}))
    assert _tell_initial_weights(job) == set()
    assert capsys.readouterr().out == ""


def test_what_a_run_notes_is_told_once_with_its_next_epoch(job, capsys):
    job.run_dir.mkdir()
    add_notes(job.run_dir, ["told before", "compiled in vain"])
    told = {"told before"}
    for epoch in (1, 2):
        names = ("train_loss", "val_error_median_mm", "val_error_mean_mm", "train_events_per_s")
        _tell_epoch({"epoch": epoch, **dict.fromkeys(names, 1.0)}, job, told)
    out = capsys.readouterr().out.splitlines()
    assert (out[0], len(out)) == ("compiled in vain", 3)
    assert out[1].startswith("epoch 1/")
