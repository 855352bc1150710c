"""Storages that are away, closed or broken, and what is said of them."""

import sqlite3
from pathlib import Path

import optuna
import pytest
import yaml

from gerbil_tune.config.space import SpaceFile
from gerbil_tune.errors import ConfigError
from gerbil_tune.search.storage import (
    STORAGE_VARIABLE,
    open_study,
    storage_url,
    stored_study,
    write_study_file,
)
from gerbil_tune.search.studies import summarize_studies

SPACE = SpaceFile.model_validate(
    {"name": "s", "parameters": {"training/epochs": {"type": "int", "low": 1, "high": 9}}}
)
DATABASE = "postgresql+nodriver://lab:geheim@127.0.0.1:1/studies"


def keep_study(folder: Path) -> Path:
    folder.mkdir(parents=True)
    study = open_study(storage_url(folder), folder.name, SPACE)
    study.add_trial(optuna.trial.create_trial(value=1.0))
    write_study_file(folder, folder.name, storage_url(folder), SPACE)
    return folder


def keep_elsewhere(folder: Path, url: str) -> Path:
    folder.mkdir(parents=True)
    write_study_file(folder, folder.name, url, SPACE)
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(ConfigError) as told:
        stored_study(folder)
    return str(told.value)


def test_a_file_that_was_moved_away_is_not_made_anew(tmp_path: Path) -> None:
    folder = keep_study(tmp_path / "s")
    (folder / "optuna.db").rename(tmp_path / "moved.db")
    said = refusal(folder)
    assert said.startswith(
        f"{folder}/study.yaml: the study's storage {folder}/optuna.db is not there"
    )
    assert not (folder / "optuna.db").exists()
    (tmp_path / "moved.db").rename(folder / "optuna.db")
    assert len(stored_study(folder).trials) == 1


def test_a_storage_without_the_study_names_the_study(tmp_path: Path) -> None:
    folder = keep_study(tmp_path / "s")
    write_study_file(folder, "another", storage_url(folder), SPACE)
    assert f"no study 'another' is stored in sqlite:///{folder}/optuna.db" in refusal(folder)


@pytest.mark.parametrize("content", [{"name": "s"}, {"storage": "sqlite:///s.db"}])
def test_a_file_that_is_no_study_file_is_refused(tmp_path: Path, content: dict[str, str]) -> None:
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(content))
    missing = ({"name", "storage"} - set(content)).pop()
    assert f"study.yaml: {missing} is missing" in refusal(tmp_path)


@pytest.mark.parametrize("url", [DATABASE, "nonsense", "redis://127.0.0.1:1/0"])
def test_a_storage_that_cannot_be_reached_is_a_sentence(tmp_path: Path, url: str) -> None:
    said = refusal(keep_elsewhere(tmp_path / "s", url))
    assert said.startswith("the study's storage ")
    assert "cannot be opened: " in said
    assert "geheim" not in said
    assert "\n" not in said


def test_where_the_password_is_missing_it_says_how_to_give_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = keep_elsewhere(tmp_path / "s", DATABASE)
    hint = f"; set {STORAGE_VARIABLE} to the URL with its password"
    assert refusal(folder).endswith(hint)
    monkeypatch.setenv(STORAGE_VARIABLE, DATABASE)
    said = refusal(folder)
    assert hint not in said
    assert "geheim" not in said


def test_what_cannot_be_read_does_not_hide_the_other_studies(tmp_path: Path) -> None:
    keep_study(tmp_path / "good")
    keep_elsewhere(tmp_path / "away", DATABASE)
    (keep_study(tmp_path / "moved") / "optuna.db").unlink()
    with sqlite3.connect(keep_study(tmp_path / "damaged") / "optuna.db") as connection:
        connection.execute("ALTER TABLE trials RENAME COLUMN state TO stat")
    connection.close()
    found = {summary.name: summary for summary in summarize_studies(tmp_path)}
    assert found["good"].trials == {"complete": 1}
    unreadable = {name: found[name].state for name in ("away", "moved", "damaged")}
    assert set(unreadable.values()) == {"unreadable"}
    assert "no such column: trials.state" in found["damaged"].problem
    assert "is not there" in found["moved"].problem
