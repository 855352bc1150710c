import pytest

from gerbil_tune.cli.app import app, run
from gerbil_tune.cli.options import parse_duration_s
from gerbil_tune.errors import ConfigError
from gerbil_tune.launch.jobs import own_program
from gerbil_tune.launch.sbatch import SlurmResources, render_sbatch


def gerbil_tune(capsys, *arguments):
    """Run a command in this process; return exit code, stdout and stderr."""
    with pytest.raises(SystemExit) as end:
        run(lambda: app(list(arguments)))
    printed = capsys.readouterr()
    return end.value.code or 0, printed.out, printed.err


def test_a_dry_run_prints_the_script(capsys):
    command = ["search", "my space.yaml", "--data", "d", "--trials", "3"]
    code, out, err = gerbil_tune(
        capsys, "submit", "slurm", "--gpus", "2", "--memory", "64G", "--dry-run", "--", *command
    )
    expected = render_sbatch(command, SlurmResources(gpus=2, memory="64G"), program=own_program())
    assert (code, out, err) == (0, expected, "")


def test_without_slurm_it_says_so(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    code, out, err = gerbil_tune(capsys, "submit", "slurm", "--", "report", "quick")
    assert (code, out) == (1, "")
    assert err.startswith("error: sbatch is not on the PATH, so this is no SLURM submission host; ")
    assert err.count("\n") == 1


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
