import os
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gerbil_tune.errors import ConfigError
from gerbil_tune.launch.sbatch import SlurmResources, render_sbatch

GOLDEN = Path(__file__).parent / "golden"
PROGRAM = "/opt/lab/.venv/bin/gerbil-tune"
SCRIPTS = {
    "search_on_defaults": (["search", "search_spaces/quick.yaml", "--data", "data"], SlurmResources()),
    "search_on_two_gpus": (
        ["search", "search_spaces/quick.yaml", "--data", "/scratch/my lab", "--trials", "50"],
        SlurmResources("2-00:00:00", 16, 2, "64G", "gpu", "night"),
    ),
    "predict_with_hostile_names": (
        ["predict", "--data", "it's here.h5", "--data", "$(rm -rf ~)`date`.h5", "-o", 'a "b";\n#SBATCH -x'],
        SlurmResources(gpus=1),
    ),
}  # fmt: skip
needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_script_is_as_reviewed(name):
    """Rewrite with GERBIL_TUNE_WRITE_GOLDEN=1, and read the difference before it is committed."""
    command, resources = SCRIPTS[name]
    script = render_sbatch(command, resources, program=PROGRAM)
    path = GOLDEN / f"{name}.sh"
    if os.environ.get("GERBIL_TUNE_WRITE_GOLDEN"):
        path.write_text(script)
    assert path.is_file(), f"{path} is missing; write it with GERBIL_TUNE_WRITE_GOLDEN=1"
    assert script == path.read_text()


def test_no_golden_script_is_left_over():
    assert {path.stem for path in GOLDEN.glob("*.sh")} == set(SCRIPTS)


@needs_bash
@pytest.mark.parametrize("name", SCRIPTS)
def test_bash_accepts_the_script(name):
    command, resources = SCRIPTS[name]
    script = render_sbatch(command, resources, program=PROGRAM)
    done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", SCRIPTS)
def test_all_options_come_before_the_first_command(name):
    command, resources = SCRIPTS[name]
    lines = render_sbatch(command, resources, program=PROGRAM).splitlines()
    header = [number for number, line in enumerate(lines) if line.startswith("#SBATCH --")]
    assert lines[0] == "#!/usr/bin/env bash"
    assert header == list(range(1, len(header) + 1))


# A C string, so no NUL; and surrogates are no text.
arguments = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)


def command_line(script):
    """The text that starts the command, over all its lines."""
    start = script.index(f"{PROGRAM}")
    return script[start : script.index(" &\nchild=$!")]


@given(st.lists(arguments, max_size=5))
def test_any_argument_arrives_as_it_was(command):
    script = render_sbatch(command, SlurmResources(), program=PROGRAM)
    assert shlex.split(command_line(script)) == [PROGRAM, *command]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("time", "1:00\n#SBATCH --exclusive"),
        ("partition", "gpu long"),
        ("memory", "64 G"),
        ("memory", ""),
        ("job_name", "night run"),
        ("partition", "gpu;rm"),
    ],
)
def test_an_option_that_is_no_single_word_is_refused(field, value):
    with pytest.raises(ConfigError) as error:
        SlurmResources(**{field: value})
    assert str(error.value) == (
        f"the SLURM option {field} is {value!r}; valid: letters, digits and _.,:+%@/=- without spaces"
    )


@pytest.mark.parametrize("time", ["24:00:00", "7-00:00:00", "90"])
def test_the_forms_of_a_time_limit_pass(time):
    assert f"#SBATCH --time={time}\n" in render_sbatch([], SlurmResources(time), program=PROGRAM)


