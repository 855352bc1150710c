from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from gerbil_tune.errors import LaunchError
from gerbil_tune.evaluation.predictions import EventPredictions
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.inference.writer import file_attributes, read_attributes, write_predictions

FLAT = RecordingSetup(4, 125_000.0, (572.0, 356.0))
TALL = RecordingSetup(4, 125_000.0, (572.0, 356.0, 300.0), keypoints=("nose", "head"), num_axes=3)
ATTRIBUTES = {"model_uri": "models:/m/1", "model_version": "1", "temperature": 1.25}
LEVELS = (0.5, 0.9, 0.95)


def make_predictions(setup: RecordingSetup, count: int = 5) -> EventPredictions:
    rng = np.random.default_rng(0)
    shape = (count, len(setup.keypoints), setup.num_axes)
    return EventPredictions(
        rng.standard_normal(shape).astype(np.float32),
        rng.standard_normal((*shape, shape[2])).astype(np.float32),
        rng.uniform(1, 9, (*shape[:2], 3)).astype(np.float32),
        nll_NK=rng.standard_normal(shape[:2]).astype(np.float32),
        in_region_NKR=rng.random((*shape[:2], 3)) < 0.5,
        confidence_NK=rng.random(shape[:2]).astype(np.float32),
        flags_N=np.arange(count, dtype=np.uint8),
    )


def rows(predictions: EventPredictions, which: slice) -> EventPredictions:
    names = [name for name in predictions.__slots__ if getattr(predictions, name) is not None]
    return replace(predictions, **{name: getattr(predictions, name)[which] for name in names})


@pytest.mark.parametrize(
    ("setup", "shape", "region"),
    [(FLAT, (5,), "region_area_mm2"), (TALL, (5, 2), "region_volume_mm3")],
)
def test_parts_in_any_order_make_a_file(tmp_path: Path, setup, shape, region):
    found = make_predictions(setup)
    path = tmp_path / "new" / "out.h5"

    def parts() -> Iterator[tuple[int, EventPredictions]]:
        yield 3, rows(found, slice(3, 5))
        assert not path.exists()
        yield 0, rows(found, slice(3))

    extra = {"locations": np.zeros((5, 2), np.float32)}
    write_predictions(path, parts(), 5, setup, ATTRIBUTES, region_levels=LEVELS, extra=extra)
    axes = setup.num_axes
    with h5py.File(path) as file:
        for name, values, tail in (
            ("predictions", found.mean_mm_NKD, (axes,)),
            ("covariance", found.covariance_mm2_NKDD, (axes, axes)),
            (region, found.region_size_NKR, (3,)),
            ("in_region", found.in_region_NKR, (3,)),
            ("nll", found.nll_NK, ()),
            ("confidence", found.confidence_NK, ()),
        ):
            np.testing.assert_array_equal(file[name], values.reshape(*shape, *tail))
        np.testing.assert_array_equal(file["flags"], found.flags_N)
        for name in (region, "in_region"):
            np.testing.assert_array_equal(file[name].attrs["levels"], LEVELS)
        assert file[region].attrs["units"] == f"mm^{axes}"
        assert file["confidence"].attrs["radius_mm"] == 50.0
        assert "no sound" in file["flags"].attrs["meanings"]
        assert file["locations"].attrs["units"].startswith("mm")
        assert file["predictions"].dtype == file["covariance"].dtype == np.float32
        assert file.attrs["keypoints"] == ",".join(setup.keypoints)
        assert file.attrs["origin"] == "arena centre, floor"
    assert list(path.parent.iterdir()) == [path]
    assert read_attributes(path) == file_attributes(setup, ATTRIBUTES)


def test_without_conformal_calibration_there_are_no_regions(tmp_path):
    write_predictions(tmp_path / "out.h5", [(0, make_predictions(FLAT))], 5, FLAT, ATTRIBUTES)
    with h5py.File(tmp_path / "out.h5") as file:
        assert not {"region_area_mm2", "in_region"} & set(file)


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "out.h5"
    path.write_bytes(b"old")

    def fail() -> Iterator[tuple[int, EventPredictions]]:
        yield 0, make_predictions(FLAT)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_predictions(path, fail(), 9, FLAT, ATTRIBUTES)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_with_missing_events_is_never_finished(tmp_path):
    with pytest.raises(LaunchError, match="1 of 6 events not written"):
        write_predictions(tmp_path / "out.h5", [(0, make_predictions(FLAT))], 6, FLAT, ATTRIBUTES)
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LaunchError, match="cannot be written"):
        write_predictions(tmp_path / "file" / "out.h5", [], 0, FLAT, ATTRIBUTES)


def test_other_files_have_no_attributes_of_predictions(tmp_path):
    (tmp_path / "text.h5").write_text("text")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file.attrs["units"] = "mm"
    assert read_attributes(tmp_path / "text.h5") is None
    assert read_attributes(tmp_path / "other.h5") is None
