"""Where a command works."""

from pathlib import Path

import pytest

from gerbil_tune.cli.working_folder import HOME_VARIABLE, enter_working_folder, is_uploaded_copy
from gerbil_tune.errors import ConfigError

COPY = "session_2026/runtime_resources/working_dir_files/_ray_pkg_0123"


@pytest.fixture
def copy(tmp_path, monkeypatch):
    folder = tmp_path / COPY
    folder.mkdir(parents=True)
    monkeypatch.delenv(HOME_VARIABLE, raising=False)
    monkeypatch.chdir(folder)
    return folder


def test_a_copy_is_known_by_its_path():
    assert is_uploaded_copy(Path("/tmp/ray") / COPY)
    assert is_uploaded_copy(Path("/tmp/ray") / COPY / "deeper")
    assert not is_uploaded_copy(Path("/data/working_dir_files/runtime_resources"))
    assert not is_uploaded_copy(Path("/data/lab"))


def test_a_copy_is_refused(copy):
    with pytest.raises(ConfigError, match="is the copy that a Ray job was submitted with") as told:
        enter_working_folder(["search", "space.yaml"])
    assert "gerbil-tune submit ray" in str(told.value)
    assert HOME_VARIABLE in str(told.value)


@pytest.mark.parametrize("words", [["--version"], ["search", "--help"], ["-h"]])
def test_who_only_asks_is_answered_there_too(copy, words):
    enter_working_folder(words)
    assert Path.cwd() == copy


def test_the_home_is_entered(copy, tmp_path, monkeypatch):
    home = tmp_path / "shared lab"
    home.mkdir()
    monkeypatch.setenv(HOME_VARIABLE, str(home))
    enter_working_folder(["search"])
    assert Path.cwd() == home


def test_without_a_home_nothing_changes(tmp_path, monkeypatch):
    monkeypatch.delenv(HOME_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    enter_working_folder(["search"])
    assert Path.cwd() == tmp_path


@pytest.mark.parametrize("kind", ["missing", "file", "copy"])
def test_a_home_that_cannot_be_is_refused(copy, tmp_path, monkeypatch, kind):
    (tmp_path / "file").touch()
    home = copy if kind == "copy" else tmp_path / kind
    monkeypatch.setenv(HOME_VARIABLE, str(home))
    with pytest.raises(ConfigError):
        enter_working_folder(["search"])