class Job:
    """The batch script in a real bash, with stand-ins for the program and for scontrol."""

    def __init__(self, folder, program_text):
        self.folder = folder
        self.calls = folder / "scontrol calls"
        bin_dir = folder / "bin"
        bin_dir.mkdir()
        self._write(bin_dir / "scontrol", 'printf "%s\\n" "$*" >> "$CALLS"')
        self._write(bin_dir / "sleep", "exec /bin/sleep 0.02")  # no second for each look
        program = self._write(folder / "a program", program_text)
        script = render_sbatch(["search", "a b", "c'd"], SlurmResources(), program=str(program))
        path = self._write(folder / "job.sh", script)
        environment = {
            **os.environ,
            "PATH": f"{bin_dir}:{os.environ['PATH']}",
            "CALLS": str(self.calls),
            "SLURM_JOB_ID": "4711",
            "READY": str(folder / "ready"),
            "SAVED": str(folder / "saved"),
        }
        self.process = subprocess.Popen(
            ["bash", str(path)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    @staticmethod
    def _write(path, text):
        path.write_text(text if text.startswith("#!") else f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    def wait_for(self, name):
        deadline = time.monotonic() + 20
        while not (self.folder / name).exists():
            assert time.monotonic() < deadline, f"the program has not written {name}"
            assert self.process.poll() is None, "the script has ended"
            time.sleep(0.01)

    def end(self):
        out, error = self.process.communicate(timeout=20)
        requeued = self.calls.read_text().splitlines() if self.calls.exists() else []
        return self.process.returncode, requeued, out, error


@pytest.fixture
def start_job(tmp_path):
    jobs = []

    def start(program_text):
        jobs.append(Job(tmp_path, program_text))
        return jobs[-1]

    yield start
    for job in jobs:
        if job.process.poll() is None:
            os.killpg(job.process.pid, signal.SIGKILL)
            job.process.wait()
        job.process.stdout.close()
        job.process.stderr.close()


# Waits in short steps, as a shell minds a signal only between two commands.
WAIT = 'touch "$READY"; while :; do sleep 0.02; done'


@needs_bash
class TestTheRunningScript:
    def test_a_signal_reaches_the_program_and_75_requeues(self, start_job, tmp_path):
        job = start_job(f"trap '/bin/sleep 0.2; touch \"$SAVED\"; exit 75' TERM\n{WAIT}")
        job.wait_for("ready")
        job.process.send_signal(signal.SIGTERM)
        assert job.end() == (75, ["requeue 4711"], "", "")
        assert (tmp_path / "saved").exists()

    @pytest.mark.parametrize("attempt", range(5))
    def test_a_signal_to_all_processes_at_once_requeues_too(self, start_job, attempt):
        # The program may be gone before the script looks for it.
        job = start_job('trap "exit 75" TERM; /bin/sleep 20 & touch "$READY"; wait')
        job.wait_for("ready")
        os.killpg(job.process.pid, signal.SIGTERM)
        code, requeued, _, _ = job.end()
        assert (code, requeued) == (75, ["requeue 4711"])

    def test_a_second_signal_does_not_cut_the_saving_short(self, start_job, tmp_path):
        save = 'touch "$READY.saving"; /bin/sleep 0.5; touch "$SAVED"; exit 75'
        job = start_job(f"trap 'trap \"\" TERM; {save}' TERM\n{WAIT}")
        job.wait_for("ready")
        job.process.send_signal(signal.SIGTERM)
        job.wait_for("ready.saving")
        job.process.send_signal(signal.SIGTERM)
        code, requeued, _, _ = job.end()
        assert (code, requeued) == (75, ["requeue 4711"])
        assert (tmp_path / "saved").exists()

    @pytest.mark.parametrize("code", [0, 1, 2, 130])
    def test_any_other_end_is_the_end(self, start_job, code):
        job = start_job(f"exit {code}")
        assert job.end() == (code, [], "", "")

    def test_a_finished_program_after_a_signal_is_not_requeued(self, start_job):
        job = start_job(f"trap 'exit 0' TERM\n{WAIT}")
        job.wait_for("ready")
        job.process.send_signal(signal.SIGTERM)
        code, requeued, _, _ = job.end()
        assert (code, requeued) == (0, [])

    def test_75_without_a_signal_requeues(self, start_job):
        job = start_job("exit 75")
        assert job.end() == (75, ["requeue 4711"], "", "")

    def test_a_program_that_dies_of_the_signal_is_not_requeued(self, start_job):
        job = start_job(WAIT)
        job.wait_for("ready")
        job.process.send_signal(signal.SIGTERM)
        code, requeued, _, _ = job.end()
        assert (code, requeued) == (128 + signal.SIGTERM, [])

    def test_the_arguments_arrive(self, start_job):
        job = start_job('printf "<%s>" "$@"')
        assert job.end() == (0, [], "<search><a b><c'd>", "")
