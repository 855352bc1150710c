"""The MLflow server of ``cluster/``, with a real PostgreSQL; a study's own storage in PostgreSQL."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import pytest

from gerbil_tune.config.space import load_space
from gerbil_tune.search.storage import open_study, stored_study, write_study_file
from gerbil_tune.tracking.store import connect, known_warnings_ignored
from tests.conftest import write_event_file
from tests.faults import harness
from tests.faults.bystanders import free_port
from tests.faults.harness import RunningSearch, search_arguments, trial_dir
from tests.integration.listening import Listener, listeners_of, processes_of
from tests.integration.servers import (
    SCRIPT,
    SCRIPTS,
    TIMEOUT_S,
    Postgres,
    Server,
    run_script,
    why_not,
    write_settings,
)

EPOCHS = 40
SPACE = harness.SPACE.replace("refit_epochs: 6", "refit_epochs: 2")
"""Two trials of so many epochs."""


@dataclass
class Lab:
    """A study that was searched with the server and with a storage in PostgreSQL.

    Attributes:
        folder: Where the search ran.
        ray_folder: Ray's files.
        server: It still runs.
        postgres: It too.
        environment: Of the search.
        output: What the search has printed.
        listeners: Sockets of the server.
        titles: Command lines of the server and of the search.
    """

    folder: Path
    ray_folder: Path
    server: Server
    postgres: Postgres
    environment: dict[str, str]
    output: str = ""
    listeners: set[Listener] = field(default_factory=set)
    titles: list[str] = field(default_factory=list)

    def look(self, search: RunningSearch) -> None:
        """Look at all processes once."""
        processes = processes_of(self.server.pid)
        self.listeners |= listeners_of(processes)
        self.titles += [*processes.values(), *(process.title for process in search.processes())]

    def run(self, *arguments: str) -> str:
        """Run ``gerbil-tune`` to its end; return what it printed."""
        with RunningSearch(self.folder, *arguments, environment=self.environment) as command:
            return command.finish()


GOES_ON = "the study goes on, and its record is kept"


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """Skips where there is none; REQUIRE_POSTGRES=1 makes that a failure, lest CI takes it for a pass."""
    reason = why_not()
    if reason and os.environ.get("REQUIRE_POSTGRES") == "1":
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)
    running = Postgres("mlflow", "optuna")
    try:
        running.start()
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def server(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"), postgres.url("mlflow"))
    try:
        server.start()
        yield server
        assert server.stop() == 0, (server.folder / "server.log").read_text()
    finally:
        server.kill()


@pytest.fixture(scope="module")
def ray_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="gt"))  # sockets need a short path
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def lab(
    postgres: Postgres, server: Server, ray_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Lab:
    """A search whose server is killed in the first trial, and back once that was noticed."""
    folder = tmp_path_factory.mktemp("lab")
    for name, events, seed in harness.EVENTS:
        write_event_file(folder / "data" / f"{name}.h5", num_events=events, seed=seed)
    environment = {
        "MLFLOW_TRACKING_URI": server.uri,
        "GERBIL_TUNE_STORAGE": postgres.url("optuna", driver="+psycopg2"),
        "RAY_TMPDIR": str(ray_folder),
        "XDG_CACHE_HOME": str(folder / "cache"),
    }
    lab = Lab(folder, ray_folder, server, postgres, environment)
    (folder / "space.yaml").write_text(SPACE)
    arguments = search_arguments("lab")
    with RunningSearch(folder, *arguments, environment=environment) as search:
        search.wait_for_epoch(trial_dir(folder, "lab", 0), 5)
        lab.look(search)
        server.kill()
        search.wait_for(lambda: GOES_ON in search.output(), "word of the server's loss")
        server.start()
        lab.look(search)
        lab.output = search.finish()
    return lab


@pytest.fixture
def database(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets what reads studies read them from PostgreSQL."""
    monkeypatch.setenv("GERBIL_TUNE_STORAGE", lab.environment["GERBIL_TUNE_STORAGE"])
    monkeypatch.setattr(
        harness, "stored", lambda folder, name: stored_study(folder / "studies" / name)
    )


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("database")
def test_a_server_that_is_killed_lacks_nothing_in_the_end(lab: Lab) -> None:
    assert GOES_ON in lab.output
    assert "did not take all of the record" not in lab.output
    state = harness.final_state(lab.folder, "lab", lab.server.uri)
    harness.assert_consistent(state)
    assert [trial.state for trial in state.trials] == ["COMPLETE"] * 2
    assert [runs[0].last_epoch for runs in state.runs.values()] == [EPOCHS] * 2
    with known_warnings_ignored():
        client = connect(lab.server.uri)
        (parent,) = state.parents
        artifacts = {file.path for file in client.list_artifacts(parent.run_id)}
        version = client.get_model_version_by_alias("gerbil-locator", "champion")
    assert {"report.html", "figures"} <= artifacts
    assert version.run_id == parent.run_id
    assert list(lab.server.artifacts.rglob("report.html"))
    assert not list(lab.folder.glob("ml*"))


