"""What a user gets wrong is told in one sentence, with exit code 2, before anything heavy starts."""

import json
import subprocess
import sys

import pytest

from tests.integration.command_line import SPACE, clean_environment

HEAVY = ("ray", "mlflow", "optuna")
PROGRAM = f"""
import json, sys
from gerbil_tune.%s import %s
sys.argv[0] = "gerbil-tune"
try:
    %s()
finally:
    loaded = [name for name in {(*HEAVY, "torch", "h5py")!r} if name in sys.modules]
    print("loaded " + json.dumps(loaded), flush=True)
"""
GERBIL_TUNE = PROGRAM % ("cli.app", "run", "run")
GERBILIZER = PROGRAM % ("main", "main", "main")


@pytest.fixture
def folder(tmp_path, make_event_file):
    (tmp_path / "space.yaml").write_text(SPACE)
    (tmp_path / "text.h5").write_text("not an HDF5 file")
    (tmp_path / "empty").mkdir()
    make_event_file("good.h5", num_events=60)
    make_event_file("unlabelled.h5", locations=None)
    return tmp_path


def told(folder, arguments, program=GERBIL_TUNE):
    """Run in a process of its own; return the sentence and which libraries were loaded."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=folder,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    loaded = json.loads(done.stdout.rpartition("loaded ")[2])
    assert not set(HEAVY) & set(loaded)
    return lines[0].removeprefix("error: "), loaded


def change_space(folder, old, new):
    assert old in SPACE
    (folder / "space.yaml").write_text(SPACE.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (
            "optimizer/learning_rate",
            "optimizer/learnin_rate",
            "space.yaml: parameters: optimizer/learnin_rate is not a known key; "
            "valid: kind, learning_rate, weight_decay, betas",
        ),
        (
            "low: 1.0e-4, high: 1.0e-2",
            "low: 1.0e-2, high: 1.0e-4",
            "space.yaml: parameters/optimizer/learning_rate: low must be below high, "
            "but low is 0.01 and high is 0.0001",
        ),
        (
            "name: tiny",
            "name: tiny\nname: twice",
            "space.yaml cannot be parsed: the key 'name' stands twice",
        ),
        (
            "kind: gcc-net",
            "kind: oracle",
            "space.yaml: base: model/kind is 'oracle'; valid: densenet, simplenet, corrnet, gcc-net",
        ),
    ],
)
def test_a_wrong_space_file(folder, old, new, sentence):
    change_space(folder, old, new)
    message, loaded = told(folder, ["search", "space.yaml", "--data", "good.h5"])
    assert message.startswith(sentence)
    assert loaded == []
    assert not (folder / "studies").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["search", "none.yaml", "--data", "good.h5"], "none.yaml cannot be read: No such file"),
        (["search", "text.h5", "--data", "good.h5"], "text.h5 must hold a mapping, but holds str"),
        (
            ["search", "space.yaml", "--data", "good.h5", "--set", "training/epoch=3"],
            "space.yaml: base: training/epoch is not a known key; valid: epochs, ",
        ),
        (
            ["search", "space.yaml", "--data", "good.h5", "--set", "training.epochs"],
            "--set 'training.epochs' must be path/to/key=value, for example training/epochs=50",
        ),
        (
            ["search", "space.yaml", "--data", "good.h5", "--time-budget", "tomorrow"],
            "duration 'tomorrow' must be a number above 0 and s, m, h or d, such as 8h",
        ),
        (
            ["search", "space.yaml", "--data", "good.h5", "--workers-per-trial", "3"],
            "space.yaml: training/global_batch_size may be 16, which 3 workers cannot share evenly",
        ),
        (
            ["train", "--data", "good.h5", "--config", "none.yaml"],
            "none.yaml cannot be read: No such file or directory",
        ),
        (
            ["train", "--data", "good.h5", "--set", "training/epoch=3"],
            "config: training/epoch is not a known key; "
            "valid: epochs, global_batch_size, accumulate_steps, clip_norm, ema_decay, batch_norm, ",
        ),
        (
            ["train", "--data", "good.h5", "--set", "training/epochs={"],
            "--set 'training/epochs={' cannot be parsed as YAML: ",
        ),
        (
            ["train", "--data", "good.h5", "--set", "model/kind=oracle"],
            "config: model/kind is 'oracle'; valid: densenet, simplenet, corrnet, gcc-net",
        ),
        (
            ["train", "--data", "good.h5", "--workers", "3"],
            "training/global_batch_size is 64, which 3 workers cannot share evenly",
        ),
        (["data", "check", "good.h5", "--set", "data=3"], "config: data must be a section"),
        (["report", "nothing"], "nothing is no study folder (it has no study.yaml); studies here: none"),
        (
            ["submit", "slurm", "--sbatch-option", "ntasks=4", "--", "report", "x"],
            "--sbatch-option ntasks is not possible: ",
        ),
    ],
)  # fmt: skip
def test_a_wrong_option_is_told_before_data_are_opened(folder, arguments, sentence):
    message, loaded = told(folder, arguments)
    assert message.startswith(sentence)
    assert loaded == []
    assert not (folder / "studies").exists()


@pytest.mark.parametrize(
    "command",
    [["search", "space.yaml", "--data"], ["train", "--data"], ["data", "check"]],
    ids=lambda command: " ".join(command[:2]),
)
@pytest.mark.parametrize(
    ("data", "what"),
    [
        ("text.h5", "cannot be opened as HDF5"),
        ("none.h5", "does not exist"),
        ("empty", None),
    ],
)
def test_data_that_cannot_be_read(folder, command, data, what):
    message, loaded = told(folder, [*command, data])
    assert data in message
    assert what is None or what in message
    assert "torch" not in loaded


@pytest.mark.parametrize("command", [["search", "space.yaml"], ["train"]], ids=lambda c: c[0])
def test_data_without_locations_cannot_be_trained_on(folder, command):
    message, _ = told(folder, [*command, "--data", "unlabelled.h5"])
    assert "unlabelled.h5" in message
    assert "locations" in message


def test_mirroring_needs_a_known_array(folder):
    message, _ = told(
        folder, ["train", "--data", "good.h5", "--set", "augmentation/mirror_prob=0.5"]
    )
    assert message.startswith(
        "augmentation/mirror_prob is 0.5, but the microphone array is unknown"
    )


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ('{"GENERAL": {"CONFIG_NAME": "x"}, "ARCHITECTURE": "Wavenet"}', "c.json: ARCHITECTURE 'Wavenet'"),
        ('{"GENERAL": {"CONFIG_NAME": "x"}, "DATA": {"CROP": 1}}', "c.json: DATA/CROP is not supported"),
        ('{"GENERAL": ', "c.json cannot be parsed: "),
        ('{"name": "x", "model": {"kind": "?"}}', "c.json: model/kind is '?'; valid: densenet"),
    ],
)  # fmt: skip
def test_a_wrong_config_on_gerbilizers_command_line(folder, config, sentence):
    (folder / "c.json").write_text(config)
    message, loaded = told(folder, ["--data", "good.h5", "--config", "c.json"], GERBILIZER)
    assert message.startswith(sentence)
    assert loaded == []
