"""Whole jobs in one process, and all that can be wrong before they start."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from gerbil_tune.config.schema import DataConfig
from gerbil_tune.data.events import open_events
from gerbil_tune.data.files.shard_set import write_shards
from gerbil_tune.errors import (
    ConfigError,
    DatasetError,
    GerbilTuneError,
    LaunchError,
    ModelNotFoundError,
)
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.inference.flags import FAILED, Flag
from gerbil_tune.inference.inputs import InputFile
from gerbil_tune.inference.job import PredictionSummary, predict_files
from gerbil_tune.inference.outputs import plan_outputs
from gerbil_tune.inference.parts import PartsFolder
from gerbil_tune.inference.predict import predict_events
from gerbil_tune.models.bundle import load_bundle
from gerbil_tune.models.calibrated import NUM_ZONES, Calibration, ConformalThresholds
from gerbil_tune.tracking.model_registry import ResolvedModel

SETUP = RecordingSetup(4, 125_000.0, (572.0, 356.0))


@pytest.fixture(scope="module")
def model(make_bundle: Callable[..., Path]) -> ResolvedModel:
    return ResolvedModel(make_bundle(SETUP, temperature=1.5), "models:/m/3", "3")


def no_ray(_: object) -> None:
    raise AssertionError("a small job starts no Ray")


def predict(model: ResolvedModel, inputs: list[Path], output: Path) -> PredictionSummary:
    return predict_files(model, inputs, output, start_ray=no_ray)


def test_one_file_goes_to_the_file_that_is_named(model, make_event_file, tmp_path):
    path = make_event_file("calls.h5", num_events=20)
    output = tmp_path / "new" / "out.h5"
    summary = predict(model, [path], output)
    assert (summary.num_events, summary.files, summary.reused) == (20, (output,), ())
    assert (summary.num_failed_events, summary.problems, summary.notes) == (0, (), ())
    assert (summary.num_resumed, summary.failed_file) == (0, None)
    assert summary.seconds > 0
    assert summary.events_per_s == pytest.approx(20 / summary.seconds)

    bundle, events = load_bundle(model.path), open_events(path)
    expected = predict_events(bundle, events, per_worker_batch_size=64)
    with h5py.File(output) as file:
        np.testing.assert_array_equal(file["predictions"], expected.mean_mm_NKD[:, 0])
        np.testing.assert_array_equal(file["covariance"], expected.covariance_mm2_NKDD[:, 0])
        np.testing.assert_array_equal(file["locations"], events.locations_mm[:, 0])
        np.testing.assert_array_equal(file["nll"], expected.nll_NK[:, 0])
        np.testing.assert_array_equal(file["confidence"], expected.confidence_NK[:, 0])
        assert "region_area_mm2" not in file, "the model has no conformal calibration"
        attributes = dict(file.attrs)
    assert attributes == {
        "content": "gerbil_tune predictions",
        "format": 2,
        "units": "mm",
        "origin": "arena centre, floor",
        "keypoints": "nose",
        "model_uri": "models:/m/3",
        "model_version": "3",
        "model_fingerprint": bundle.fingerprint,
        "temperature": 1.5,
        "calibration_fingerprint": bundle.calibration.fingerprint,
        "data_fingerprint": events.fingerprint(),
        "package_version": attributes["package_version"],
    }


def test_vocalocators_readers_find_their_dataset(model, make_event_file, tmp_path):
    path = make_event_file("calls.h5")
    options = {"start_ray": no_ray, "aliases": ("point_predictions",)}
    predict(model, [path], tmp_path / "out.h5")
    assert predict_files(model, [path], tmp_path / "out.h5", **options).num_events == 12
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["point_predictions"] == file["predictions"]


def test_maps_of_the_arena_are_written_on_request(model, make_event_file, tmp_path):
    path = make_event_file("calls.h5")
    options = {"start_ray": no_ray, "density_step_mm": 20.0}
    predict_files(model, [path], tmp_path / "out.h5", **options)
    assert predict_files(model, [path], tmp_path / "out.h5", **options).num_events == 0
    with h5py.File(tmp_path / "out.h5") as file:
        maps, facts = file["density"][:], dict(file["density"].attrs)
        prediction = file["predictions"][:]
    assert maps.shape == (12, 18, 29)
    assert (len(facts["y_mm"]), len(facts["x_mm"]), facts["units"]) == (18, 29, "1/mm^2")
    for map_YX, place in zip(maps, prediction, strict=True):
        row, column = np.unravel_index(map_YX.argmax(), map_YX.shape)
        assert abs(facts["x_mm"][column] - place[0]) <= 10
        assert abs(facts["y_mm"][row] - place[1]) <= 10
    again = {**options, "density_step_mm": 40.0}
    assert predict_files(model, [path], tmp_path / "out.h5", **again).num_events == 12
    with pytest.raises(ConfigError, match="over a million cells"):
        predict_files(model, [path], tmp_path / "x.h5", start_ray=no_ray, density_step_mm=0.1)


def test_only_chosen_events_are_predicted(model, make_event_file, tmp_path):
    path = make_event_file("calls.h5", num_events=20)
    np.save(tmp_path / "chosen.npy", np.array([17, 3, 4]))
    options = {"start_ray": no_ray, "event_index": tmp_path / "chosen.npy"}
    summary = predict_files(model, [path], tmp_path / "chosen.h5", **options)
    assert summary.num_events == 3
    predict(model, [path], tmp_path / "all.h5")
    with h5py.File(tmp_path / "chosen.h5") as chosen, h5py.File(tmp_path / "all.h5") as every:
        assert chosen["event_index"][:].tolist() == [17, 3, 4]
        assert "event_index" not in every
        for name, tolerance in (("predictions", 1e-3), ("covariance", 1e-2), ("locations", 0)):
            rows = every[name][:][[17, 3, 4]]
            np.testing.assert_allclose(chosen[name], rows, rtol=1e-4, atol=tolerance)

    assert predict_files(model, [path], tmp_path / "chosen.h5", **options).num_events == 0
    np.save(tmp_path / "chosen.npy", np.arange(20))
    assert predict_files(model, [path], tmp_path / "all.h5", **options).num_events == 20
    with h5py.File(tmp_path / "all.h5") as every:
        assert every["event_index"][:].tolist() == list(range(20))


def test_chosen_events_are_those_of_one_file(model, make_event_file, tmp_path):
    one, two = make_event_file("one.h5"), make_event_file("two.h5", seed=1)
    np.save(tmp_path / "chosen.npy", np.array([12]))
    options = {"start_ray": no_ray, "event_index": tmp_path / "chosen.npy"}
    with pytest.raises(ConfigError, match="chooses events of one file, but 2 input files were giv"):
        predict_files(model, [one, two], tmp_path / "out", **options)
    with pytest.raises(DatasetError, match=r"chosen\.npy: names events 12 to 12, but the data has"):
        predict_files(model, [one], tmp_path / "new" / "deep" / "out.h5", **options)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "new").exists()


def test_chosen_events_of_a_folder_of_shards_go_to_one_file(model, make_event_file, tmp_path):
    path = make_event_file("calls.h5", num_events=20, layout="vocalocator")
    events = open_events(path)
    write_shards(events, tmp_path / "shards", shard_bytes=30_000, processes=1)
    assert len(open_events(tmp_path / "shards").files) > 2
    np.save(tmp_path / "chosen.npy", np.array([17, 3, 12]))
    options = {"start_ray": no_ray, "event_index": tmp_path / "chosen.npy"}
    whole = predict_files(model, [path], tmp_path / "whole.h5", **options)
    shards = predict_files(model, [tmp_path / "shards"], tmp_path / "shards.h5", **options)
    assert shards.files == (tmp_path / "shards.h5",)
    assert shards.num_events == whole.num_events == 3
    with h5py.File(whole.files[0]) as expected, h5py.File(shards.files[0]) as received:
        for name in ("event_index", "locations", "predictions"):
            np.testing.assert_allclose(received[name][:], expected[name][:], rtol=1e-5)
    into_folder = predict_files(model, [tmp_path / "shards"], tmp_path / "out", **options)
    assert into_folder.files == (tmp_path / "out" / "shards.predictions.h5",)
    # All events of it go, as those of any folder, to a file for each of its files.
    assert len(predict(model, [tmp_path / "shards"], tmp_path / "all").files) > 2


def test_several_files_and_folders_go_to_a_folder(model, make_event_file, tmp_path):
    one = make_event_file("one.h5", num_events=3, layout="vocalocator")
    make_event_file("more/two.h5", num_events=4, locations=None)
    make_event_file("more/three.hdf5", num_events=5)
    summary = predict(model, [one, tmp_path / "more"], tmp_path / "out")
    assert [file.name for file in summary.files] == [
        "one.predictions.h5",
        "three.predictions.h5",
        "two.predictions.h5",
    ]
    lengths = []
    for file in summary.files:
        with h5py.File(file) as content:
            lengths.append(len(content["predictions"]))
            assert ("locations" in content) == (file.name != "two.predictions.h5")
    assert lengths == [3, 5, 4]


def test_one_file_may_go_to_a_folder_too(model, make_event_file, tmp_path):
    summary = predict(model, [make_event_file("calls.h5")], tmp_path / "out")
    assert summary.files == (tmp_path / "out" / "calls.predictions.h5",)


def test_a_job_that_was_cut_off_does_only_the_rest(model, make_event_file, tmp_path):
    one, two = make_event_file("one.h5"), make_event_file("two.h5", num_events=7, seed=1)
    first = predict(model, [one, two], tmp_path / "out")
    first.files[1].unlink()
    stamp = first.files[0].stat().st_mtime_ns
    again = predict(model, [one, two], tmp_path / "out")
    assert (again.reused, again.files) == (first.files[:1], first.files[1:])
    assert again.num_events == 7
    assert first.files[0].stat().st_mtime_ns == stamp

    other = ResolvedModel(model.path, "models:/m/4", "4")
    assert predict(other, [one, two], tmp_path / "out").reused == ()
    make_event_file("one.h5", seed=2)
    assert predict(other, [one, two], tmp_path / "out").files == first.files[:1]
    everything = predict(other, [one, two], tmp_path / "out")
    assert (everything.num_events, everything.files) == (0, ())


def test_events_without_a_sound_have_no_prediction_and_say_why(model, make_event_file, tmp_path):
    audio = np.random.default_rng(0).standard_normal((1500, 4))
    audio[400:450] = np.nan
    audio[600:900] = 0
    audio[1000:1001, 2] = np.inf
    path = make_event_file("calls.h5", lengths=[300, 300, 300, 0, 300, 300], audio=audio)
    summary = predict(model, [path], tmp_path / "out.h5")
    assert summary.num_failed_events == 4
    with h5py.File(tmp_path / "out.h5") as file:
        flags = file["flags"][:] & int(FAILED)
        for name in ("predictions", "covariance", "confidence", "nll"):
            values = file[name][:].reshape(6, -1)
            assert np.isfinite(values).all(axis=1).tolist() == (flags == 0).tolist()
        meanings = json.loads(file["flags"].attrs["meanings"])
    expected = [0, Flag.NOT_FINITE, Flag.SILENT, Flag.EMPTY, Flag.NOT_FINITE, 0]
    assert flags.tolist() == expected
    assert summary.failed_file == tmp_path / "out.failed.json"
    listed = json.loads(summary.failed_file.read_text())
    assert listed["files"] == []
    assert listed["events"][1] == {
        "file": str(path),
        "event": 2,
        "reason": meanings[str(int(Flag.SILENT))],
    }
    again = predict(model, [path], tmp_path / "out.h5")
    assert (again.num_events, again.num_failed_events) == (0, 4)
    good = make_event_file("calls.h5", num_events=4)
    assert predict(model, [good], tmp_path / "out.h5").failed_file is None
    assert not summary.failed_file.exists()


@pytest.mark.parametrize("kind", ["gaussian-full", "mixture", "grid"])
def test_an_event_that_is_no_number_leaves_the_others_alone(
    make_bundle, make_event_file, tmp_path, kind
):
    levels = (0.5, 0.9, 0.95)
    thresholds = ConformalThresholds(levels, ((1.0, 4.0, 6.0),), ((None,),) * NUM_ZONES, 100)
    bundle = make_bundle(SETUP, head={"kind": kind})
    calibration = Calibration(1.0, thresholds).to_json()
    (bundle / "calibration.json").write_text(json.dumps(calibration))
    audio = np.random.default_rng(0).standard_normal((1200, 4))
    good = make_event_file("good.h5", lengths=[300] * 4, audio=audio)
    audio[700, 1] = np.nan
    bad = make_event_file("bad.h5", lengths=[300] * 4, audio=audio)
    model = ResolvedModel(bundle, "x")
    predict(model, [good, bad], tmp_path / "out")
    with (
        h5py.File(tmp_path / "out/good.predictions.h5") as expected,
        h5py.File(tmp_path / "out/bad.predictions.h5") as received,
    ):
        for name in ("predictions", "covariance", "region_area_mm2", "confidence", "nll"):
            assert np.isnan(received[name][2]).all()
            rest = [0, 1, 3]
            np.testing.assert_allclose(received[name][rest], expected[name][rest], rtol=1e-4)


def test_long_calls_and_places_outside_are_flagged(make_bundle, make_event_file, tmp_path):
    small = RecordingSetup(4, 125_000.0, (1e-3, 1e-3))
    bundle = make_bundle(small, data=DataConfig(evaluation_crop_length=500))
    path = make_event_file("calls.h5", lengths=[400, 600], arena_mm=None)
    predict(ResolvedModel(bundle, "x"), [path], tmp_path / "out.h5")
    with h5py.File(tmp_path / "out.h5") as file:
        outside = np.abs(file["predictions"][:]).max(axis=1) > 0.5e-3
        flags = file["flags"][:]
    assert (flags & int(Flag.CUT) != 0).tolist() == [False, True]
    assert (flags & int(Flag.OUTSIDE_ARENA) != 0).tolist() == outside.tolist()


def test_the_bad_ones_of_many_files_are_named_and_the_others_predicted(
    model, make_event_file, tmp_path
):
    season = tmp_path / "season"
    for number in range(45):
        make_event_file(f"season/day{number % 5}/{number:02d}.h5", num_events=3, seed=number)
    (season / "text.h5").write_text("text")
    make_event_file("season/three.h5", num_microphones=3)
    make_event_file("season/fast.h5", sample_rate_hz=250_000.0)
    make_event_file("season/rir.h5", layout="rir")
    with h5py.File(season / "empty.h5", "w") as file:
        file["locations"] = np.zeros((3, 2))
    summary = predict(model, [season], tmp_path / "out")
    assert [file.relative_to(tmp_path / "out").as_posix() for file in summary.files] == [
        f"day{day}/{day + 5 * i:02d}.predictions.h5" for day in range(5) for i in range(9)
    ]
    bundle = load_bundle(model.path)
    for file in summary.files[::11]:
        with h5py.File(file) as found:
            events = open_events(season / file.parent.name / file.name.replace(".predictions", ""))
            expected = predict_events(bundle, events, per_worker_batch_size=64)
            np.testing.assert_array_equal(found["predictions"], expected.mean_mm_NKD[:, 0])
    reasons = {problem.path.name: problem.reason for problem in summary.problems}
    for name, says in {
        "text.h5": "cannot be opened as HDF5",
        "three.h5": "3 microphones, but the model is for 4",
        "fast.h5": "is 250000, but the model is for 125000",
        "rir.h5": "holds impulse responses",
        "empty.h5": "needs the datasets",
    }.items():
        assert says in reasons.pop(name)
    assert not reasons
    assert summary.failed_file == tmp_path / "out" / "predictions.failed.json"
    listed = json.loads(summary.failed_file.read_text())
    assert len(listed["files"]) == 5
    # Another job into the same folder leaves that list alone, and a mended file leaves it.
    predict(model, [make_event_file("other.h5", num_events=2)], tmp_path / "out")
    assert json.loads(summary.failed_file.read_text()) == listed
    make_event_file("season/three.h5")
    predict(model, [season / "three.h5"], tmp_path / "out")
    assert len(json.loads(summary.failed_file.read_text())["files"]) == 4


def test_patterns_and_lists_name_files(model, make_event_file, tmp_path):
    for number in range(3):
        make_event_file(f"day{number}/calls{number}.h5", num_events=2, seed=number)
    matched = predict(model, [tmp_path / "day[12]" / "*.h5"], tmp_path / "a")
    assert [file.name for file in matched.files] == [
        "calls1.predictions.h5",
        "calls2.predictions.h5",
    ]
    (tmp_path / "season.txt").write_text("# two days\nday2/calls2.h5\n\nday0/calls0.h5  # first\n")
    listed = predict(model, [tmp_path / "season.txt"], tmp_path / "b")
    assert [file.name for file in listed.files] == [
        "calls2.predictions.h5",
        "calls0.predictions.h5",
    ]
    (tmp_path / "none.txt").write_text("# nothing\n")
    with pytest.raises(DatasetError, match="the list names no file"):
        predict(model, [tmp_path / "none.txt"], tmp_path / "c")
    with pytest.raises(DatasetError, match="no file of this pattern"):
        predict(model, [tmp_path / "night*" / "*.h5"], tmp_path / "c")


def test_several_files_may_go_into_one(model, make_event_file, tmp_path):
    paths = [make_event_file(f"{n}.h5", num_events=3 + n, seed=n) for n in range(3)]
    summary = predict(model, paths, tmp_path / "all.h5")
    assert summary.files == (tmp_path / "all.h5",)
    apart = predict(model, paths, tmp_path / "apart")
    with h5py.File(tmp_path / "all.h5") as file:
        assert [name.decode() for name in file["files"][:]] == [str(path) for path in paths]
        assert file["file_index"][:].tolist() == [0] * 3 + [1] * 4 + [2] * 5
        together = file["predictions"][:]
    expected = []
    for target in apart.files:
        with h5py.File(target) as file:
            expected.append(file["predictions"][:])
    np.testing.assert_allclose(together, np.concatenate(expected), rtol=1e-4, atol=1e-3)


class CutOffError(Exception):
    """Stands for a kill."""


def cut_off_after(parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a job die when it has kept so many parts."""
    write, left = PartsFolder.write, [parts]

    def write_or_die(self: PartsFolder, start: int, predictions: Any) -> None:
        if not left[0]:
            raise CutOffError
        left[0] -= 1
        write(self, start, predictions)

    monkeypatch.setattr(PartsFolder, "write", write_or_die)


