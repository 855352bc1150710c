import os
import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gerbil_tune.errors import ConfigError
from gerbil_tune.launch.sbatch import (
    SlurmResources,
    read_site_defaults,
    sbatch_command,
)

GOLDEN = Path(__file__).parent / "golden"
PROGRAM = "/opt/lab/.venv/bin/gerbil-tune"
SCRIPTS = Path("/opt/lab/cluster")
COMMANDS = {
    "search_on_defaults": (
        ["search", "search_spaces/quick.yaml", "--data", "data"],
        SlurmResources(),
        {},
    ),
    "search_on_four_nodes": (
        ["search", "search_spaces/full.yaml", "--data", "/scratch/my lab", "--trials", "500"],
        SlurmResources(
            4, 4, 32, "200G", "2-00:00:00", "gpu", "lab", "high", "night", "logs/%x-%j.log",
            ("constraint=a100&nvlink", "exclusive"),
        ),
        {},
    ),
    "search_with_defaults_of_a_site": (
        ["search", "search_spaces/quick.yaml", "--data", "data"],
        SlurmResources(gpus_per_node=1),
        {"SBATCH_TIMELIMIT": "08:00:00", "SBATCH_PARTITION": "gpu long"},
    ),
    "predict_with_hostile_names": (
        ["predict", "--data", "it's here.h5", "--data", "$(rm -rf ~)`date`.h5", "-o", 'a "b";\n#SBATCH -x ö'],
        SlurmResources(job_name="a 'job'"),
        {},
    ),
}  # fmt: skip


def rendered(name):
    command, resources, defaults = COMMANDS[name]
    return sbatch_command(resources, command, SCRIPTS, PROGRAM, defaults)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_command_line_is_as_reviewed(name):
    """Rewrite with GERBIL_TUNE_WRITE_GOLDEN=1, and read the difference before it is committed."""
    line = rendered(name).shell_line() + "\n"
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("GERBIL_TUNE_WRITE_GOLDEN"):
        path.write_text(line)
    assert path.is_file(), f"{path} is missing; write it with GERBIL_TUNE_WRITE_GOLDEN=1"
    assert line == path.read_text()


def test_no_golden_command_line_is_left_over():
    assert {path.stem for path in GOLDEN.iterdir()} == set(COMMANDS)


# A C string, so no NUL; and surrogates are no text.
arguments = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)


@given(st.lists(arguments, max_size=5))
def test_any_argument_arrives_as_it_was(command):
    made = sbatch_command(SlurmResources(), command, SCRIPTS, PROGRAM)
    assert made.argv[-len(command) - 2 :] == (str(SCRIPTS / "ray.sbatch"), PROGRAM, *command)
    assert shlex.split(made.shell_line())[1:] == [*made.argv]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_shell_reads_the_line_as_it_was(name, tmp_path):
    sbatch = tmp_path / "sbatch"
    sbatch.write_text(
        '#!/bin/sh\nprintf "%s\\0" "$GERBIL_TUNE_CLUSTER_DIR" "$SBATCH_PARTITION" "$@"\n'
    )
    sbatch.chmod(0o755)
    made = rendered(name)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", made.shell_line()], env={"PATH": path}, capture_output=True, check=True
    )
    partition = made.environment.get("SBATCH_PARTITION", "")
    assert done.stdout.decode().split("\0")[:-1] == [str(SCRIPTS), partition, *made.argv[1:]]


@pytest.mark.parametrize(
    ("field", "name", "value"),
    [
        ("time", "time", "1:00\n--exclusive"),
        ("partition", "partition", ""),
        ("memory", "mem", "64\tG"),
        ("job_name", "job-name", "night\x7f"),
        ("output", "output", ""),
    ],
)
def test_a_text_that_cannot_be_meant_is_refused(field, name, value):
    with pytest.raises(ConfigError) as error:
        SlurmResources(**{field: value})
    assert str(error.value) == (
        f"--{name} is {value!r}; valid: a text that is not empty and has no control characters"
    )


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("a=0-3", "valid: the long name of an option of sbatch"),
        ("--exclusive", "valid: the long name of an option of sbatch"),
        ("Constraint=a100", "valid: the long name of an option of sbatch"),
        ("comment=a\nb", "valid: the long name of an option of sbatch"),
        ("array=0-3", "run_array.sh runs one config a task"),
        ("ntasks-per-node=4", "the scripts start one task on each node"),
        ("wrap=true", "the job runs the scripts of gerbil-tune"),
        ("mem=4G", "is an option of gerbil-tune itself; write --mem"),
        ("output=x", "is an option of gerbil-tune itself; write --output"),
    ],
)
def test_an_option_that_would_break_the_job_is_refused(option, said):
    with pytest.raises(ConfigError) as error:
        SlurmResources(options=(option,))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("SBATCH_PARTITION=gpu\n", {"SBATCH_PARTITION": "gpu"}),
        ("  export SBATCH_ACCOUNT='my lab'  # ours\n", {"SBATCH_ACCOUNT": "my lab"}),
        (
            "export SBATCH_PARTITION=gpu SBATCH_QOS=normal\n",
            {"SBATCH_PARTITION": "gpu", "SBATCH_QOS": "normal"},
        ),
        ("SBATCH_QOS=a\nSBATCH_QOS=b\n", {"SBATCH_QOS": "b"}),
        ("# SBATCH_PARTITION=gpu\nmodule load cuda\nGERBIL_TUNE_TMP=$TMPDIR\n", {}),
        ("SBATCH_PARTITION=\n", {}),
    ],
)
def test_the_defaults_of_a_site(text, found):
    assert read_site_defaults(text, "site.env") == found


@pytest.mark.parametrize(
    "line", ["SBATCH_PARTITION=$QUEUE", "SBATCH_QOS=`date`", "SBATCH_QOS=a b", "SBATCH_QOS='a"]
)
def test_a_default_that_needs_a_shell_is_refused(line):
    with pytest.raises(ConfigError) as error:
        read_site_defaults(f"\n{line}\n", "/lab/site.env")
    assert str(error.value) == (
        "/lab/site.env:2: lines with SBATCH_ variables must be plain NAME=value, for they are read without "
        f"a shell; received {line!r}"
    )


def test_the_example_for_sites_can_be_read():
    example = Path(__file__).parents[3] / "cluster" / "site.env.example"
    text = example.read_text().replace("# export SBATCH", "export SBATCH")
    assert set(read_site_defaults(text, "site.env")) <= {
        "SBATCH_PARTITION",
        "SBATCH_ACCOUNT",
        "SBATCH_QOS",
    }
