import json
from pathlib import Path

import pytest

from gerbil_tune.cli import train
from gerbil_tune.config.legacy import load_legacy
from gerbil_tune.errors import ConfigError, GerbilTuneError
from gerbil_tune.main import dispatch, parse_arguments

LEGACY = {"GENERAL": {"CONFIG_NAME": "lab"}, "OPTIMIZATION": {"NUM_EPOCHS": 3}}


@pytest.fixture
def config(tmp_path):
    def write(tree, name="c.json"):
        path = tmp_path / name
        path.write_text(json.dumps(tree))
        return path

    return write


@pytest.fixture
def trained(monkeypatch):
    """What would be trained; the training itself is tested where it takes its time."""
    calls = []

    def record(experiment, data, save_path, workers, folder=None):
        calls.append((experiment, data, save_path, workers, folder))
        return save_path / experiment.name / "00001"

    monkeypatch.setattr(train, "train_and_export", record)
    return calls


def run(*words):
    dispatch(parse_arguments([str(word) for word in words]))


class TestArguments:
    def test_training(self):
        parsed = parse_arguments(["--data", "d", "--config", "c.json", "--save_path", "out"])
        assert (parsed.data, parsed.config, parsed.save_path) == (
            Path("d"),
            Path("c.json"),
            Path("out"),
        )
        assert (parsed.eval, parsed.bare, parsed.output_path) == (False, False, None)

    @pytest.mark.parametrize("option", ["-o", "--output_path"])
    def test_evaluation(self, option):
        parsed = parse_arguments(["--eval", "--data", "d.h5", "--config", "c.json", option, "o.h5"])
        assert parsed.eval
        assert parsed.output_path == Path("o.h5")

    def test_results_go_here_by_default(self):
        assert parse_arguments(["--config", "c.json"]).save_path == Path()

    @pytest.mark.parametrize("words", [[], ["--data", "d"], ["--config", "c", "--job_id", "3"]])
    def test_wrong_arguments_end_with_2(self, words, capsys):
        with pytest.raises(SystemExit) as end:
            parse_arguments(words)
        assert end.value.code == 2
        assert "usage: python -m gerbil_tune.main" in capsys.readouterr().err

    def test_help(self, capsys):
        with pytest.raises(SystemExit) as end:
            parse_arguments(["--help"])
        assert end.value.code == 0
        text = capsys.readouterr().out
        for option in ("--config", "--data", "--save_path", "--eval", "--output_path", "--bare"):
            assert option in text


class TestTraining:
    def test_a_legacy_config_is_converted(self, config, trained, tmp_path, capsys):
        path = config(LEGACY)
        run("--config", path, "--data", "d", "--save_path", tmp_path / "out")
        ((experiment, data, save_path, workers, folder),) = trained
        assert experiment == load_legacy(path)
        assert experiment.training.epochs == 3
        assert (data, workers, folder) == ([Path("d")], 1, None)
        assert save_path == tmp_path / "out" / "trained_models"
        expected = tmp_path / "out" / "trained_models" / "lab" / "00001" / "config.json"
        assert capsys.readouterr().out == f"saved {expected}\n"

    def test_our_own_config_is_read_too(self, config, trained):
        path = config({"name": "ours", "data": {"crop_length": 512}})
        run("--config", path, "--data", "d")
        experiment, _, save_path, _, _ = trained[0]
        assert (experiment.name, experiment.data.crop_length) == ("ours", 512)
        assert save_path == Path("trained_models")

    def test_data_may_be_named_in_the_config(self, config, trained):
        run("--config", config({**LEGACY, "data": {"datafile_path": "/data/gerbils"}}))
        assert trained[0][1] == [Path("/data/gerbils")]

    def test_the_command_line_wins(self, config, trained):
        tree = {**LEGACY, "DATA": {"DATAFILE_PATH": "/data/gerbils"}}
        run("--config", config(tree), "--data", "other")
        assert trained[0][1] == [Path("other")]

    def test_without_data_it_says_so(self, config, trained):
        path = config(LEGACY)
        with pytest.raises(ConfigError) as error:
            run("--config", path)
        assert str(error.value) == (
            f"--data is missing, and {path} names no DATA/DATAFILE_PATH; add --data with the folder of "
            "train_set.h5 and val_set.h5"
        )
        assert trained == []

    def test_bare_writes_into_the_folder_itself(self, config, trained, tmp_path):
        run("--config", config(LEGACY), "--data", "d", "--save_path", tmp_path / "new", "--bare")
        _, _, root, _, folder = trained[0]
        assert (root, folder) == (tmp_path.resolve(), tmp_path / "new")

    def test_bare_never_writes_over_anything(self, config, trained, tmp_path):
        with pytest.raises(
            ConfigError, match=r"--bare writes into --save_path, but .* is not empty"
        ):
            run("--config", config(LEGACY), "--data", "d", "--save_path", tmp_path, "--bare")
        assert trained == []

    @pytest.mark.parametrize(
        ("tree", "what"),
        [
            ({**LEGACY, "ARCHITECTURE": "Wavenet"}, "ARCHITECTURE 'Wavenet' is not supported"),
            ({"GENERAL": {}}, "GENERAL/CONFIG_NAME is missing"),
            ({"name": "ours", "training": {"epoch": 3}}, "training/epoch is not a known key"),
        ],
    )
    def test_a_wrong_config_is_told_before_data_are_opened(self, config, trained, tree, what):
        with pytest.raises(ConfigError, match=what):
            run("--config", config(tree), "--data", "no such folder")
        assert trained == []


class TestEvaluation:
    def test_it_needs_data(self, config):
        with pytest.raises(ConfigError) as error:
            run("--eval", "--config", config(LEGACY))
        assert (
            str(error.value) == "--eval needs --data with the HDF5 file whose events are predicted"
        )

    def test_a_config_without_weights_is_no_model(self, config, make_event_file):
        with pytest.raises(GerbilTuneError) as error:
            run("--eval", "--config", config(LEGACY, "config.json"), "--data", make_event_file())
        assert error.value.exit_code == 2
        assert "\n" not in str(error.value)

    def test_predictions_land_beside_the_data(self, make_bundle, make_event_file, capsys):
        import h5py

        path = make_event_file(num_events=3)
        run("--eval", "--config", make_bundle() / "config.json", "--data", path)
        output = path.with_name("events_preds.h5")
        assert f"predicted 3 events; wrote {output}" in capsys.readouterr().out
        with h5py.File(output) as file:
            assert file["predictions"].shape == (3, 2)
