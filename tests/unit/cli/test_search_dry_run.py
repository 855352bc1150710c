"""A dry run of a search shows and keeps nothing."""

import numpy as np
import pytest
from typer.testing import CliRunner

from gerbil_tune.cli.app import app

SPACE = """
name: tiny
base:
  model: {kind: gcc-net, lags: {num_channels: 8, hidden: 16, num_blocks: 2}}
  training: {epochs: 1, global_batch_size: 8}
parameters:
  optimizer/learning_rate: {type: float, low: 1.0e-4, high: 1.0e-2, log: true}
"""


@pytest.fixture
def dry_run(make_event_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_event_file("calls.h5", num_events=40)
    (tmp_path / "space.yaml").write_text(SPACE)

    def invoke(*options):
        words = ["search", "space.yaml", "--data", "calls.h5", "--dry-run", *options]
        return CliRunner().invoke(app, words, catch_exceptions=False).stdout

    return invoke


def everything(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_it_leaves_nothing(dry_run, tmp_path):
    before = everything(tmp_path)
    assert "split: new, " in dry_run()
    assert everything(tmp_path) == before


def test_it_does_not_fix_the_split_of_a_study_that_has_none(dry_run, tmp_path):
    (tmp_path / "studies/tiny").mkdir(parents=True)
    before = everything(tmp_path)
    dry_run("--set", "data/test_fraction=0.2")
    assert everything(tmp_path) == before


def test_it_looks_at_the_split_that_a_study_has(dry_run, tmp_path):
    study = tmp_path / "studies/tiny"
    study.mkdir(parents=True)
    for name, places in (("train", range(20)), ("val", range(20, 30)), ("test", range(30, 40))):
        np.save(study / f"{name}_set.npy", np.array(places))
    before = everything(tmp_path)
    assert "20 training, 10 validation, 10 test events" in dry_run()
    assert everything(tmp_path) == before
