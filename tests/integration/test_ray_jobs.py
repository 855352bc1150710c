"""A standing Ray cluster with a token, as ``ray start`` makes it, and jobs that are submitted to it."""

import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.faults.harness import final_state, make_site, place, read_history, trial_dir
from tests.integration.command_line import clean_environment, command

pytestmark = [pytest.mark.ray, pytest.mark.slow]

RAY = Path(sys.executable).with_name("ray")
EPOCHS = 120
"""Of a trial that is stopped by a command, which takes seconds to start."""
_READY_S = 90.0


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def descendants(pid: int) -> list[int]:
    """All processes below one, itself last, so that no parent sees a child end and starts another."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(") ")[2].split()[1])
        except OSError:  # it has just ended
            continue
        children.setdefault(parent, []).append(int(folder.name))
    found, todo = [], [pid]
    while todo:
        found.append(todo.pop())
        todo += children.get(found[-1], [])
    return found[::-1]


class Cluster:
    """One machine's ``ray start --head`` on the loopback; use it in a ``with`` statement.

    Attributes:
        folder: Where it was started; its jobs may not write here.
        address: URL of its dashboard.
        token: What it asks for.
        token_file: Holds the token.
        temp_dir: Where Ray keeps its logs.
        pid: Of ``ray start``, once it runs; all else of the cluster descends from it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.token = secrets.token_hex(32)
        self.token_file = folder / "token"
        self.token_file.touch(0o600)
        self.token_file.write_text(self.token)
        self._dashboard_port = free_port()
        self.address = f"http://127.0.0.1:{self._dashboard_port}"
        # The path of a socket has at most 107 characters.
        self._temp = tempfile.TemporaryDirectory(
            prefix="rj-", dir="/tmp", ignore_cleanup_errors=True
        )
        self.temp_dir = Path(self._temp.name)

    def environment(self) -> dict[str, str]:
        """Of all that belong to the cluster."""
        return {
            **clean_environment(),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token_file),
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # listens on the loopback only
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        }

    def __enter__(self) -> "Cluster":
        log = self.folder / "ray-start.txt"
        with log.open("w") as output:
            self._process = subprocess.Popen(
                [
                    *(str(RAY), "start", "--head", "--block", "--disable-usage-stats"),
                    *("--num-cpus=2", f"--object-store-memory={80 * 1024**2}"),
                    *(f"--port={free_port()}", f"--ray-client-server-port={free_port()}"),
                    *(f"--dashboard-port={self._dashboard_port}", "--dashboard-host=127.0.0.1"),
                    *("--dashboard-agent-listen-port=0", "--min-worker-port=0"),
                    *("--max-worker-port=0", f"--temp-dir={self.temp_dir}"),
                ],
                env=self.environment(),
                cwd=self.folder,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid = self._process.pid
        deadline = time.monotonic() + _READY_S
        while self.ask("--follow", "nobody").stderr.count("has no job nobody") == 0:
            assert self._process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(1)
        return self

    def __exit__(self, *error: object) -> None:
        """Kill what was started here, and nothing else."""
        for pid in descendants(self._process.pid):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._process.wait()
        self._temp.cleanup()

    def ask(
        self, *arguments: str, folder: Path | None = None, token_file: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run ``gerbil-tune submit ray`` to its end."""
        return subprocess.run(
            command("submit", "ray", "--address", self.address, *arguments),
            cwd=folder or self.folder,
            env={**clean_environment(), "RAY_AUTH_TOKEN_PATH": str(token_file or self.token_file)},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def submit(self, folder: Path, *arguments: str) -> str:
        """Submit without waiting; return the job's id."""
        done = self.ask("--no-wait", *arguments, folder=folder)
        assert done.returncode == 0, done.stderr
        (job_id,) = re.findall(r"^submitted job (\S+) to ", done.stderr, re.M)
        return str(job_id)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data and a space, in a folder that a shell would like quoted."""
    return make_site(tmp_path_factory.mktemp("a lab's 'ö' $HOME"))


@dataclass(frozen=True)
class Searched:
    """A search as a job that was stopped in its trial, and ended by the same command as another job.

    Attributes:
        first: Id of the first job.
        stopped: What ``--stop`` said.
        paused: Epochs and steps of the trial then.
        followed: What ``--follow`` of the stopped job said.
        done: The second job.
    """

    first: str
    stopped: subprocess.CompletedProcess[str]
    paused: tuple[int, int]
    followed: subprocess.CompletedProcess[str]
    done: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def searched(cluster: Cluster, site: Path) -> Searched:
    arguments = ("search", "space.yaml", "--data", "data", "--trials", "1", "--max-concurrent", "1")
    arguments += ("--set", f"training/epochs={EPOCHS}", "--set", "study/refit_epochs=2")
    first = cluster.submit(site, "--", *arguments)
    run_dir = trial_dir(site, "faults", 0)
    wait_for(lambda: place(run_dir)[0] >= 3, "epoch 3")
    stopped = cluster.ask("--stop", first)
    paused = place(run_dir)
    followed = cluster.ask("--follow", first)
    return Searched(first, stopped, paused, followed, cluster.ask("--", *arguments, folder=site))


def wait_for(condition: Callable[[], object], what: str, timeout_s: float = 120.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"no {what} in {timeout_s} s"
        time.sleep(0.05)


def test_a_search_runs_as_a_job(searched: Searched, site: Path) -> None:
    assert searched.done.returncode == 0, searched.done.stdout + searched.done.stderr
    assert "models:/gerbil-locator@champion" in searched.done.stdout
    assert [trial.state for trial in final_state(site, "faults").trials] == ["COMPLETE"]
    assert (site / "trained_models/gerbil-locator/00001/config.json").is_file()


def test_a_job_saves_when_it_is_stopped_and_the_same_command_goes_on(
    searched: Searched, site: Path
) -> None:
    assert searched.stopped.returncode == 0, searched.stopped.stderr
    assert searched.stopped.stdout == f"job {searched.first}: stopped\n"
    assert 3 <= searched.paused[0] < EPOCHS
    assert searched.followed.returncode == 75
    assert "the same command goes on" in searched.followed.stderr
    epochs = [int(row["epoch"]) for row in read_history(trial_dir(site, "faults", 0))]
    assert epochs == list(range(1, EPOCHS + 1))


@pytest.mark.usefixtures("searched")
def test_its_champion_predicts_as_a_job(cluster: Cluster, site: Path) -> None:
    arguments = ("--model", "models:/gerbil-locator@champion", "--data", "data/val_set.h5")
    done = cluster.ask(
        *("--", "predict", *arguments, "-o", "out.h5", "--workers", "2"), folder=site
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with h5py.File(site / "out.h5") as file:
        assert file["predictions"].shape == (32, 2)
        assert np.isfinite(file["predictions"][:]).all()


def test_the_exit_code_of_the_command_is_that_of_the_submission(
    cluster: Cluster, site: Path
) -> None:
    done = cluster.ask("--", "search", "no such space.yaml", "--data", "data", folder=site)
    assert done.returncode == 2
    assert "no such space.yaml" in done.stdout


def test_ctrl_c_leaves_the_job_running(cluster: Cluster, site: Path) -> None:
    waiting = subprocess.Popen(
        command(
            *("submit", "ray", "--address", cluster.address),
            *("--", "data", "check", "data/train_set.h5"),
        ),
        cwd=site,
        env={**clean_environment(), "RAY_AUTH_TOKEN_PATH": str(cluster.token_file)},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert waiting.stderr is not None
    with waiting:
        line = waiting.stderr.readline()
        waiting.send_signal(signal.SIGINT)
        told = waiting.stderr.read()
    (job_id,) = re.findall(r"submitted job (\S+) to ", line)
    assert waiting.returncode == 130
    assert f"job {job_id} goes on" in told
    assert f"--address {cluster.address} --follow {job_id}" in told
    followed = cluster.ask("--follow", job_id)
    assert followed.returncode == 0, followed.stderr
    assert "train_set.h5" in followed.stdout


@pytest.mark.parametrize(
    ("token", "said"),
    [("0" * 64, "refuses the token that was sent (HTTP 403)"), ("", "asks for a token (HTTP 401)")],
)
def test_without_the_token_nothing_is_submitted(
    cluster: Cluster, tmp_path: Path, token: str, said: str
) -> None:
    environment = {**clean_environment(), "HOME": str(tmp_path), "RAY_AUTH_TOKEN": token}
    environment.pop("RAY_AUTH_TOKEN_PATH", None)
    done = subprocess.run(
        command("submit", "ray", "--address", cluster.address, "--", "models"),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_plain_ray_job_submit_runs_the_same_command(cluster: Cluster, site: Path) -> None:
    program = str(Path(sys.executable).with_name("gerbil-tune"))
    environment = {"env_vars": {"GERBIL_TUNE_HOME": str(site)}}
    arguments = ("search", "space.yaml", "--data", "data", "--name", "plain", "--trials", "1")
    arguments += ("--max-concurrent", "1", "--set", "training/epochs=2")
    upload = cluster.folder / "code"
    upload.mkdir()
    (upload / "notes.txt").write_text("a working directory that Ray copies")
    done = subprocess.run(
        [
            *(str(RAY), "job", "submit", "--address", cluster.address, "--working-dir", "."),
            *("--runtime-env-json", json.dumps(environment)),
            *("--", program, *arguments, "--set", "study/refit_epochs=1"),
        ],
        cwd=upload,
        env=cluster.environment(),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert [trial.state for trial in final_state(site, "plain").trials] == ["COMPLETE"]


def test_the_token_is_in_no_log_and_no_command_line(
    cluster: Cluster, searched: Searched, site: Path
) -> None:
    assert searched.done.returncode == 0
    token = cluster.token.encode()
    files = [
        path
        for root in (cluster.folder, cluster.temp_dir, site)
        for path in root.rglob("*")
        if path.is_file() and path != cluster.token_file
    ]
    assert len(files) > 50
    assert [path for path in files if token in path.read_bytes()] == []
    for pid in descendants(cluster.pid):
        try:
            assert token not in Path(f"/proc/{pid}/cmdline").read_bytes()
        except FileNotFoundError:  # it has just ended
            continue
