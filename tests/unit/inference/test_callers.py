"""The animal that called: through whole jobs."""

import csv
import json
import math
from pathlib import Path

import h5py
import numpy as np
import pytest

from gerbil_tune.errors import ConfigError, DatasetError
from gerbil_tune.inference.job import predict_files
from gerbil_tune.inference.tables import write_table
from gerbil_tune.models.bundle import load_bundle
from gerbil_tune.models.caller_rule import CallerRule
from gerbil_tune.tracking.model_registry import ResolvedModel

NAMES = np.array([b"Ann, the first", b"Bo"])


def no_ray(_: object) -> None:
    raise AssertionError("a small job starts no Ray")


@pytest.fixture(scope="module")
def model(make_bundle) -> ResolvedModel:
    """It promises an error rate of 5 % of two animals that are 100 mm apart."""
    path = make_bundle()
    never = (math.inf,) * 3
    rule = CallerRule(1.0, 0.0, (100.0,), (0.01, 0.05), (never, (math.inf, 0.5, 0.5)), 640)
    facts = json.loads((path / "calibration.json").read_text())
    (path / "calibration.json").write_text(json.dumps({**facts, "callers": rule.to_json()}))
    assert load_bundle(path).calibration.callers == rule
    return ResolvedModel(path, "models:/m/3", "3")


@pytest.fixture
def dyads(model, make_event_file, tmp_path) -> Path:
    """Where the first animal is at the predicted place, and the second one far away or beside it."""
    path = make_event_file("dyads.h5", num_events=6, locations=None)
    predict_files(model, [path], tmp_path / "where.h5", start_ray=no_ray)
    with h5py.File(tmp_path / "where.h5") as file:
        there = file["predictions"][:]
    tracks = np.stack([there, there + np.where(np.arange(6) < 3, 1000.0, 20.0)[:, None]], axis=1)
    tracks[:2] = tracks[:2, ::-1]
    tracks[2, 1] = np.nan
    with h5py.File(path, "r+") as file:
        file["tracks"] = tracks[:, :, None]
        file["animal_names"] = NAMES
        file["emitter"] = [1, 0, 0, 0, -1, 1]
        first, stop = file["len_idx"][5:7]
        file["vocalizations"][first:stop] = 0
    return path


def test_a_caller_is_named_where_it_is_clear(model, dyads, tmp_path):
    output = tmp_path / "out.h5"
    summary = predict_files(model, [dyads], output, start_ray=no_ray)
    with h5py.File(output) as file:
        assert file["emitter"][:].tolist() == [1, 1, 0, -1, -1, -1]
        assert file["true_emitter"][:].tolist() == [1, 0, 0, 0, -1, 1]
        assert file["emitter"].attrs["error_rate"] == 0.05
        assert file["emitter"].attrs["animals"].tolist() == ["Ann, the first", "Bo"]
        probability = file["caller_probability"][:]
        assert file.attrs["error_rate"] == 0.05
    np.testing.assert_allclose(probability[:5].sum(1), 1.0, rtol=1e-6)
    assert np.isnan(probability[5]).all(), "there is no sound, so no prediction"
    assert probability[0, 1] > 0.99
    assert summary.callers.sentence() == (
        "named the caller of 3 of 6 events (50.0%); 33.33% of 3 that are known are wrong"
    )


def test_a_table_has_the_animals_name_or_nothing(model, dyads, tmp_path):
    predict_files(model, [dyads], tmp_path / "out.h5", start_ray=no_ray)
    rows = list(csv.DictReader(write_table(tmp_path / "out.h5", "csv").read_text().splitlines()))
    assert [row["emitter"] for row in rows] == ["Bo", "Bo", "Ann, the first", "", "", ""]
    assert [row["true_emitter"] for row in rows][4:] == ["", "Bo"]
    assert float(rows[0]["caller_probability_Bo"]) > 0.99
    table = np.load(write_table(tmp_path / "out.h5", "npz"))
    assert table["emitter"].tolist() == [1, 1, 0, -1, -1, -1]


