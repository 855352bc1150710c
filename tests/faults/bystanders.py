"""What runs beside a search: a server of MLflow, other instances of Ray, a small disk, a limit on memory."""

import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.faults.harness import RunningSearch
from tests.integration.command_line import clean_environment

_POLL_S = 0.1
_FILLER = "filler"


class Bystander:
    """A program in a session of its own, in which everything that it starts is found and ended.

    Args:
        log: Where its output goes.
        words: The command line.
        environment: Variables laid over the usual ones.

    Attributes:
        pid: Of the program; also the number of the session.
    """

    def __init__(self, log: Path, *words: str, environment: dict[str, str] | None = None) -> None:
        self.log = log
        with log.open("a") as output:
            self._process = subprocess.Popen(
                [sys.executable, *words],
                env={**clean_environment(), **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid = self._process.pid

    def wait_for(self, condition: Callable[[], Any], what: str, timeout_s: float = 120.0) -> Any:
        """Wait for a condition while the program runs, and return what it returned."""
        deadline = time.monotonic() + timeout_s
        while not (found := condition()):
            ended = self._process.poll() is not None
            assert not ended, f"ended before {what}\n{self.log.read_text()}"
            assert time.monotonic() < deadline, (
                f"no {what} in {timeout_s} s\n{self.log.read_text()}"
            )
            time.sleep(_POLL_S)
        return found

    def processes(self) -> dict[int, str]:
        """Command line by id of all that live in the session."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                state, _, _, session, *_ = (folder / "stat").read_text().rpartition(") ")[2].split()
                title = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:  # it has just ended
                continue
            if int(session) == self.pid and state not in "ZX":
                found[int(folder.name)] = title
        return found

    def kill(self) -> None:
        """Kill -9 all of it."""
        while left := self.processes():
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(_POLL_S)
        self._process.wait()


class MlflowServer:
    """A real server on a local port, which can be killed and started again.

    Attributes:
        uri: Where it listens.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self.uri = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it and wait until it listens."""
        options = {
            "--backend-store-uri": f"sqlite:///{self._folder}/server.db",
            "--artifacts-destination": str(self._folder / "artifacts"),
            "--host": "127.0.0.1",
            "--port": str(self._port),
            "--workers": "1",
        }
        words = [word for option in options.items() for word in option]
        self._server = Bystander(self._folder / "server.log", "-m", "mlflow", "server", *words)
        self._server.wait_for(self._listens, "answer")

    def kill(self) -> None:
        """Kill -9 the server."""
        self._server.kill()

    def _listens(self) -> bool:
        with closing(socket.socket()) as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MlflowServer]:
    """A server of MLflow that runs."""
    server = MlflowServer(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    """A folder in which instances of Ray find each other, and nobody else's; sockets need a short path."""
    folder = Path(tempfile.mkdtemp(prefix="gt"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def ray_head(folder: Path, num_cpus: int = 1) -> Iterator[Bystander]:
    """An instance of Ray that someone has started on this machine with ``ray start --head``."""
    head = Bystander(
        folder / "head.log",
        *("-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"),
        *(f"--port={free_port()}", f"--num-cpus={num_cpus}", f"--dashboard-port={free_port()}"),
        environment={"RAY_TMPDIR": str(folder), "RAY_AUTH_MODE": "token"},
    )
    try:
        head.wait_for((folder / "ray/ray_current_cluster").exists, "address of the instance")
        head.wait_for(lambda: "block forever" in head.log.read_text(), "start of the instance")
        yield head
    finally:
        head.kill()


@dataclass
class TwoNodes:
    """A cluster of two nodes on this machine; ``raylet`` is that of the second."""

    address: str
    raylet: int
    cluster: Bystander

    def num_trials_on_second(self) -> int:
        """Processes of trials on the second node."""
        return sum(
            _parent(pid) == self.raylet and "ImplicitFunc" in title
            for pid, title in self.cluster.processes().items()
        )

    def lose_second(self) -> None:
        """Kill -9 the raylet of the second node."""
        os.kill(self.raylet, signal.SIGKILL)


@contextmanager
def two_nodes(folder: Path) -> Iterator[TwoNodes]:
    """A cluster of two nodes with a CPU each; the driver belongs to the first."""
    log = folder / "cluster.log"
    cluster = Bystander(
        log,
        str(Path(__file__).with_name("two_nodes.py")),
        environment={"RAY_TMPDIR": str(folder), "RAY_AUTH_MODE": "token"},
    )
    try:
        told = cluster.wait_for(
            lambda: [line for line in log.read_text().splitlines() if line.startswith("{")], "nodes"
        )
        facts = json.loads(told[0])
        yield TwoNodes(facts["address"], facts["raylet"], cluster)
    finally:
        cluster.kill()


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[None]:
    """Mount a file system of its own, of this size, at a folder; skips the test without the right to."""
    folder.mkdir(parents=True)
    options = ["-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(["mount", *options], check=False).returncode != 0:
        pytest.skip("only root can mount a small file system")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill_disk(folder: Path) -> None:
    """Write until the folder's file system takes no more."""
    piece = bytes(4096)
    with (folder / _FILLER).open("wb", buffering=0) as file:
        try:
            while file.write(piece):
                pass
        except OSError:
            return


def make_room(folder: Path) -> None:
    """Undo ``fill_disk``."""
    (folder / _FILLER).unlink()


@dataclass
class AddressSpace:
    """Of a process whose training steps come and go, in bytes."""

    least: int
    most: int


def watch_address_space(
    search: RunningSearch, pid: int, is_enough: Callable[[], bool]
) -> AddressSpace:
    """Look at the address space of a process, many times, until there is enough to see."""
    sizes = [address_space(pid)]

    def look() -> bool:
        sizes.append(address_space(pid))
        return is_enough()

    search.wait_for(look, "several epochs")
    return AddressSpace(min(sizes), max(sizes))


def address_space(pid: int) -> int:
    """Bytes of a process's address space."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def limit_address_space(pid: int, num_bytes: int) -> None:
    """Let a process that runs already have no more than this."""
    resource.prlimit(pid, resource.RLIMIT_AS, (num_bytes, num_bytes))


def free_port() -> int:
    """A port on which nobody listens."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1])
    except OSError:
        return 0
