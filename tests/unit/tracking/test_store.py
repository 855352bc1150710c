import subprocess
import sys
from pathlib import Path

import pytest

from gerbil_tune.errors import ConfigError
from gerbil_tune.tracking.store import (
    absolute_tracking_uri,
    default_artifact_location,
    default_tracking_uri,
)


def test_the_default_store_is_a_database_in_the_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    uri = default_tracking_uri(tmp_path / "a" / "..")
    assert uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert default_artifact_location(uri) == (tmp_path / "mlartifacts").as_uri()


def test_the_environment_chooses_another_store(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.lab:5000")
    assert default_tracking_uri(tmp_path) == "https://mlflow.lab:5000"
    assert default_artifact_location("https://mlflow.lab:5000") is None


def test_a_relative_database_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert absolute_tracking_uri("sqlite:///runs/m.db") == f"sqlite:///{tmp_path}/runs/m.db"


@pytest.mark.parametrize("uri", ["./mlruns", "file:///data/mlruns", "sqlite://", "sqlite:///", ""])
def test_other_kinds_of_store_are_refused(uri):
    with pytest.raises(ConfigError, match="is not supported"):
        absolute_tracking_uri(uri)


@pytest.mark.parametrize("uri", ["postgresql+psycopg2://u:p@h/db", "mysql://h/db", "databricks"])
def test_databases_and_servers_are_taken_as_they_are(uri):
    assert absolute_tracking_uri(uri) == uri


def test_nothing_heavy_is_imported_before_it_is_needed(tmp_path: Path):
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from gerbil_tune.tracking import memory_tracker, mlflow_tracker, model_registry, store\n"
        "store.default_tracking_uri(Path.cwd())\n"
        "mlflow_tracker.MlflowTracker()\n"
        "sys.exit(bool({'mlflow', 'torch', 'ray', 'pandas'} & set(sys.modules)))\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)
