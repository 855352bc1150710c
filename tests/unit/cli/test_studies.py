"""A table of all studies, and pages that follow a search."""

import json
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from optuna.trial import TrialState

from gerbil_tune.cli.report import report
from gerbil_tune.cli.studies import studies
from gerbil_tune.errors import ConfigError
from gerbil_tune.search.storage import study_lock

STARTED = "2026-03-01T20:00:00+00:00"


def write_study(folder: Path, states: list[TrialState], status: str, **attributes: Any) -> Path:
    """A study with one trial in each of these states; the values are 20, 21, ..."""
    folder.mkdir(parents=True)
    url = f"sqlite:///{folder / 'optuna.db'}"
    study = optuna.create_study(storage=url, study_name=folder.name)
    run = {"started": STARTED, "ended": None, "status": status, "cpus": 2.0, "gpus": 0.0}
    known = {"objectives": ["val_error_median_mm"], "runs": [run], "spent_s": 5400.0}
    for name, value in (known | attributes).items():
        study.set_user_attr(name, value)
    for number, state in enumerate(states):
        trial = optuna.trial.create_trial(
            state=state,
            value=20.0 + number if state == TrialState.COMPLETE else None,
            intermediate_values={1: 30.0, 2: 20.0 + number},
            user_attrs={"seconds": 600.0},
        )
        study.add_trial(trial)
    (folder / "study.yaml").write_text(yaml.safe_dump({"name": folder.name, "storage": url}))
    return folder


@pytest.fixture(autouse=True)
def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    complete, pruned, failed = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL
    chosen = {"champion": 0, "champion_uri": "models:/locator/3"}
    folder = tmp_path / "studies"
    write_study(folder / "done", [complete, pruned, failed, complete], "complete", **chosen)
    write_study(folder / "killed", [failed, TrialState.RUNNING], "running")
    broken = folder / "broken"
    broken.mkdir()
    (broken / "optuna.db").write_text("no database at all, but a text of more than a few bytes")
    url = f"sqlite:///{broken / 'optuna.db'}"
    (broken / "study.yaml").write_text(yaml.safe_dump({"name": "broken", "storage": url}))
    return folder


def listed(root: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    studies(root, as_json=True)
    return {row["name"]: row for row in json.loads(capsys.readouterr().out)}


def test_json_has_every_figure(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = listed(root, capsys)
    done = rows["done"]

    assert done["state"] == "complete"
    assert done["trials"] == {"complete": 2, "pruned": 1, "failed": 1}
    assert (done["best"], done["metric"]) == (20.0, "val_error_median_mm")
    assert (done["champion"], done["champion_uri"]) == (0, "models:/locator/3")
    assert (done["searched_s"], done["training_s"], done["epochs"]) == (5400.0, 2400.0, 8)
    assert done["last_change"] >= "2026"
    assert Path(done["folder"]) == root / "done"
    assert (rows["killed"]["state"], rows["killed"]["best"]) == ("interrupted", None)
    assert rows["killed"]["trials"] == {"failed": 1, "interrupted": 1}


def test_a_study_whose_lock_is_held_is_running(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with study_lock(root / "killed"):
        row = listed(root, capsys)["killed"]
    assert row["state"] == "running"
    assert row["trials"] == {"failed": 1, "running": 1}


def test_one_that_cannot_be_read_does_not_hide_the_others(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    studies(root)
    shown = capsys.readouterr()

    assert "unreadable" in shown.out
    assert "complete" in shown.out
    assert "broken cannot be read: the study's storage" in shown.err


def test_a_search_can_write_while_its_studies_are_listed(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Reading waits for a writer, changes nothing, and leaves nothing that a writer would wait for."""
    content = (root / "killed" / "optuna.db").read_bytes()
    writer = sqlite3.connect(
        root / "killed" / "optuna.db", timeout=0, isolation_level=None, check_same_thread=False
    )
    writer.execute("BEGIN EXCLUSIVE")
    release = threading.Timer(0.5, lambda: writer.execute("COMMIT"))
    release.start()
    assert listed(root, capsys)["killed"]["state"] == "interrupted"
    release.join()
    writer.execute("BEGIN EXCLUSIVE")
    writer.execute("COMMIT")
    writer.close()
    assert (root / "killed" / "optuna.db").read_bytes() == content


def test_a_single_study_may_be_named(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert list(listed(root / "done", capsys)) == ["done"]


def test_without_studies_it_says_what_makes_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    studies(tmp_path)
    assert "no study in" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="is no folder; run gerbil-tune studies where"):
        studies(tmp_path / "nowhere")


def test_a_watched_page_follows_until_the_search_ends(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = root / "killed" / "report.html"
    pages = []
    lock = study_lock(root / "killed")
    lock.acquire()

    def sleep(seconds: float) -> None:
        pages.append(page.read_text())
        if len(pages) == 2:
            lock.release()

    monkeypatch.setattr(time, "sleep", sleep)
    report(root / "killed", watch=2.0)

    assert len(pages) == 2
    assert all("location.reload(), 2000)" in text for text in pages)
    assert "location.reload" not in page.read_text()
    assert "no search runs on this study" in capsys.readouterr().out
