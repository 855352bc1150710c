"""The scripts of ``cluster/`` without SLURM: their syntax, and what they make of hostile names.

``srun`` and ``scontrol`` are stand-ins that write down how they were called; tests/slurm has the real ones.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import gerbil_tune.launch

CLUSTER = Path(__file__).parents[3] / "cluster"
SCRIPTS = sorted([*CLUSTER.glob("*.sh"), *CLUSTER.glob("*.sbatch")])
HOSTILE = "a \"b\" 'c'\n$(touch owned) ü*"

FAKE_SRUN = """#!/usr/bin/env bash
"{python}" - "$@" <<'PY'
import json, os, sys
arguments = sys.argv[1:]
run_dir = arguments[arguments.index("bash") + 2]
told = {{name: os.environ.get(name) for name in ("RAY_ADDRESS", "FROM_SITE", "GERBIL_TUNE_CLUSTER_DIR")}}
told["token_mode"] = oct(os.stat(run_dir + "/token").st_mode & 0o777)
told["arguments"] = arguments
open(os.environ["TOLD"], "w").write(json.dumps(told))
if "STATUS" in os.environ:
    open(run_dir + "/status", "w").write(os.environ["STATUS"] + chr(10))
PY
"""
FAKE_SCONTROL = """#!/usr/bin/env bash
case "$1 $2" in
  "show job") printf 'JobId=7 JobName=x\\n   Command=%s search\\n   WorkDir=/\\n' "$COMMAND" ;;
  "show hostnames") echo n1 ;;
  requeue*) echo "$2" > "$REQUEUED" ;;
esac
"""


class FakeJob:
    """A batch script that runs as SLURM would run it: a copy of it, elsewhere."""

    def __init__(self, folder: Path, scripts: Path) -> None:
        self.folder, self.scripts = folder, scripts
        programs = folder / "bin"
        programs.mkdir(parents=True)
        for name, text in (("srun", FAKE_SRUN), ("scontrol", FAKE_SCONTROL)):
            (programs / name).write_text(
                text.format(python=sys.executable) if "PY" in text else text
            )
            (programs / name).chmod(0o755)
        self.environment = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "SLURM_JOB_ID": "7",
            "SLURM_JOB_NODELIST": "n1",
            "SLURM_JOB_NUM_NODES": "1",
            "SLURM_SUBMIT_DIR": str(folder),
            "TOLD": str(folder / "told.json"),
            "REQUEUED": str(folder / "requeued"),
        }

    def run(self, script: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        copy = self.folder / "slurm_script"
        shutil.copy(self.scripts / script, copy)
        environment = {"COMMAND": str(self.scripts / script), **self.environment, **more}
        return subprocess.run(
            ["bash", str(copy), *arguments],
            env=environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def told(self) -> dict[str, object]:
        loaded: dict[str, object] = json.loads((self.folder / "told.json").read_text())
        return loaded

    def command(self) -> list[str]:
        """The user's command, as srun got it."""
        arguments = self.told()["arguments"]
        assert isinstance(arguments, list)
        return arguments[arguments.index("bash") + 3 :]


@pytest.fixture
def job(tmp_path: Path) -> FakeJob:
    scripts = tmp_path / HOSTILE / "cluster"
    shutil.copytree(CLUSTER, scripts)
    return FakeJob(tmp_path / "work" / HOSTILE, scripts)


