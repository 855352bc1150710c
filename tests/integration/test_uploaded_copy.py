"""A plain ``ray job submit --working-dir .``: its driver works in a copy, which vanishes with the job."""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import write_event_file
from tests.faults.bystanders import Bystander, free_port
from tests.integration.command_line import SPACE, clean_environment

pytestmark = [pytest.mark.ray, pytest.mark.slow]

_TOKEN_MODE = {"RAY_AUTH_MODE": "token"}
_START_S = 300.0


@dataclass
class Standing:
    """A cluster that stands ready for jobs."""

    address: str
    environment: dict[str, str]

    def submit(self, folder: Path, variables: dict[str, str], *words: str) -> tuple[int, str]:
        """Submit a job with a copy of a folder; return the exit code and all that was printed."""
        ray = Path(sys.executable).with_name("ray")
        done = subprocess.run(
            [
                *(str(ray), "job", "submit", "--address", self.address, "--working-dir", "."),
                *("--runtime-env-json", json.dumps({"env_vars": variables}), "--"),
                *(sys.executable, "-m", "gerbil_tune", *words),
            ],
            cwd=folder,
            env={**clean_environment(), **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=500,
            check=False,
        )
        return done.returncode, done.stdout


@pytest.fixture(scope="module")
def standing() -> Iterator[Standing]:
    folder = Path(tempfile.mkdtemp(prefix="gt"))  # sockets need a short path
    token = folder / "token"
    token.touch(0o600)
    token.write_text("0123456789abcdef" * 4)
    environment = {"RAY_AUTH_TOKEN_PATH": str(token), **_TOKEN_MODE}
    port = free_port()
    head = Bystander(
        folder / "head.log",
        *("-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"),
        *(f"--port={free_port()}", "--num-cpus=2", "--dashboard-agent-listen-port=0"),
        *("--dashboard-host=127.0.0.1", f"--dashboard-port={port}"),
        *(f"--ray-client-server-port={free_port()}", f"--temp-dir={folder}/ray"),
        environment={**environment, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"},
    )
    try:
        log = head.log
        head.wait_for(lambda: "block forever" in log.read_text(), "start of the head", _START_S)
        yield Standing(f"http://127.0.0.1:{port}", environment)
    finally:
        head.kill()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def laptop(tmp_path: Path) -> Path:
    """A folder that is sent along, without the data."""
    folder = tmp_path / "laptop"
    folder.mkdir()
    (folder / "space.yaml").write_text(SPACE)
    return folder


def test_a_search_in_the_copy_is_refused(standing: Standing, laptop: Path) -> None:
    code, printed = standing.submit(laptop, {}, "search", "space.yaml", "--data", "calls.h5")
    assert code != 0
    assert "is the copy that a Ray job was submitted with" in printed
    assert "GERBIL_TUNE_HOME=/shared/folder" in printed
    assert "Traceback" not in printed


@pytest.mark.exhaustive
def test_a_search_with_a_home_leaves_its_results_there(
    standing: Standing, laptop: Path, tmp_path: Path
) -> None:
    shared = tmp_path / "shared"
    write_event_file(shared / "calls.h5", num_events=60)
    (laptop / "space.yaml").rename(shared / "space.yaml")
    (laptop / "note.txt").write_text("something must be sent along")
    # A job may also set what the program sets for its workers.
    variables = {"GERBIL_TUNE_HOME": str(shared), **_TOKEN_MODE}
    code, printed = standing.submit(
        laptop, variables, "search", "space.yaml", "--data", "calls.h5", "--trials", "1"
    )
    assert code == 0, printed
    left = {path.name for path in shared.iterdir()}
    assert {"studies", "trained_models", "mlflow.db"} <= left
    assert (shared / "studies" / "tiny" / "report.html").is_file()
    assert [path.name for path in laptop.iterdir()] == ["note.txt"]
