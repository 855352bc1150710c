"""The same numbers as CSV, Parquet and NPZ."""

import csv
from pathlib import Path

import h5py
import numpy as np
import pytest
from pyarrow import parquet

from gerbil_tune.errors import LaunchError
from gerbil_tune.inference.tables import write_table
from gerbil_tune.inference.writer import write_predictions
from tests.unit.inference.test_writer import ATTRIBUTES, FLAT, LEVELS, TALL, make_predictions


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """Five events of two files, of which the second one has no prediction."""
    found = make_predictions(FLAT)
    found.mean_mm_NKD[1] = np.nan
    extra = {
        "file_index": np.array([0, 0, 1, 1, 1]),
        "files": np.array(["a.h5", "b, c.h5"], dtype=h5py.string_dtype()),
        "locations": np.ones((5, 2), np.float32),
    }
    path = tmp_path / "out.h5"
    options = {"region_levels": LEVELS, "extra": extra}
    write_predictions(path, [(0, found)], 5, FLAT, ATTRIBUTES, **options)
    return path


def test_a_csv_has_a_row_an_event_and_nothing_for_what_is_not_a_number(flat: Path) -> None:
    path = write_table(flat, "csv")
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert list(rows[0]) == [
        "file",
        "event",
        "x_mm",
        "y_mm",
        "covariance_xx_mm2",
        "covariance_xy_mm2",
        "covariance_yy_mm2",
        "region_area_50_mm2",
        "region_area_90_mm2",
        "region_area_95_mm2",
        "in_region_50",
        "in_region_90",
        "in_region_95",
        "confidence",
        "nll",
        "true_x_mm",
        "true_y_mm",
        "flags",
    ]
    assert [row["file"] for row in rows] == ["a.h5"] * 2 + ["b, c.h5"] * 3
    assert rows[1]["x_mm"] == ""
    with h5py.File(flat) as file:
        assert float(rows[2]["y_mm"]) == pytest.approx(file["predictions"][2, 1], rel=1e-6)
        assert float(rows[4]["covariance_xy_mm2"]) == pytest.approx(
            file["covariance"][4, 0, 1], rel=1e-6
        )
    assert {entry.name for entry in flat.parent.iterdir()} == {"out.h5", "out.csv"}


def test_keypoints_and_axes_are_in_the_names_of_columns(tmp_path: Path) -> None:
    found = make_predictions(TALL)
    source = tmp_path / "out.h5"
    options = {"region_levels": LEVELS, "extra": {"event_index": np.array([7, 5, 9, 1, 0])}}
    write_predictions(source, [(0, found)], 5, TALL, ATTRIBUTES, **options)
    table = parquet.read_table(write_table(source, "parquet"))
    assert table["event"].to_pylist() == [7, 5, 9, 1, 0]
    for name, values in {
        "nose_x_mm": found.mean_mm_NKD[:, 0, 0],
        "head_z_mm": found.mean_mm_NKD[:, 1, 2],
        "head_covariance_xz_mm2": found.covariance_mm2_NKDD[:, 1, 0, 2],
        "nose_region_volume_90_mm3": found.region_size_NKR[:, 0, 1],
        "head_nll": found.nll_NK[:, 1],
    }.items():
        np.testing.assert_array_equal(table[name].to_numpy(), values)
    assert table.schema.metadata[b"model_uri"] == b"models:/m/1"


def test_an_npz_has_the_datasets_and_attributes_as_they_are(flat: Path) -> None:
    with np.load(write_table(flat, "npz"), allow_pickle=False) as stored, h5py.File(flat) as file:
        assert set(stored) == {*file, *file.attrs}
        np.testing.assert_array_equal(stored["covariance"], file["covariance"])
        assert stored["files"].tolist() == ["a.h5", "b, c.h5"]
        assert str(stored["model_uri"]) == "models:/m/1"


def test_a_table_that_cannot_be_written_is_one_sentence(flat: Path) -> None:
    (flat.parent / "out.csv").mkdir()
    with pytest.raises(LaunchError, match=r"out\.csv: cannot be written .* are in .*out\.h5"):
        write_table(flat, "csv")