def test_a_file_that_was_begun_is_gone_on_with(model, make_event_file, tmp_path, monkeypatch):
    path = make_event_file("calls.h5", num_events=100)
    sizes = {"start_ray": no_ray, "per_worker_batch_size": 2}
    whole = predict_files(model, [path], tmp_path / "whole.h5", **sizes)
    with monkeypatch.context() as patch:
        cut_off_after(3, patch)
        with pytest.raises(CutOffError):
            predict_files(model, [path], tmp_path / "out.h5", **sizes)
    assert not (tmp_path / "out.h5").exists()
    parts = tmp_path / ".out.h5.parts"
    torn = sorted(parts.glob("*.safetensors"))[1]
    torn.write_bytes(torn.read_bytes()[:-1])  # by a power cut
    other = ResolvedModel(model.path, "models:/m/4", "4")
    with pytest.raises(ConfigError, match=r"begun with another model.*--overwrite"):
        predict_files(other, [path], tmp_path / "out.h5", **sizes)
    summary = predict_files(model, [path], tmp_path / "out.h5", **sizes)
    assert summary.num_resumed + summary.num_events == 100
    assert 20 < summary.num_resumed < 50
    assert not parts.exists()
    with h5py.File(whole.files[0]) as expected, h5py.File(tmp_path / "out.h5") as received:
        assert set(expected) == set(received)
        for name in expected:
            assert expected[name][()].tobytes() == received[name][()].tobytes()


