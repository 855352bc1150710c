"""The command line is a promise: scripts, job files and papers hold it. A change here is a change of it."""

import json
import os
import subprocess
import sys

import pytest
import typer.main
from typer.testing import CliRunner

from gerbil_tune import __version__
from gerbil_tune.cli.app import app

# One line a parameter: its names or place, what it takes, and * required, + repeatable, =default.
FROZEN = """
gerbil-tune
    --version flag
gerbil-tune data
gerbil-tune data check
    PATH...* +
    --cache-dir DIR
    --events INDEX.npy
    --json flag
    --quick flag
    --set path/to/key=value +
    --split DIR
gerbil-tune data clean
    PATH...* +
    --cache-dir DIR
    --config CLEAN.yaml
    --dry-run flag
    --events INDEX.npy
    --examples KEPT REMOVED =(100, 200)
    --out DIR =cleaned
    --page flag
    --set path/to/key=value +
    --write-hdf5 FILE.h5
gerbil-tune data shard
    PATH...* +
    --cache-dir DIR
    --events INDEX.npy
    --processes N
    --set path/to/key=value +
    --shard-mb MB =1000.0
    -o --out DIR*
gerbil-tune data show
    FILE*
    --event I =0
    --set path/to/key=value +
    -o --output OUT.png
gerbil-tune data split
    PATH...* +
    --cache-dir DIR
    --events INDEX.npy
    --gap-s S =1.0
    --group-by auto|file|gap|none|NAME =auto
    --out DIR =indices
    --set path/to/key=value +
gerbil-tune demo
    --folder DIR =demo
    --trials N =12
gerbil-tune evaluate
    --cache-dir DIR
    --data D.h5* +
    --events INDEX.npy
    --model [NAME=]REF* +
    --source-height-mm MM =40.0
    -o --output OUT.h5
gerbil-tune import
    CONFIG.json*
    --cache-dir DIR
    --data PATH +
    --events INDEX.npy
    --from gerbilizer|vocalocator-1.0|vocalocator-1.1
    --name NAME
    --save-path DIR =trained_models
    --set path/to/key=value +
    --weights WEIGHTS.pt
gerbil-tune models
gerbil-tune predict
    --cache-dir DIR
    --data PATH* +
    --density-step MM
    --error-rate SHARE =0.05
    --events INDEX.npy
    --format +
    --model REF*
    --overwrite flag
    --point-predictions flag
    --workers N
    -o --output OUT*
gerbil-tune promote
    MODEL*
    [VERSION]
    --cache-dir DIR
    --data D.h5 +
    --events INDEX.npy
    --force flag
    --rollback flag
gerbil-tune register
    BUNDLE*
    --name
gerbil-tune report
    STUDY*
    --watch SECONDS
gerbil-tune search
    SPACE.yaml*
    --cache-dir DIR
    --data PATH* +
    --dry-run flag
    --epochs N
    --events INDEX.npy
    --max-concurrent N
    --max-failures N
    --name S
    --patience N
    --refit-top K
    --save-path DIR =trained_models
    --set path/to/key=value +
    --split DIR
    --storage URL
    --time-budget 8h
    --trials N
    --warm-start STUDY +
    --workers-per-trial N =1
gerbil-tune simulate
    OUT.h5*
    --absorption-scale LOW HIGH =(0.8, 1.25)
    --animals N =1
    --duration-ms LOW HIGH =(20.0, 200.0)
    --events =2400
    --force flag
    --height-mm LOW HIGH =(20.0, 60.0)
    --keypoints =1
    --preset
    --processes
    --room ROOM.yaml
    --seed =0
    --snr-db LOW HIGH =(5.0, 25.0)
    --wavs DIR
gerbil-tune studies
    DIR =studies
    --json flag
gerbil-tune submit
gerbil-tune submit ray
    -- COMMAND... +
    --address URL =http://127.0.0.1:8265
    --dry-run flag
    --env NAME=value +
    --follow JOB
    --no-wait flag
    --stop JOB
    --stop-wait SECONDS =120
gerbil-tune submit slurm
    -- COMMAND...* +
    --account
    --cpus-per-task =8
    --dry-run flag
    --gpus-per-node =0
    --job-name =gerbil-tune
    --mem
    --nodes =1
    --output PATTERN =%x-%j.log
    --partition
    --qos
    --sbatch-option name=value +
    --time
gerbil-tune train
    --cache-dir DIR
    --config C.yaml
    --data PATH* +
    --events INDEX.npy
    --init-from REF
    --save-path DIR =trained_models
    --seeds K =1
    --set path/to/key=value +
    --split DIR
    --workers N =1
"""
HEAVY = ("torch", "ray", "mlflow", "optuna", "h5py", "numpy", "scipy", "plotly", "pyroomacoustics")


def walk(command, name=("gerbil-tune",)):
    """Every command with its full name."""
    yield name, command
    for child, inner in sorted(getattr(command, "commands", {}).items()):
        yield from walk(inner, (*name, child))


COMMANDS = dict(walk(typer.main.get_command(app)))


def describe(parameter):
    is_argument = parameter.param_type_name == "argument"
    words = [] if is_argument else sorted(parameter.opts, key=len)
    words += [parameter.metavar] if parameter.metavar else []
    words[-1] += "*" if parameter.required else ""
    if getattr(parameter, "multiple", False) or parameter.nargs == -1:
        words.append("+")
    if getattr(parameter, "is_flag", False):
        words.append("flag")
    elif parameter.default not in (None, ()):
        words.append(f"={parameter.default}")
    return " ".join(words)


def test_the_command_line_is_frozen():
    lines = []
    for name, command in COMMANDS.items():
        lines.append(" ".join(name))
        parameters = [p for p in command.params if p.name != "help"]
        options = sorted(describe(p) for p in parameters if p.param_type_name == "option")
        places = [describe(p) for p in parameters if p.param_type_name == "argument"]
        lines += [f"    {line}" for line in (*places, *options)]
    assert lines == FROZEN.strip().splitlines()


@pytest.mark.parametrize("name", COMMANDS, ids=" ".join)
def test_help_names_every_option(name):
    done = CliRunner().invoke(app, [*name[1:], "--help"], env={"COLUMNS": "250", "NO_COLOR": "1"})
    assert done.exit_code == 0
    assert "Usage: " in done.output
    for parameter in COMMANDS[name].params:
        assert parameter.metavar is None or parameter.metavar in done.output
        if parameter.param_type_name == "option":
            assert all(option in done.output for option in parameter.opts)


@pytest.mark.parametrize("name", COMMANDS, ids=" ".join)
def test_everything_is_explained(name):
    command = COMMANDS[name]
    assert command.help
    unexplained = [p.name for p in command.params if not getattr(p, "help", None)]
    assert unexplained == []


def test_values_are_changed_with_set_and_not_by_new_flags():
    for name in ("search", "train"):
        assert "--set" in [
            option for p in COMMANDS["gerbil-tune", name].params for option in p.opts
        ]


def test_an_unknown_option_ends_with_2():
    done = CliRunner().invoke(app, ["search", "--epochs", "3"])
    assert done.exit_code == 2


@pytest.fixture(scope="module")
def fresh_interpreter():
    """What the command line loads before a command runs."""
    code = f"""
import json, sys
import gerbil_tune.cli.app
print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ}
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("library", HEAVY)
def test_help_loads_no_heavy_library(fresh_interpreter, library):
    assert library not in fresh_interpreter


def test_python_minus_m_is_the_same_program():
    done = subprocess.run(
        [sys.executable, "-m", "gerbil_tune", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"gerbil-tune {__version__}\n"
