"""What a machine answers, and what is made of it; tests of real clusters are in the integration tests."""

import pytest

from gerbil_tune import __version__
from gerbil_tune.data.events import open_events
from gerbil_tune.errors import LaunchError
from gerbil_tune.training.cluster_nodes import (
    Machine,
    _problem,
    _unseen,
    describe_file,
    files_of,
    make_probe,
)

MACHINE = Machine("0123", "n2 (10.77.0.12)")


@pytest.fixture
def ask(tmp_path):
    """Ask this machine, whose folder has the driver's mark."""
    (tmp_path / "mark").write_text("mark")

    def ask(files=(), *, version=__version__, folder=tmp_path, mark="mark"):
        facts = [describe_file(path) for path in files]
        return lambda: make_probe()("0123", version, facts, str(folder), mark, 0.1)

    return ask


def test_all_is_well(ask, tmp_path, make_event_file):
    files = files_of(open_events(make_event_file()))
    assert ask(files)() == ("", "", "")
    assert (tmp_path / "mark-0123").read_text() == "mark"
    assert ask(files, folder="")() == ("", "", "")
    assert _problem(MACHINE, ("", "", ""), "") == ""


@pytest.mark.parametrize("change", ["shorter", "another", "gone"])
def test_a_file_that_is_not_the_same(ask, make_event_file, change):
    path = make_event_file()
    question = ask([path])
    content = path.read_bytes()
    if change == "gone":
        path.unlink()
    else:
        path.write_bytes(content[:-1] if change == "shorter" else b"?" + content[1:])
    kind, what, how = question()
    assert (kind, what) == ("file", str(path))
    assert how == ("No such file or directory" if change == "gone" else "another file is there")
    said = _problem(MACHINE, (kind, what, how), "")
    assert said.startswith(f"the machine n2 (10.77.0.12) cannot read {path} ({how}); put the data")


def test_another_version(ask):
    said = _problem(MACHINE, ask(version="9.9")(), "")
    assert f"has gerbil_tune {__version__}, but here it is" in said


def test_a_folder_without_the_mark(ask, tmp_path):
    assert ask(mark="other")()[:2] == ("folder", str(tmp_path))
    assert ask(folder=tmp_path / "missing")()[2] == "No such file or directory"


def test_a_mark_that_does_not_arrive(tmp_path, monkeypatch):
    from gerbil_tune.training import cluster_nodes

    other = Machine("4567", "n3 (10.77.0.13)")
    monkeypatch.setattr(cluster_nodes, "_SHARED_S", 0.0)
    monkeypatch.setattr(cluster_nodes, "find_machines", lambda: [MACHINE, other])
    (tmp_path / "mark-0123").touch()
    (said,) = _unseen([MACHINE, other], tmp_path, "mark")
    assert said.startswith("the machine n3 (10.77.0.13) cannot write into")
    assert "run the command in a folder that all machines share" in said


def test_sounds_and_unpacked_copies_count(tmp_path, make_event_file):
    path = make_event_file(audio_options={"chunks": True, "compression": "gzip"})
    sounds = tmp_path / "sounds"
    sounds.mkdir()
    (sounds / "a.wav").touch()
    files = files_of(open_events(path), None, source_folder=str(sounds))
    assert files[0] == path
    assert files[-1] == sounds / "a.wav"
    assert len(files) == 3


def test_a_file_that_has_gone_here(tmp_path):
    with pytest.raises(LaunchError, match="cannot be read any more"):
        describe_file(tmp_path / "gone.h5")