def test_a_disk_without_room_for_the_file_is_told_and_the_parts_are_kept(
    model, make_event_file, tmp_path, monkeypatch
):
    path = make_event_file("calls.h5", num_events=100)
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=70_000))
        with pytest.raises(LaunchError, match=r"No space left on device.*0\.1 MB are free"):
            predict(model, [path], tmp_path / "out.h5")
    summary = predict(model, [path], tmp_path / "out.h5")
    assert (summary.num_events, summary.num_resumed) == (0, 100)
    assert summary.files == (tmp_path / "out.h5",)


def test_what_was_begun_with_another_input_is_not_gone_on_with(
    model, make_event_file, tmp_path, monkeypatch
):
    path = make_event_file("calls.h5", num_events=100)
    sizes = {"start_ray": no_ray, "per_worker_batch_size": 2}
    with monkeypatch.context() as patch:
        cut_off_after(1, patch)
        with pytest.raises(CutOffError):
            predict_files(model, [path], tmp_path / "out.h5", **sizes)
    make_event_file("calls.h5", num_events=100, seed=1)
    with pytest.raises(ConfigError, match="begun with another input file"):
        predict_files(model, [path], tmp_path / "out.h5", **sizes)
    anew = predict_files(model, [path], tmp_path / "out.h5", overwrite=True, **sizes)
    assert (anew.num_events, anew.num_resumed) == (100, 0)


