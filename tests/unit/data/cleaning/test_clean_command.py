"""``gerbil-tune data clean`` from its command line to its files."""

import json

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from gerbil_tune.cli.app import run
from gerbil_tune.cli.data.clean import clean
from gerbil_tune.data.events import open_events

app = typer.Typer(pretty_exceptions_enable=False)
app.command()(clean)


@pytest.fixture
def invoke(tmp_path, monkeypatch):
    """Run the command in the test's folder; gives exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def invoke(*words, page=False):
        words = [str(word) for word in words] + ([] if page else ["--no-page"])
        code = 0

        def command():
            nonlocal code
            done = CliRunner().invoke(app, words)
            outputs[:] = done.stdout, done.stderr
            code = done.exit_code
            if done.exception is not None and not isinstance(done.exception, SystemExit):
                raise done.exception

        outputs = ["", ""]
        try:
            run(command)
        except SystemExit as stopped:
            code = int(stopped.code)
        return code, *outputs

    return invoke


@pytest.fixture
def data(make_event_file):
    """40 events of which 4 and 11 are silent and 7 is not finite."""
    lengths = [300 + 10 * i for i in range(40)]
    starts = np.cumsum([0, *lengths])
    audio = np.random.default_rng(0).normal(0, 0.01, (starts[-1], 4))
    audio[starts[4] : starts[5]] = audio[starts[11] : starts[12]] = 0
    audio[starts[7]] = np.nan

    def data(name="calls.h5", **options):
        return make_event_file(name, lengths=lengths, audio=audio, **options)

    return data


GOOD = [i for i in range(40) if i not in (4, 7, 11)]


def test_writes_an_index_and_says_what_comes_next(invoke, data, tmp_path):
    code, out, err = invoke(data())
    assert (code, err) == (0, "")
    assert np.load(tmp_path / "cleaned" / "kept.npy").tolist() == GOOD
    assert "kept 37 of 40 events; removed 3 (7.5%)" in out
    silence = next(line for line in out.splitlines() if line.startswith("silence"))
    assert silence.split()[:5] == ["silence", "2", "2", ">=", "-40"]
    assert silence.endswith("dB re the median event")
    assert "skeleton: not applied, for there is one keypoint, nose" in out
    assert out.splitlines()[-1] == (
        f"next: gerbil-tune search SPACE.yaml --data {tmp_path / 'calls.h5'} --events cleaned/kept.npy"
    )
    assert len(max(out.splitlines()[:12], key=len)) <= 100


def test_the_index_starts_from_another_index(invoke, data, tmp_path):
    np.save(tmp_path / "some.npy", [30, 4, 2])
    code, out, _ = invoke(data(), "--events", "some.npy", "--out", "again")
    assert code == 0
    assert np.load(tmp_path / "again" / "kept.npy").tolist() == [30, 2]
    assert "kept 2 of 3 events" in out
    report = json.loads((tmp_path / "again" / "cleaning.json").read_text())
    assert report["data"]["num_events"] == 40


def test_dry_run_writes_nothing(invoke, data, tmp_path):
    path = data()
    code, out, _ = invoke(path, "--dry-run", "--write-hdf5", "new.h5")
    assert code == 0
    assert "kept 37 of 40 events" in out
    assert "nothing was written" in out
    assert list(tmp_path.iterdir()) == [path]


def test_writes_a_cleaned_file_with_all_keypoints(invoke, data, tmp_path):
    names = ("nose", "head", "tail")
    path = data(keypoints=names, locations=np.zeros((40, 3, 2)))
    words = ("--write-hdf5", "new.h5", "--set", "data/keypoints=[tail, nose]")
    code, out, _ = invoke(path, *words)
    assert code == 0
    cleaned, whole = open_events(tmp_path / "new.h5"), open_events(path)
    assert cleaned.keypoints == names
    assert len(cleaned) == len(GOOD)
    for place, i in enumerate(GOOD):
        assert np.array_equal(cleaned.read(place), whole.read(i))
    assert out.splitlines()[-1] == "next: gerbil-tune search SPACE.yaml --data new.h5"


def test_facts_and_filters_by_set_and_config(invoke, data, tmp_path, capsys):
    path = data(sample_rate_hz=None, arena_mm=None)
    (tmp_path / "clean.yaml").write_text("silence: null\ndata:\n  arena_mm: [572, 356]\n")
    assert invoke(path, "--config", "clean.yaml")[0] == 2
    assert "--set data/sample_rate_hz=125000" in message(capsys)
    words = ("--config", "clean.yaml", "--set", "data/sample_rate_hz=125000")
    code, out, _ = invoke(path, *words, "--set", "duration/min_ms=3")
    assert code == 0
    assert "off: silence" in out
    long = [i for i in range(40) if 300 + 10 * i >= 375 and i != 7]
    assert np.load(tmp_path / "cleaned" / "kept.npy").tolist() == long


def test_a_filter_that_removes_much_is_a_warning(invoke, data):
    code, _, err = invoke(data(), "--set", "duration/min_ms=4")
    assert code == 0
    assert "warning: duration removes 50% of the events" in err
    assert "--set duration=null" in err


def message(capsys):
    return capsys.readouterr().err


def test_nothing_left_is_refused(invoke, data, tmp_path, capsys):
    path = data()
    code, *_ = invoke(path, "--set", "duration/min_ms=1000")
    assert code == 2
    text = message(capsys)
    assert "the filters remove all 40 events (duration 40, silence 2, not_finite 1)" in text
    assert "--set duration=null" in text
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--set", "skeleton/transform=log"], ["skeleton cannot be applied", "one keypoint, nose"]),
        (["--set", "loudness=1"], ["loudness is not a known key; valid: not_finite"]),
        (["--out", "calls.h5"], ["--out calls.h5 is a file"]),
        (["--write-hdf5", "calls.h5"], ["--write-hdf5 calls.h5 exists"]),
        (["--write-hdf5", "none/new.h5"], ["--write-hdf5 none/new.h5: folder none does not"]),
        (["--examples", "-1", "3"], ["--examples", "-1 3"]),
        (["--config", "none.yaml"], ["none.yaml cannot be read"]),
        (["--events", "none.npy"], ["none.npy: does not exist"]),
    ],
)
def test_mistakes_are_one_sentence(invoke, data, tmp_path, capsys, words, parts):
    path = data()
    code, *_ = invoke(path, *words)
    assert code == 2
    text = message(capsys)
    assert text.startswith("error: ")
    assert text.count("\n") == 1
    assert all(part in text for part in parts), text
    assert list(tmp_path.iterdir()) == [path]


def test_the_page_shows_what_was_removed_and_why(invoke, data, tmp_path):
    code, out, _ = invoke(data(), "--examples", "5", "10", page=True)
    assert code == 0
    page = (tmp_path / "cleaned" / "spot_check.html").read_text()
    assert "no sound at all" in page
    assert "samples that are NaN or infinite" in page
    assert "spot_check.html: look whether" in out
    # A page of what is no longer so would mislead.
    assert invoke(tmp_path / "calls.h5")[0] == 0
    assert not (tmp_path / "cleaned" / "spot_check.html").exists()


def test_a_merged_split_is_a_warning(invoke, data, tmp_path):
    data("folder/train_set.h5")
    data("folder/val_set.h5", attributes={"note": 1})
    code, _, err = invoke("folder", "--write-hdf5", "new.h5", "--set", "duplicates=null")
    assert code == 0
    assert "new.h5 does not know which file an event came from" in err
