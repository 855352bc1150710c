import os
import subprocess
import sys
from pathlib import Path

import pytest

from gerbil_tune.errors import ConfigError, LaunchError
from gerbil_tune.launch.sbatch import SlurmResources, sbatch_command
from gerbil_tune.launch.scripts import own_program, scripts_dir
from gerbil_tune.launch.slurm_jobs import log_name, next_steps, site_defaults, submit_sbatch

COMMAND = sbatch_command(
    SlurmResources(), ["search", "a b.yaml", "c\n'd'"], Path("/lab/cluster"), "/lab/gerbil-tune"
)


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """A PATH of its own; ``programs(name, text)`` puts a shell script into it."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("FOLDER", str(tmp_path))

    def add(name, text):
        path = folder / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    return add


@pytest.fixture
def beside_python(tmp_path, monkeypatch):
    """An interpreter's folder of its own."""
    folder = tmp_path / "env" / "bin"
    folder.mkdir(parents=True)
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    return folder


def test_without_sbatch_it_says_where_to_go(programs):
    with pytest.raises(LaunchError) as error:
        submit_sbatch(COMMAND)
    assert str(error.value) == (
        "sbatch is not on the PATH, so this is no SLURM submission host; run it on a login node, or see "
        "the command line with --dry-run"
    )


@pytest.mark.parametrize(("printed", "job"), [("4711", "4711"), ("4711;cluster-a", "4711")])
def test_the_command_is_handed_over_and_the_job_returned(programs, tmp_path, printed, job):
    programs("sbatch", f'printf "%s\\0" "$@" > "$FOLDER/arguments"; echo "{printed}"')
    assert submit_sbatch(COMMAND) == job
    arguments = (tmp_path / "arguments").read_text().split("\0")[:-1]
    assert arguments == ["--parsable", *COMMAND.argv[1:]]


def test_a_job_gets_the_environment_without_what_belongs_to_another_ray(
    programs, tmp_path, monkeypatch
):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    programs("sbatch", '/usr/bin/env > "$FOLDER/environment"; echo 1')
    submit_sbatch(COMMAND)
    lines = (tmp_path / "environment").read_text().splitlines()
    assert "GERBIL_TUNE_CLUSTER_DIR=/lab/cluster" in lines
    assert "MLFLOW_TRACKING_URI=http://mlflow:5000" in lines
    assert not [line for line in lines if line.startswith(("RAY_AUTH_TOKEN", "RAY_ADDRESS"))]


def test_what_sbatch_refuses_is_told_in_one_sentence(programs):
    programs(
        "sbatch", 'printf "sbatch: error: invalid partition\\n  specified: gpu\\n" >&2; exit 1'
    )
    with pytest.raises(LaunchError) as error:
        submit_sbatch(COMMAND)
    assert str(error.value) == (
        "sbatch refused the job: sbatch: error: invalid partition specified: gpu"
    )


@pytest.mark.parametrize(
    ("name", "output", "log"),
    [
        ("gerbil-tune", "%x-%j.log", "gerbil-tune-7.log"),
        ("night", "logs/%x.%A", "logs/night.7"),
        ("100%j", "%x-%%-%N.log", "100%j-%-%N.log"),
    ],
)
def test_the_name_of_the_log(name, output, log):
    assert log_name(SlurmResources(job_name=name, output=output), "7") == log


def test_a_submission_says_what_can_be_done_with_the_job():
    told = next_steps(SlurmResources(), "7")
    assert "submitted job 7; its log: gerbil-tune-7.log" in told
    for command in ("squeue --jobs=7", "scancel --signal=TERM --batch 7"):
        assert command in told


def test_the_defaults_of_a_site_stand_below_the_environment(tmp_path):
    (tmp_path / "site.env").write_text("SBATCH_PARTITION=gpu\nSBATCH_QOS=low\n")
    found = site_defaults(tmp_path, {"SBATCH_QOS": "high"})
    assert found == {"SBATCH_PARTITION": "gpu"}


def test_a_site_need_say_nothing(tmp_path):
    assert site_defaults(tmp_path, {}) == {}


def test_the_file_of_a_site_may_be_elsewhere(tmp_path):
    (tmp_path / "my site").write_text("SBATCH_QOS=low\n")
    environment = {"GERBIL_TUNE_SITE": str(tmp_path / "my site")}
    assert site_defaults(tmp_path / "cluster", environment) == {"SBATCH_QOS": "low"}


def test_a_named_file_that_is_missing_is_told(tmp_path):
    with pytest.raises(ConfigError, match="GERBIL_TUNE_SITE must name a readable text file"):
        site_defaults(tmp_path, {"GERBIL_TUNE_SITE": str(tmp_path / "none")})


def test_the_scripts_are_where_the_package_is():
    assert (scripts_dir() / "run_gpu.sh").is_file()
    assert scripts_dir().is_absolute()


def test_the_program_is_the_one_of_this_installation(beside_python, programs):
    installed = programs("gerbil-tune", "true")
    assert own_program() == str(installed)
    (beside_python / "gerbil-tune").touch()
    assert own_program() == str(beside_python / "gerbil-tune")


def test_the_program_has_a_name_even_where_it_is_not_installed(beside_python, programs):
    assert own_program() == "gerbil-tune"


def test_this_installation_has_its_program():
    program = Path(own_program())
    done = subprocess.run(
        [program, "--version"], capture_output=True, text=True, check=False, env={**os.environ}
    )
    assert done.returncode == 0
    assert done.stdout.startswith("gerbil-tune ")
