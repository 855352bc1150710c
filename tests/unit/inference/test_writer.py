from pathlib import Path

import h5py
import numpy as np
import pytest

from gerbil_tune.errors import DatasetError
from gerbil_tune.evaluation.predictions import EventPredictions
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.inference.writer import PredictionWriter, file_attributes, read_attributes

FLAT = RecordingSetup(4, 125_000.0, (572.0, 356.0))
TALL = RecordingSetup(4, 125_000.0, (572.0, 356.0, 300.0), keypoints=("nose", "head"), num_axes=3)
ATTRIBUTES = {"model_uri": "models:/m/1", "model_version": "1", "temperature": 1.25}


@pytest.mark.parametrize(
    ("setup", "shape", "covariance_shape"),
    [(FLAT, (5, 2), (5, 2, 2)), (TALL, (5, 2, 3), (5, 2, 3, 3))],
)
def test_rows_in_any_order_make_a_file(tmp_path: Path, setup, shape, covariance_shape):
    rng = np.random.default_rng(0)
    axes = (5, len(setup.keypoints), setup.num_axes)
    mean = rng.standard_normal(axes).astype(np.float32)
    covariance = rng.standard_normal((*axes, axes[2])).astype(np.float32)
    sizes = rng.uniform(1, 9, (*axes[:2], 3)).astype(np.float32)
    rows = [EventPredictions(mean[r], covariance[r], sizes[r]) for r in (slice(3), slice(3, 5))]
    path = tmp_path / "new" / "out.h5"
    facts = {"region_levels": (0.5, 0.9, 0.95), "locations_mm_NKD": mean * 2}
    with PredictionWriter(path, 5, setup, ATTRIBUTES, **facts) as writer:
        writer.write(3, rows[1])
        assert not path.exists()
        assert not writer.complete
        writer.write(0, rows[0])
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["predictions"], mean.reshape(shape))
        np.testing.assert_array_equal(file["covariance"], covariance.reshape(covariance_shape))
        np.testing.assert_array_equal(file["locations"], 2 * mean.reshape(shape))
        np.testing.assert_array_equal(file["region_size"], sizes.reshape(*shape[:-1], 3))
        np.testing.assert_array_equal(file["region_size"].attrs["levels"], [0.5, 0.9, 0.95])
        assert file["region_size"].attrs["units"] == f"mm^{setup.num_axes}"
        assert file["predictions"].dtype == file["covariance"].dtype == np.float32
        assert file.attrs["units"] == "mm"
        assert file.attrs["origin"] == "arena centre, floor"
        assert file.attrs["keypoints"] == ",".join(setup.keypoints)
        assert file.attrs["model_uri"] == "models:/m/1"
    assert list(path.parent.iterdir()) == [path]
    assert read_attributes(path) == file_attributes(setup, ATTRIBUTES)


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "out.h5"
    path.write_bytes(b"old")

    def fail() -> None:
        with PredictionWriter(path, 2, FLAT, ATTRIBUTES):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_with_missing_rows_is_never_finished(tmp_path):
    shapes = [(1, 1, 2), (1, 1, 2, 2), (1, 1, 3)]
    with (
        pytest.raises(RuntimeError, match="1 of 2 rows not written"),
        PredictionWriter(tmp_path / "out.h5", 2, FLAT, ATTRIBUTES) as writer,
    ):
        writer.write(0, EventPredictions(*(np.zeros(shape) for shape in shapes)))
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError, match="cannot be written"):
        PredictionWriter(tmp_path / "file" / "out.h5", 2, FLAT, ATTRIBUTES)


def test_other_files_have_no_attributes_of_predictions(tmp_path):
    (tmp_path / "text.h5").write_text("text")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file.attrs["units"] = "mm"
    assert read_attributes(tmp_path / "text.h5") is None
    assert read_attributes(tmp_path / "other.h5") is None