@pytest.mark.ray
@pytest.mark.slow
def test_the_registered_model_comes_from_the_server(lab: Lab) -> None:
    reference = "models:/gerbil-locator@champion"
    lab.run("predict", "--model", reference, "--data", "data/val_set.h5", "-o", "out.h5")
    with h5py.File(lab.folder / "out.h5") as file:
        assert file["predictions"].shape == (32, 2)
        assert file.attrs["model_uri"] == "models:/gerbil-locator/1"
    assert list((lab.folder / "cache").rglob("best_weights.safetensors"))


@pytest.mark.ray
@pytest.mark.slow
def test_no_password_is_in_a_file_or_on_a_command_line(lab: Lab) -> None:
    passwords = [secret.encode() for secret in lab.postgres.secrets.values()]
    texts = {title: title.encode() for title in lab.titles}
    texts |= {name: lab.postgres.dump(name) for name in lab.postgres.secrets}
    for folder in (lab.folder, lab.ray_folder, lab.server.folder):
        files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
        texts |= {str(path): path.read_bytes() for path in files if path != lab.server.settings}
    assert any("mlflow server" in name for name in texts)
    assert any("raylet" in name for name in texts)
    assert str(lab.folder / "studies/lab/study.yaml") in texts
    found = [name for name, text in texts.items() if any(word in text for word in passwords)]
    assert found == []


@pytest.mark.ray
@pytest.mark.slow
def test_the_server_keeps_to_itself(lab: Lab) -> None:
    assert {(found.address, found.port) for found in lab.listeners} == {
        ("127.0.0.1", lab.server.port)
    }
    assert lab.server.status("/", host=f"localhost:{lab.server.port}") == 200
    assert lab.server.status("/", host="elsewhere.example.org") == 403
    assert {path.name for path in lab.server.folder.iterdir()} == {
        *("settings.env", "server.log", "artifacts of all")
    }
    others = [path for path in lab.server.artifacts.rglob("*") if path.stat().st_mode & 0o077]
    assert others == []


@pytest.mark.ray
@pytest.mark.slow
def test_a_study_in_postgresql_is_read_with_its_password_alone(lab: Lab) -> None:
    assert '"state": "complete"' in lab.run("studies", "--json")
    lab.run("report", "studies/lab")
    secret = lab.environment.pop("GERBIL_TUNE_STORAGE")
    try:
        with RunningSearch(
            lab.folder, "report", "studies/lab", environment=lab.environment
        ) as command:
            printed = command.finish(code=2)
    finally:
        lab.environment["GERBIL_TUNE_STORAGE"] = secret
    assert "set GERBIL_TUNE_STORAGE to the URL with its password" in " ".join(printed.split())


@pytest.mark.slow
def test_a_study_in_postgresql_finds_its_password_in_a_private_file(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    password = postgres.password("optuna").replace(":", "\\:")
    (tmp_path / "pgpass").touch(0o600)
    (tmp_path / "pgpass").write_text(f"127.0.0.1:*:optuna:optuna:{password}\n")
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "pgpass"))
    (tmp_path / "space.yaml").write_text(harness.SPACE)
    space = load_space(tmp_path / "space.yaml")
    url = f"postgresql+psycopg2://optuna@127.0.0.1:{postgres.port}/optuna"
    study = open_study(url, "by file", space)
    study.tell(study.ask(), 1.0)
    write_study_file(tmp_path, "by file", url, space)
    assert stored_study(tmp_path).best_value == 1.0


# The script by itself