@pytest.mark.parametrize("head", [{"kind": "gaussian-full"}, {"kind": "mixture"}])
def test_neither_batch_nor_order_nor_company_matters(make_bundle, make_event_file, tmp_path, head):
    model = ResolvedModel(make_bundle(SETUP, head=head), "x")
    path = make_event_file("calls.h5", num_events=60, lengths=(20, 900))
    results = []
    for number, size in enumerate((64, 7, 1)):
        output = tmp_path / f"{number}.h5"
        predict_files(model, [path], output, start_ray=no_ray, per_worker_batch_size=size)
        results.append(output)
    order = np.random.default_rng(0).permutation(60)[:40]
    np.save(tmp_path / "order.npy", order)
    chosen = tmp_path / "chosen.h5"
    predict_files(model, [path], chosen, start_ray=no_ray, event_index=tmp_path / "order.npy")
    with h5py.File(results[0]) as expected:
        for name in ("predictions", "covariance", "confidence", "nll"):
            wanted = expected[name][:]
            for other in results[1:]:
                with h5py.File(other) as received:
                    np.testing.assert_allclose(received[name][:], wanted, rtol=2e-3, atol=2e-3)
            with h5py.File(chosen) as received:
                np.testing.assert_allclose(received[name][:], wanted[order], rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"num_microphones": 3}, "has 3 microphones, but the model is for 4"),
        ({"sample_rate_hz": 250_000.0}, "is 250000, but the model is for 125000"),
        ({"layout": "rir"}, "holds impulse responses"),
    ],
)
def test_a_recording_that_does_not_fit_stops_the_job_before_it_writes(
    model, make_event_file, tmp_path, options, says
):
    bad = make_event_file("bad.h5", **options)
    with pytest.raises(DatasetError, match=f"bad.h5.*{says}"):
        predict(model, [bad], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_no_recording_is_told(model, tmp_path, make_event_file):
    (tmp_path / "text.h5").write_text("text")
    with pytest.raises(DatasetError, match="cannot be opened as HDF5"):
        predict(model, [tmp_path / "text.h5"], tmp_path / "out.h5")
    with h5py.File(tmp_path / "silent.h5", "w") as file:
        file["locations"] = np.zeros((3, 2))
    with pytest.raises(DatasetError, match="needs the datasets"):
        predict(model, [tmp_path / "silent.h5"], tmp_path / "out.h5")
    with pytest.raises(ModelNotFoundError, match="is not a model bundle"):
        predict(ResolvedModel(tmp_path, "x"), [make_event_file("calls.h5")], tmp_path / "out.h5")


def test_doubts_are_noted(model, make_event_file, tmp_path):
    path = make_event_file("calls.h5", sample_rate_hz=None, arena_mm=(300.0, 300.0))
    rate, arena = predict(model, [path], tmp_path / "a.h5").notes
    assert "does not state its sample rate" in rate
    assert "another arena_mm" in arena
    path = make_event_file("mice.h5", keypoints=("tail", "ear"))
    (note,) = predict(model, [path], tmp_path / "b.h5").notes
    assert note == (
        "the locations of mice.h5 are not copied: they are of keypoints tail, ear in 2 axes, the "
        "predictions of nose in 2"
    )


def test_locations_are_those_of_what_the_model_predicts(model, make_event_file, tmp_path):
    path = make_event_file("calls.h5", keypoints=("tail", "nose"), num_axes=3)
    assert predict(model, [path], tmp_path / "out.h5").notes == ()
    with h5py.File(tmp_path / "out.h5") as out, h5py.File(path) as source:
        expected = source["locations"][:, 1, :2].astype(np.float32)
        np.testing.assert_array_equal(out["locations"], expected)


def test_outputs_never_overwrite_what_is_not_theirs(tmp_path, make_event_file):
    path = make_event_file("calls.h5")
    file = InputFile(path)
    with pytest.raises(ConfigError, match="exists and is not a file of predictions"):
        plan_outputs([file], path)
    with pytest.raises(ConfigError, match=r"would both be predicted into .*calls\.predictions\.h5"):
        plan_outputs([file, InputFile(tmp_path / "b" / "calls.h5")], tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        plan_outputs([file], tmp_path / "file" / "out.h5")


def test_a_wrong_recording_is_told_without_loading_torch(tmp_path):
    (tmp_path / "text.h5").write_text("text")
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from gerbil_tune.errors import DatasetError\n"
        "from gerbil_tune.inference.job import predict_files\n"
        "from gerbil_tune.tracking.model_registry import ResolvedModel\n"
        "try:\n"
        "    predict_files(ResolvedModel(Path('none'), ''), [Path('text.h5')], Path('out.h5'),\n"
        "        start_ray=print)\n"
        "except DatasetError:\n"
        "    sys.exit(bool({'torch', 'ray', 'mlflow'} & set(sys.modules)))\n"
        "sys.exit('no error')\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)


def test_errors_cross_processes():
    assert isinstance(DatasetError("x"), GerbilTuneError)
