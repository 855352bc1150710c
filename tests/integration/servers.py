"""A PostgreSQL and ``cluster/mlflow-server.sh``, as real servers on this machine."""

import contextlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gerbil_tune.launch
from tests.faults.bystanders import free_port
from tests.integration.command_line import clean_environment

SCRIPTS = Path(gerbil_tune.launch.__file__).parent / "cluster"
SCRIPT = SCRIPTS / "mlflow-server.sh"
TIMEOUT_S = 300


def why_not() -> str:
    """Why no PostgreSQL can run here; empty if it can."""
    if programs() is None:
        return "PostgreSQL is not installed"
    if importlib.util.find_spec("psycopg2") is None:
        return "psycopg2 is not installed"
    if os.geteuid() == 0 and "postgres" not in {user.pw_name for user in pwd.getpwall()}:
        return "PostgreSQL does not run as root, and there is no user postgres"
    return ""


def programs() -> Path | None:
    """Where PostgreSQL's programs are; Debian keeps them off PATH."""
    on_path = shutil.which("initdb")
    found = [Path(on_path).resolve().parent] if on_path else []
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in found if (folder / "pg_dump").exists()), None)


class Postgres:
    """A PostgreSQL on the loopback.

    It has a role for each of its databases, by the same name, with a password of its own.

    Attributes:
        port: Where it listens.
        secrets: By the database, the part of its password that looks the same however it is written.
    """

    def __init__(self, *databases: str) -> None:
        self._programs = programs() or Path()
        self._folder = Path(tempfile.mkdtemp(prefix="gtpg"))  # a socket needs a short path
        self._as: list[str] = []
        if os.geteuid() == 0:
            shutil.chown(self._folder, "postgres", "postgres")
            self._as = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        self.port = free_port()
        self.secrets = {name: secrets.token_hex(16) for name in databases}
        self._process: subprocess.Popen[bytes] | None = None

    def password(self, database: str) -> str:
        """A password that is hard on URLs, shells and configuration files."""
        return f"p%s $s:w@rd/{self.secrets[database]}"

    def url(self, database: str, *, password: str | None = None, driver: str = "") -> str:
        """URL of a database with its password, or with another."""
        written = quote(self.password(database) if password is None else password, safe="")
        return f"postgresql{driver}://{database}:{written}@127.0.0.1:{self.port}/{database}"

    def dump(self, database: str) -> bytes:
        """All that is in a database."""
        return self._run("pg_dump", "-h", str(self._folder), "-U", "admin", "-d", database)

    def start(self) -> None:
        """Make it, start it, and make its databases."""
        data = self._folder / "data"
        options = ["--auth-local=trust", "--auth-host=scram-sha-256", "--username=admin"]
        self._run("initdb", "-D", str(data), *options, "--no-sync", "--encoding=UTF8", "--locale=C")
        listen = ["-h", "127.0.0.1", "-p", str(self.port), "-k", str(self._folder)]
        with (self._folder / "log").open("w") as log:
            self._process = subprocess.Popen(
                [*self._as, self._programs / "postgres", "-D", data, *listen, "-c", "fsync=off"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
            )
        self._make_databases(self._process)

    def stop(self) -> None:
        """End it at once, and remove it."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(TIMEOUT_S)
        shutil.rmtree(self._folder)

    def _make_databases(self, server: "subprocess.Popen[bytes]") -> None:
        import psycopg2

        socket = {"host": str(self._folder), "port": self.port, "user": "admin"}
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            try:
                connection = psycopg2.connect(dbname="postgres", **socket)
                break
            except psycopg2.OperationalError:
                assert server.poll() is None, (self._folder / "log").read_text()
                assert time.monotonic() < deadline, (self._folder / "log").read_text()
                time.sleep(0.1)
        with contextlib.closing(connection):
            connection.autocommit = True  # a database cannot be made in a transaction
            with connection.cursor() as cursor:
                for name in self.secrets:
                    cursor.execute(f"CREATE ROLE {name} LOGIN PASSWORD %s", [self.password(name)])
                    cursor.execute(f"CREATE DATABASE {name} OWNER {name}")

    def _run(self, program: str, *words: str) -> bytes:
        done = subprocess.run(
            [*self._as, self._programs / program, *words],
            capture_output=True,
            env={**os.environ, "PGPORT": str(self.port)},
            cwd="/",
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout


def wait_for(condition: Callable[[], Any], what: str) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, f"no {what} in {TIMEOUT_S} s"
        time.sleep(0.1)


def write_settings(path: Path, *, mode: int = 0o600, **settings: object) -> Path:
    """Write a settings file; names in small letters are those of MLflow."""
    path.touch(mode)
    path.chmod(mode)
    lines = (f"MLFLOW_{name.upper()}={value}\n" for name, value in settings.items())
    path.write_text("# a comment\n\n" + "".join(lines))
    return path


def run_script(settings: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the script to its end."""
    return subprocess.run(
        ["bash", SCRIPT, *arguments],
        env=script_environment(settings),
        cwd=settings.parent,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def script_environment(settings: Path) -> dict[str, str]:
    """As a service has it: without a home; what it says of MLflow must not matter."""
    return {
        **clean_environment(),
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "HOME": "/nonexistent",
        "GERBIL_TUNE_MLFLOW_ENV": str(settings),
        "MLFLOW_REGISTRY_STORE_URI": "sqlite:///elsewhere.db",
        "MLFLOW_HOST": "0.0.0.0",
    }


class Server:
    """``mlflow-server.sh`` as it is started for a lab, in a session of its own.

    Attributes:
        uri: Where it listens.
        port: Likewise.
        folder: Its working directory and its log.
        artifacts: Its folder of artifacts.
        settings: Its settings file.
        pid: Of the server, once it runs.
    """

    def __init__(self, folder: Path, database: str) -> None:
        self.folder = folder
        self.artifacts = folder / "artifacts of all"
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.settings = write_settings(
            folder / "settings.env",
            backend_store_uri=database,
            artifacts_destination=f'"{self.artifacts}"',
            port=self.port,
            workers=1,
        )

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with (self.folder / "server.log").open("a") as log:
            self._process = subprocess.Popen(
                ["bash", SCRIPT],
                env=script_environment(self.settings),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.pid = self._process.pid
        wait_for(
            lambda: self.status("/health") == 200 or self._process.poll() is not None, "answer"
        )
        assert self._process.poll() is None, (self.folder / "server.log").read_text()

    def status(self, path: str, host: str | None = None) -> int:
        """Status of the answer to a request; 0 without one."""
        request = urllib.request.Request(self.uri + path, headers={"Host": host} if host else {})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code
        except OSError:
            return 0

    def kill(self) -> None:
        """Kill -9 all of it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> int:
        """Ask it to end, and return its exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(TIMEOUT_S)