def test_another_error_rate_is_another_job(model, dyads, tmp_path):
    output = tmp_path / "out.h5"
    predict_files(model, [dyads], output, start_ray=no_ray)
    summary = predict_files(model, [dyads], output, start_ray=no_ray, error_rate=0.02)
    assert summary.num_events == 6
    assert "cannot be promised of 2 animals" in summary.notes[-1]
    assert summary.notes[-1].endswith("calibrated on; ask for --error-rate 0.05 or more")
    with h5py.File(output) as file:
        assert (file["emitter"][:] == -1).all()


def test_tracks_that_cannot_be_used_are_told(model, make_bundle, dyads, tmp_path):
    plain = ResolvedModel(make_bundle(seed=1), "models:/m/4", "4")
    summary = predict_files(plain, [dyads], tmp_path / "plain.h5", start_ray=no_ray)
    assert "how sure it must be of a caller" in summary.notes[-1]
    assert summary.callers is None
    with h5py.File(dyads, "r+") as file:
        tracks = file["tracks"][:]
        del file["tracks"]
        file["tracks"] = np.repeat(tracks, 2, axis=2)
        file["node_names"] = [b"head", b"tail"]
    summary = predict_files(model, [dyads], tmp_path / "other.h5", start_ray=no_ray)
    assert "they are of keypoints head, tail in 2 axes, the model's of nose" in summary.notes[-1]
    with h5py.File(tmp_path / "other.h5") as file:
        assert "emitter" not in file


def test_the_rule_of_a_bundle_is_checked_when_it_is_read(model, tmp_path):
    good = load_bundle(model.path).calibration.callers.to_json()
    for name, value in (
        ("power", 0),
        ("background", 1.0),
        ("edges_mm", [20, 10]),
        ("error_rates", [0.1, 1.5]),
        ("thresholds", [[1.0]]),
        ("num_events", True),
    ):
        with pytest.raises(DatasetError, match=f"a file: callers/{name} must be"):
            CallerRule.from_json({**good, name: value}, "a file")
    with pytest.raises(DatasetError, match="callers/power must be"):
        CallerRule.from_json(None, "a file")


def test_an_error_rate_that_is_no_share_is_refused(tmp_path):
    from gerbil_tune.cli.predict import predict

    with pytest.raises(ConfigError, match=r"--error-rate is 5, but must be between 0 and 1"):
        predict("models:/m@champion", [tmp_path], tmp_path / "out.h5", error_rate=5)


def test_tracks_in_a_wrong_frame_name_nobody(model, make_event_file, tmp_path):
    path = make_event_file("corner.h5", num_events=12)
    half = np.array([286.0, 178.0])
    tracks = np.random.default_rng(0).uniform(-half, half, (12, 2, 1, 2))
    with h5py.File(path, "r+") as file:
        file["tracks"] = tracks + half
    with pytest.raises(DatasetError, match="tracks seem to be counted from a corner"):
        predict_files(model, [path], tmp_path / "out.h5", start_ray=no_ray)


def test_a_model_that_was_calibrated_anew_is_another_one(make_bundle, dyads, tmp_path):
    bundle = make_bundle()
    again = ResolvedModel(bundle, "models:/m/3", "3")
    predict_files(again, [dyads], tmp_path / "out.h5", start_ray=no_ray)
    rule = CallerRule(1.0, 0.0, (100.0,), (0.05,), ((0.5,) * 3,), 640)
    facts = json.loads((bundle / "calibration.json").read_text())
    (bundle / "calibration.json").write_text(json.dumps({**facts, "callers": rule.to_json()}))
    summary = predict_files(again, [dyads], tmp_path / "out.h5", start_ray=no_ray)
    assert (summary.num_events, summary.reused) == (6, ())
    with h5py.File(tmp_path / "out.h5") as file:
        assert "emitter" in file
