import subprocess
import sys
from pathlib import Path

import pytest

from gerbil_tune.errors import LaunchError
from gerbil_tune.launch.jobs import own_program, ray_job_command, submit_ray_job, submit_sbatch

SCRIPT = "#!/usr/bin/env bash\n#SBATCH --time=1:00\ntrue\n"


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
        submit_sbatch(SCRIPT)
    assert str(error.value) == (
        "sbatch is not on the PATH, so this is no SLURM submission host; run it on a login node, or see "
        "the script with --dry-run"
    )


@pytest.mark.parametrize(("printed", "job"), [("4711", "4711"), ("4711;cluster-a", "4711")])
def test_the_script_is_handed_over_and_the_job_returned(programs, tmp_path, printed, job):
    programs(
        "sbatch", f'echo "$@" > "$FOLDER/arguments"; /bin/cat > "$FOLDER/script"; echo "{printed}"'
    )
    assert submit_sbatch(SCRIPT) == job
    assert (tmp_path / "arguments").read_text() == "--parsable\n"
    assert (tmp_path / "script").read_text() == SCRIPT


def test_what_sbatch_refuses_is_told_in_one_sentence(programs):
    programs(
        "sbatch", 'printf "sbatch: error: invalid partition\\n  specified: gpu\\n" >&2; exit 1'
    )
    with pytest.raises(LaunchError) as error:
        submit_sbatch(SCRIPT)
    assert str(error.value) == (
        "sbatch refused the job: sbatch: error: invalid partition specified: gpu"
    )


def test_the_program_is_the_one_of_this_installation(beside_python, programs):
    installed = programs("gerbil-tune", "true")
    assert own_program() == str(installed)
    (beside_python / "gerbil-tune").touch()
    assert own_program() == str(beside_python / "gerbil-tune")


def test_the_program_has_a_name_even_where_it_is_not_installed(beside_python, programs):
    assert own_program() == "gerbil-tune"


def test_a_ray_job_runs_the_same_command(beside_python, programs):
    command = ["search", "a b.yaml", "--data", "d"]
    for name in ("ray", "gerbil-tune"):
        (beside_python / name).touch()
    assert ray_job_command(command, address="http://head:8265") == [
        str(beside_python / "ray"),
        "job",
        "submit",
        "--address=http://head:8265",
        "--",
        str(beside_python / "gerbil-tune"),
        *command,
    ]


def test_ray_may_be_elsewhere_on_the_path(beside_python, programs):
    assert ray_job_command([], address="x")[0] == "ray"


def test_a_ray_job_is_followed_and_its_exit_code_returned(
    beside_python, programs, monkeypatch, tmp_path
):
    monkeypatch.setenv("RAY_ADDRESS", "ray://old:10001")
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    text = 'printf "%s|" "$@" "${RAY_ADDRESS-unset}" "$RAY_AUTH_MODE" > "$FOLDER/called"; exit 75'
    programs("ray", text)
    assert submit_ray_job(["predict", "a b"], address="http://head:8265") == 75
    assert (tmp_path / "called").read_text() == (
        "job|submit|--address=http://head:8265|--|gerbil-tune|predict|a b|unset|token|"
    )


def test_the_mode_of_authentication_can_be_chosen(beside_python, programs, monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    programs("ray", 'echo "$RAY_AUTH_MODE" > "$FOLDER/called"')
    assert submit_ray_job([], address="x") == 0
    assert (tmp_path / "called").read_text() == "disabled\n"


def test_this_installation_has_its_program():
    program = Path(own_program())
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stdout.startswith("gerbil-tune ")
