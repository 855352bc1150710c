"""``--events`` on evaluate and predict."""

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from gerbil_tune.cli.app import app
from gerbil_tune.errors import DatasetError
from gerbil_tune.tracking.store import known_warnings_ignored


@pytest.fixture
def site(tmp_path, monkeypatch, make_event_file, make_bundle):
    monkeypatch.chdir(tmp_path)
    make_event_file("calls.h5", num_events=20)
    np.save("chosen.npy", np.array([4, 19, 7]))
    return tmp_path, make_bundle()


def run(*arguments):
    with known_warnings_ignored():
        return CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)


def test_only_chosen_events_are_evaluated(site):
    folder, bundle = site
    options = ("--model", f"net={bundle}", "--data", "calls.h5", "--events", "chosen.npy")
    done = run("evaluate", *options, "-o", "out.h5")
    assert "3 events of " in done.stdout
    with h5py.File(folder / "out.h5") as out, h5py.File(folder / "calls.h5") as calls:
        chosen = calls["locations"][:][[4, 19, 7]].astype(np.float32)
        np.testing.assert_array_equal(out["locations"][:].reshape(3, 2), chosen)
    with pytest.raises(DatasetError, match=r"none\.npy: does not exist"):
        run("evaluate", *options[:-1], "none.npy")


def test_only_chosen_events_are_predicted(site):
    folder, bundle = site
    options = ("--model", bundle, "--data", "calls.h5", "--events", "chosen.npy", "-o", "out.h5")
    assert "predicted 3 events" in run("predict", *options).stdout
    with h5py.File(folder / "out.h5") as out:
        assert out["event_index"][:].tolist() == [4, 19, 7]
        assert out["predictions"].shape == (3, 2)
