"""Who could reach a search that runs, and where its token is."""

import contextlib
import os
import shutil
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from optuna.trial import TrialState

from tests.faults.harness import stored
from tests.integration.command_line import SPACE, clean_environment, command
from tests.integration.listening import Listener, listeners_of, processes_of

pytestmark = [pytest.mark.ray, pytest.mark.slow]

TIMEOUT_S = 400
DECOY = "c0ffee" * 10
"""A token for another cluster, in the environment of the command."""
MUST_LISTEN = ("gcs_server", "raylet", "DashboardAgent", "RayTrainWorker", "ImplicitFunc")


@dataclass
class Seen:
    """What was seen of a search while it ran; ``folder`` is its own, ``ray_folder`` Ray's."""

    folder: Path
    ray_folder: Path
    token: Path
    driver: int = 0
    listeners: set[Listener] = field(default_factory=set)
    titles: set[str] = field(default_factory=set)
    environments: dict[int, bytes] = field(default_factory=dict)

    def look(self) -> None:
        """Look at all processes once."""
        processes = processes_of(self.driver)
        self.listeners |= listeners_of(processes)
        self.titles |= set(processes.values())
        for pid in processes:
            with contextlib.suppress(OSError):
                self.environments[pid] = Path(f"/proc/{pid}/environ").read_bytes()


@pytest.fixture(scope="module")
def ray_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="gt"))  # sockets need a short path
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory, ray_folder: Path) -> Seen:
    """A search of one trial of two workers, then a refit, looked at from its beginning to its end."""
    from tests.conftest import write_event_file

    folder = tmp_path_factory.mktemp("sockets")
    write_event_file(folder / "calls.h5", num_events=60)
    (folder / "space.yaml").write_text(SPACE)
    seen = Seen(folder, ray_folder, folder / "private" / "token")
    arguments = ("--data", "calls.h5", "--workers-per-trial", "2", "--trials", "1")
    with (folder / "output.txt").open("w") as output:
        process = subprocess.Popen(
            command("search", "space.yaml", *arguments),
            cwd=folder,
            env={
                **clean_environment(),
                "RAY_TMPDIR": str(ray_folder),
                "RAY_AUTH_TOKEN_PATH": str(seen.token),
                "RAY_AUTH_TOKEN": DECOY,
            },
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        seen.driver = process.pid
        deadline = time.monotonic() + TIMEOUT_S
        try:
            while process.poll() is None and time.monotonic() < deadline:
                seen.look()
                time.sleep(0.1)
        finally:
            for pid in processes_of(process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, 9)
            process.wait()
    assert process.returncode == 0, (folder / "output.txt").read_text()
    return seen


def test_the_search_was_a_whole_one(seen: Seen) -> None:
    """Else less would have listened; and no other test has a trial of two workers that comes to its end."""
    (trial,) = stored(seen.folder, "tiny").trials
    assert trial.state is TrialState.COMPLETE
    assert sorted(trial.intermediate_values) == [1, 2, 3, 4]
    assert (seen.folder / "trained_models/gerbil-locator/00001/config.json").is_file()


def test_nothing_listens_beyond_this_machine(seen: Seen) -> None:
    titles = " ".join(listener.title for listener in seen.listeners)
    assert [name for name in MUST_LISTEN if name not in titles] == []
    assert [listener for listener in seen.listeners if not listener.is_private] == []


def test_the_list_would_show_an_open_socket() -> None:
    with socket.socket() as opened, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        opened.bind(("", 0))
        opened.listen()
        datagrams.bind(("", 0))
        found = listeners_of({os.getpid(): "this"})
    ports = {(listener.protocol, listener.port) for listener in found if not listener.is_private}
    assert len(ports) == 2


def test_the_token_is_a_file_that_nobody_else_can_read(seen: Seen) -> None:
    assert stat.S_IMODE(seen.token.stat().st_mode) == 0o600
    assert len(seen.token.read_text()) == 64


def test_the_token_is_in_no_command_line_and_no_environment(seen: Seen) -> None:
    token = seen.token.read_text()
    assert len(seen.titles) > 8
    assert [title for title in seen.titles if token in title or DECOY in title] == []
    others = {pid: told for pid, told in seen.environments.items() if pid != seen.driver}
    assert sum(str(seen.token).encode() in told for told in others.values()) > 3
    leaks = [
        pid for pid, told in others.items() if token.encode() in told or DECOY.encode() in told
    ]
    assert leaks == []


def test_the_token_is_in_no_file(seen: Seen) -> None:
    token = seen.token.read_bytes()
    files = [
        path
        for root in (seen.folder, seen.ray_folder)
        for path in root.rglob("*")
        if path.is_file() and path != seen.token
    ]
    assert any(path.suffix == ".log" for path in files)
    assert [path for path in files if token in path.read_bytes()] == []
    assert [path for path in files if DECOY.encode() in path.read_bytes()] == []


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2"])
def test_ranks_meet_on_the_address_that_is_given(address: str) -> None:
    from gerbil_tune.training import process_group

    place = process_group.serve_store(1, address)
    found = [one for one in listeners_of({os.getpid(): "this"}) if one.port == place[1]]
    assert {one.address.removeprefix("::ffff:") for one in found} == {address}
    process_group._served.clear()
