from pathlib import Path

import h5py
import numpy as np
import pytest

from gerbil_tune.errors import DatasetError
from gerbil_tune.evaluation.results import EvaluationResult, MethodResult, TableRow, render_table
from tests.unit.evaluation.methods import gaussian_method


def result(
    count: int = 50, keypoints: tuple[str, ...] = ("nose",), axes: int = 2
) -> EvaluationResult:
    rng = np.random.default_rng(0)
    truth = rng.uniform(-150, 150, (count, len(keypoints), axes)).astype(np.float32)
    predicted = truth + rng.normal(scale=10, size=truth.shape).astype(np.float32)
    covariance = np.broadcast_to(100 * np.eye(axes, dtype=np.float32), (*truth.shape, axes))
    methods = (
        gaussian_method("models:/locator/3", predicted, covariance, truth),
        MethodResult("chance", np.zeros_like(truth)),
    )
    return EvaluationResult("/data/test.h5", (572.0, 366.0), keypoints, truth, methods)


def test_rows_say_what_each_method_can_say() -> None:
    network, chance = result(4000).rows()

    assert network.mean_mm == pytest.approx(10 * np.sqrt(np.pi / 2), rel=0.03)
    assert network.median_mm == pytest.approx(10 * np.sqrt(2 * np.log(2)), rel=0.03)
    assert network.p90_mm == pytest.approx(10 * np.sqrt(2 * np.log(10)), rel=0.03)
    assert network.nll == pytest.approx(np.log(2 * np.pi) + np.log(100) + 1, abs=0.1)
    assert network.calibration_error == pytest.approx(0.0, abs=0.02)
    assert network.coverage_95 == pytest.approx(0.95, abs=0.02)
    assert (chance.nll, chance.calibration_error, chance.coverage_95) == (None, None, None)


@pytest.mark.parametrize(("keypoints", "axes"), [(("nose",), 2), (("nose", "tail", "ear"), 3)])
def test_a_file_gives_back_what_was_saved(
    tmp_path: Path, keypoints: tuple[str, ...], axes: int
) -> None:
    path = tmp_path / "deep" / "evaluation.h5"
    saved = result(7, keypoints, axes)
    saved.save(path)
    loaded = EvaluationResult.load(path)

    assert (loaded.data_path, loaded.arena_mm, loaded.keypoints) == (
        saved.data_path,
        saved.arena_mm,
        saved.keypoints,
    )
    assert np.array_equal(loaded.locations_mm_NKD, saved.locations_mm_NKD)
    assert loaded.rows() == saved.rows()
    assert loaded.methods[1].covariance_mm2_NKDD is None
    assert [entry.name for entry in path.parent.iterdir()] == ["evaluation.h5"]


def test_many_methods_keep_their_order(tmp_path: Path) -> None:
    one = result(3)
    methods = tuple(MethodResult(f"m{i}", one.locations_mm_NKD) for i in range(12))
    EvaluationResult("", (1.0, 1.0), ("nose",), one.locations_mm_NKD, methods).save(
        tmp_path / "e.h5"
    )

    loaded = EvaluationResult.load(tmp_path / "e.h5")
    assert [method.name for method in loaded.methods] == [f"m{i}" for i in range(12)]


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "evaluation.h5"
    result().save(path)
    broken = result()
    object.__setattr__(broken, "data_path", object())

    with pytest.raises(TypeError):
        broken.save(path)
    assert EvaluationResult.load(path).data_path == "/data/test.h5"
    assert len(list(tmp_path.iterdir())) == 1


def test_other_files_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "calls.h5", "w") as file:
        file["audio"] = np.zeros(3)
    (tmp_path / "text.h5").write_text("hello")

    with pytest.raises(DatasetError, match="not an evaluation of this program"):
        EvaluationResult.load(tmp_path / "calls.h5")
    for name in ("text.h5", "missing.h5"):
        with pytest.raises(DatasetError, match=f"{name}: cannot be read"):
            EvaluationResult.load(tmp_path / name)


def test_shapes_must_fit() -> None:
    truth = np.zeros((4, 1, 2))
    arena, nose = (1.0, 1.0), ("nose",)

    with pytest.raises(DatasetError, match=r"'net' predicts the shape \(4, 2, 2\)"):
        EvaluationResult("", arena, nose, truth, (MethodResult("net", np.zeros((4, 2, 2))),))
    with pytest.raises(DatasetError, match=r"need \(4, 1, 2, 2\)"):
        EvaluationResult("", arena, nose, truth, (MethodResult("net", truth, np.zeros((4, 1, 2))),))
    with pytest.raises(DatasetError, match="1 keypoints nose"):
        EvaluationResult("", arena, nose, np.zeros((4, 2)), (MethodResult("net", truth),))
    with pytest.raises(DatasetError, match="different names"):
        EvaluationResult(
            "", arena, nose, truth, (MethodResult("a", truth), MethodResult("a", truth))
        )


def test_table_is_aligned_and_leaves_out_what_is_not_stated() -> None:
    rows = [
        TableRow("models:/locator/3", 20.44, 17.4, 40.0, 8.251, 0.0551, 0.919),
        TableRow("chance", 181.7, 182.0, 279.2, None, None, None),
    ]

    assert render_table(rows).splitlines() == [
        "method             mean (mm)  median (mm)  90th percentile (mm)  NLL (nats)  calibration error"
        "  95 % coverage",
        "-----------------  ---------  -----------  --------------------  ----------  -----------------"
        "  -------------",
        "models:/locator/3       20.4         17.4                  40.0        8.25              0.055"
        "          91.9%",
        "chance                 181.7        182.0                 279.2           -                  -"
        "              -",
    ]
