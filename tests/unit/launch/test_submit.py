import json
import shlex
import subprocess
import sys

import pytest

from gerbil_tune.cli.app import app, run
from gerbil_tune.cli.options import parse_duration_s
from gerbil_tune.errors import ConfigError
from gerbil_tune.launch.sbatch import SlurmResources, sbatch_command
from gerbil_tune.launch.scripts import own_program, scripts_dir
from tests.unit.launch.test_ray_api import dashboard


def gerbil_tune(capsys, *arguments):
    """Run a command in this process; return exit code, stdout and stderr."""
    with pytest.raises(SystemExit) as end:
        run(lambda: app(list(arguments)))
    printed = capsys.readouterr()
    return end.value.code or 0, printed.out, printed.err


@pytest.fixture(autouse=True)
def _no_site(monkeypatch, tmp_path):
    """The settings of whoever runs the tests have no say."""
    (tmp_path / "site.env").touch()
    monkeypatch.setenv("GERBIL_TUNE_SITE", str(tmp_path / "site.env"))
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)


def test_a_dry_run_prints_the_command_line(capsys):
    command = ["search", "my space.yaml", "--data", "d", "--trials", "3"]
    options = (
        "--nodes",
        "2",
        "--gpus-per-node",
        "4",
        "--mem",
        "64G",
        "--sbatch-option",
        "exclusive",
    )
    code, out, err = gerbil_tune(capsys, "submit", "slurm", *options, "--dry-run", "--", *command)
    expected = sbatch_command(
        SlurmResources(2, 4, memory="64G", options=("exclusive",)),
        command,
        scripts_dir(),
        own_program(),
    )
    assert (code, out, err) == (0, expected.shell_line() + "\n", "")


def test_the_defaults_of_a_site_are_minded(capsys, tmp_path):
    (tmp_path / "site.env").write_text("SBATCH_PARTITION=gpu\nSBATCH_TIMELIMIT=60\n")
    _, out, _ = gerbil_tune(capsys, "submit", "slurm", "--dry-run", "--", "models")
    words = shlex.split(out)
    assert {"SBATCH_PARTITION=gpu", "SBATCH_TIMELIMIT=60"} <= set(words)
    assert not [word for word in words if word.startswith("--time")]


def test_without_slurm_it_says_so(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    code, out, err = gerbil_tune(capsys, "submit", "slurm", "--", "report", "quick")
    assert (code, out) == (1, "")
    assert err.startswith("error: sbatch is not on the PATH, so this is no SLURM submission host; ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("place", ["slurm", "ray"])
@pytest.mark.parametrize(
    ("words", "received"),
    [(["serach", "x"], "'serach'"), (["submit", "ray"], "'submit'"), (["gerbil-tune"], "nothing")],
)
def test_what_is_no_command_is_refused_before_it_waits_in_a_queue(capsys, place, words, received):
    code, _, err = gerbil_tune(capsys, "submit", place, "--dry-run", "--", *words)
    assert code == 2
    assert f"received {received}, valid: demo, simulate, " in err
    assert err.count("\n") == 1


def test_the_name_of_the_program_may_be_in_front(capsys):
    _, with_name, _ = gerbil_tune(
        capsys, "submit", "slurm", "--dry-run", "--", "gerbil-tune", "models"
    )
    _, without, _ = gerbil_tune(capsys, "submit", "slurm", "--dry-run", "--", "models")
    assert with_name == without


def test_a_dry_run_prints_what_ray_would_get(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "s3cret")
    monkeypatch.chdir(tmp_path)
    options = ("--address", "head:8265", "--stop-wait", "60", "--env", "A=ö")
    code, out, err = gerbil_tune(
        capsys, "submit", "ray", *options, "--dry-run", "--", "search", "a b.yaml"
    )
    where, _, body = out.partition("\n")
    request = json.loads(body)
    assert (code, err) == (0, "")
    assert where == "POST http://head:8265/api/jobs/"
    assert request["entrypoint"] == (
        f"cd {shlex.quote(str(tmp_path))} && exec {shlex.quote(own_program())} search 'a b.yaml'"
    )
    assert request["runtime_env"] == {
        "env_vars": {
            "GERBIL_TUNE_HOME": str(tmp_path),
            "A": "ö",
            "RAY_JOB_STOP_WAIT_TIME_S": "60",
        }
    }
    assert "s3cret" not in out


@pytest.mark.parametrize(
    "arguments", [[], ["--follow", "j", "--stop", "j"], ["--stop", "j", "--", "models"]]
)
def test_one_thing_at_a_time(capsys, arguments):
    code, _, err = gerbil_tune(capsys, "submit", "ray", *arguments)
    assert code == 2
    assert "one of: a command after --, --follow JOB, or --stop JOB" in err


def test_a_stop_is_told(capsys):
    answers = {"/api/jobs/j/stop": (200, {}), "/api/jobs/j": (200, {"status": "STOPPED"})}
    with dashboard(answers) as (address, _):
        code, out, _ = gerbil_tune(capsys, "submit", "ray", "--address", address, "--stop", "j")
    assert (code, out) == (0, "job j: stopped\n")


def test_the_address_may_come_from_the_environment(capsys, monkeypatch):
    answers = {
        "/api/jobs/j": (200, {"status": "FAILED", "driver_exit_code": 3}),
        "/api/jobs/j/logs": (200, {"logs": "tail"}),
    }
    with dashboard(answers) as (address, _):
        monkeypatch.setenv("RAY_API_SERVER_ADDRESS", address)
        code, out, _ = gerbil_tune(capsys, "submit", "ray", "--follow", "j")
    assert (code, out) == (3, "tail")


def test_it_starts_without_a_heavy_library():
    program = (
        "import sys; from gerbil_tune.cli.app import app, run\n"
        "try: app(['submit', 'ray', '--dry-run', '--', 'models'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('ray', 'torch', 'mlflow', 'optuna', 'h5py', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("30m", 1800), ("8h", 28800), ("2d", 172800), ("0.5h", 1800)],
)
def test_durations(text, seconds):
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "0", "-1h", "nan", "inf", "1e999", "8 hours", "8w"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ConfigError) as error:
        parse_duration_s(text)
    assert str(error.value) == (
        f"duration {text!r} must be a number above 0 and s, m, h or d, such as 8h"
    )