def test_package_has_the_scripts() -> None:
    shipped = Path(gerbil_tune.launch.__file__).with_name("cluster")
    assert {path.name for path in SCRIPTS} <= {path.name for path in shipped.iterdir()}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_bash_can_read_it(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert len(script.read_text().splitlines()) <= 200


def test_shellcheck_is_content() -> None:
    if shutil.which("shellcheck") is None:
        if os.environ.get("REQUIRE_SLURM") == "1":
            pytest.fail("shellcheck is not installed")
        pytest.skip("shellcheck is not installed")
    lab = Path(__file__).parents[2] / "slurm" / "slurmlab.sh"
    command = ["shellcheck", "-x", "-S", "warning", *map(str, SCRIPTS), str(lab)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_command_survives_hostile_names(job: FakeJob) -> None:
    done = job.run("ray.sbatch", sys.executable, HOSTILE, "", STATUS="0", RAY_ADDRESS="1.2.3.4:5")
    assert done.returncode == 0, done.stderr
    assert job.command() == [sys.executable, HOSTILE, ""]
    assert job.told()["token_mode"] == "0o600"
    assert job.told()["RAY_ADDRESS"] is None
    assert not list((job.folder / "slurm-jobs").iterdir())
    assert not list(job.folder.rglob("owned"))


def test_site_and_own_environment(job: FakeJob) -> None:
    (job.scripts / "site.env").write_text('FROM_SITE="a b"\nfalse\necho $UNSET\n')
    program = job.folder / ".venv/bin/only-here"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert job.run("ray.sbatch", "only-here", STATUS="0").returncode == 0
    assert job.told()["FROM_SITE"] == "a b"


@pytest.mark.parametrize("status", ["0", "1", "3", "75"])
def test_exit_code_and_requeue(job: FakeJob, status: str) -> None:
    done = job.run("ray.sbatch", "true", STATUS=status)
    assert done.returncode == int(status)
    assert (job.folder / "requeued").exists() == (status == "75")
    assert not list(job.folder.rglob("token"))


def test_requeues_are_capped(job: FakeJob) -> None:
    more = {"STATUS": "75", "SLURM_RESTART_COUNT": "2", "GERBIL_TUNE_MAX_REQUEUE": "2"}
    done = job.run("ray.sbatch", "true", **more)
    assert done.returncode == 75
    assert "GERBIL_TUNE_MAX_REQUEUE is 2" in done.stderr
    assert not (job.folder / "requeued").exists()


def test_step_that_says_nothing_is_a_failure(job: FakeJob) -> None:
    assert job.run("ray.sbatch", "true").returncode == 1


@pytest.mark.parametrize(
    ("arguments", "more", "says"),
    [
        ([], {}, "no command was given"),
        (["no-such-program"], {}, "neither on PATH nor in"),
        (["true"], {"COMMAND": "/elsewhere/x"}, "set GERBIL_TUNE_CLUSTER_DIR"),
        (["true"], {"SLURM_NTASKS_PER_NODE": "4"}, "--ntasks-per-node is 4"),
        (["true"], {"GERBIL_TUNE_SITE": "/no/site.env"}, "GERBIL_TUNE_SITE names /no/site.env"),
        (["true"], {"SLURM_JOB_ID": ""}, "this is no SLURM job"),
    ],
)
def test_refusals(job: FakeJob, arguments: list[str], more: dict[str, str], says: str) -> None:
    done = job.run("ray.sbatch", *arguments, **more)
    assert done.returncode == 2
    assert says in done.stderr


@pytest.mark.parametrize(
    ("script", "arguments", "expected"),
    [
        (
            "run_gpu.sh",
            ["d", HOSTILE, "o"],
            ["--data", "d", "--config", HOSTILE, "--save_path", "o"],
        ),
        ("run_gpu.sh", ["d", "c"], ["--data", "d", "--config", "c", "--save_path", "."]),
        (
            "run_eval.sh",
            ["f", "c", HOSTILE],
            ["--eval", "--data", "f", "--config", "c", "-o", HOSTILE],
        ),
        (
            "run_array.sh",
            ["d", "x", HOSTILE],
            ["--data", "d", "--config", HOSTILE, "--save_path", "."],
        ),
    ],
)
def test_gerbilizers_scripts(
    job: FakeJob, script: str, arguments: list[str], expected: list[str]
) -> None:
    more = {"GERBIL_TUNE_PYTHON": sys.executable, "SLURM_ARRAY_TASK_ID": "1"}
    done = job.run(script, *arguments, STATUS="0", **more)
    assert done.returncode == 0, done.stderr
    assert job.command() == [sys.executable, "-u", "-m", "gerbil_tune.main", *expected]


@pytest.mark.parametrize("script", ["run_gpu.sh", "run_eval.sh", "run_array.sh"])
def test_gerbilizers_scripts_say_how_they_are_called(job: FakeJob, script: str) -> None:
    done = job.run(script, "one")
    assert done.returncode == 2
    assert "usage:" in done.stderr


def test_array_task_without_config(job: FakeJob) -> None:
    done = job.run("run_array.sh", "d", "c", SLURM_ARRAY_TASK_ID="3")
    assert done.returncode == 2
    assert "--array=0-0" in done.stderr


def test_gerbilizers_script_without_slurm(tmp_path: Path) -> None:
    arguments = ["--eval", "--data", "f", "--config", "c"]
    environment = {**os.environ, "GERBIL_TUNE_PYTHON": "echo"}
    environment.pop("SLURM_JOB_ID", None)
    done = subprocess.run(
        ["bash", str(CLUSTER / "run_eval.sh"), "f", "c"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["-u", "-m", "gerbil_tune.main", *arguments]