@pytest.mark.slow
def test_the_script_says_what_it_would_start(postgres: Postgres, tmp_path: Path) -> None:
    settings = {"artifacts_destination": tmp_path / "artifacts", "port": 5001, "workers": 3}
    path = write_settings(tmp_path / "s", backend_store_uri=postgres.url("mlflow"), **settings)
    done = run_script(path, "--check")
    assert done.returncode == 0, done.stderr
    assert (
        f"postgresql+psycopg2://mlflow:***@127.0.0.1:{postgres.port}/mlflow, PostgreSQL"
        in done.stdout
    )
    assert f"artifacts: {tmp_path}/artifacts\nlistens: 127.0.0.1 port 5001" in done.stdout
    assert "workers: 3" in done.stdout
    assert postgres.secrets["mlflow"] not in done.stdout

    wrong = postgres.url("mlflow", password="guessed")
    done = run_script(write_settings(path, backend_store_uri=wrong, **settings))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "password authentication failed" in done.stderr
    assert "guessed" not in done.stderr

    away = f"postgresql://mlflow:hidden@127.0.0.1:{free_port()}/mlflow"
    done = run_script(write_settings(path, backend_store_uri=away, **settings))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "cannot be used: connection to server" in done.stderr
    assert "hidden" not in done.stderr


@pytest.mark.slow
def test_the_tables_are_upgraded_without_a_password_on_the_command_line(server: Server) -> None:
    done = run_script(server.settings, "--upgrade")
    assert done.returncode == 0, done.stderr


GOOD: dict[str, object] = {
    "backend_store_uri": "postgresql://mlflow:hidden@127.0.0.1/mlflow",
    "artifacts_destination": "/nonexistent/artifacts",
}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"mode": 0o644}, "can be read by others (mode 644)"),
        ({"mode": 0o620}, "can be read by others (mode 620)"),
        ({"backend_store_uri": ""}, "MLFLOW_BACKEND_STORE_URI must be of the form postgresql://"),
        ({"backend_store_uri": "sqlite:///hidden.db"}, "must be of the form postgresql://"),
        ({"backend_store_url": "hidden"}, "line 5: there is no setting MLFLOW_BACKEND_STORE_URL"),
        ({"x\nhidden": ""}, "line 5, is not of the form NAME=VALUE"),
        (
            {"artifacts_destination": "artifacts"},
            "is 'artifacts', but must be a folder's full path",
        ),
        ({"artifacts_destination": "/proc/x y"}, "cannot write into MLFLOW_ARTIFACTS_DESTINATION"),
        ({"port": "65536"}, "MLFLOW_PORT is '65536', but must be a whole number from 1 to 65535"),
        ({"workers": "$(touch x)"}, "MLFLOW_WORKERS is '$(touch x)', but must be a whole number"),
        ({"host": "0.0.0.0"}, "list by what names in MLFLOW_SERVER_ALLOWED_HOSTS"),
    ],
)
def test_bad_settings_are_refused_in_a_sentence(
    tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    path = write_settings(tmp_path / "my settings", **{**GOOD, **settings})
    done = run_script(path)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert str(path) in done.stderr
    assert "hidden" not in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["my settings"]


@pytest.mark.parametrize(
    "url", ["postgresql://mlflow:hid@den@host/mlflow", "postgresql://mlflow:x@host:hidden/mlflow"]
)
def test_a_password_that_breaks_the_url_is_not_shown(tmp_path: Path, url: str) -> None:
    settings = {"backend_store_uri": url, "artifacts_destination": tmp_path / "artifacts"}
    done = run_script(write_settings(tmp_path / "settings", **settings), "--check")
    assert done.returncode == 1
    assert "cannot be read; write the characters @ : / % of a password as" in done.stderr
    assert "den" not in done.stderr


def test_settings_that_are_not_there_and_options_that_are_none(tmp_path: Path) -> None:
    assert "copy mlflow-server.env.example there" in run_script(tmp_path / "none").stderr
    done = run_script(tmp_path / "none", "--backend-store-uri")
    assert done.returncode == 2
    assert "'--backend-store-uri' is no option" in done.stderr


def test_the_example_holds_every_setting() -> None:
    example = (SCRIPTS / "mlflow-server.env.example").read_text()
    names = SCRIPT.read_text().partition("SETTINGS=(")[2].partition(")")[0].split()
    assert [name for name in names if f"{name}=" not in example] == []


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd")
def test_the_unit_is_one(tmp_path: Path) -> None:
    unit = (SCRIPTS / "mlflow.service").read_text()
    assert "User=mlflow\n" in unit
    path = tmp_path / "mlflow.service"
    path.write_text(unit.replace("User=mlflow\n", "User=daemon\n"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", path],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
