import numpy as np
import pytest

from gerbil_tune.evaluation import figures
from gerbil_tune.evaluation.results import EvaluationResult, MethodResult
from tests.unit.evaluation.methods import gaussian_method

ARENA_MM = (572.0, 366.0)


def evaluation(count: int = 600, axes: int = 2, keypoints: int = 1) -> EvaluationResult:
    rng = np.random.default_rng(0)
    truth = rng.uniform(-0.5, 0.5, (count, keypoints, axes)) * [*ARENA_MM, 100.0][:axes]
    predicted = truth.copy()
    predicted[..., 0] += np.where(truth[..., 0] > 0, 30.0, 10.0)
    covariance = np.broadcast_to(400.0 * np.eye(axes), (*truth.shape, axes))
    names = tuple(f"keypoint_{i}" for i in range(keypoints))
    methods = (
        MethodResult("chance", np.zeros_like(truth)),
        gaussian_method("net <b>", predicted, covariance, truth),
    )
    return EvaluationResult("test.h5", ARENA_MM, names, truth, methods)


def test_error_map_shows_where_the_error_is() -> None:
    heat = figures.error_map(evaluation()).data[0]
    x, z = np.asarray(heat.x), np.asarray(heat.z, dtype=float)

    assert np.nanmedian(z[:, x > 60]) == pytest.approx(30.0)
    assert np.nanmedian(z[:, x < -60]) == pytest.approx(10.0)
    assert np.asarray(heat.customdata).sum() == 600


def test_error_map_leaves_cells_with_few_events_empty() -> None:
    heat = figures.error_map(evaluation(count=40)).data[0]
    counts = np.asarray(heat.customdata)

    assert np.array_equal(np.isnan(np.asarray(heat.z, dtype=float)), counts < 3)


def test_arena_figures_have_equal_scales_and_units() -> None:
    for figure in (figures.error_map(evaluation()), figures.predicted_vs_true(evaluation())):
        assert figure.layout.yaxis.scaleanchor == "x"
        assert "(mm)" in figure.layout.xaxis.title.text
        assert "(mm)" in figure.layout.yaxis.title.text


@pytest.mark.parametrize("axes", [2, 3])
def test_predicted_vs_true_has_a_panel_an_axis(axes: int) -> None:
    figure = figures.predicted_vs_true(evaluation(axes=axes, keypoints=2))
    points = [trace for trace in figure.data if trace.mode == "markers"]

    assert len(points) == axes
    assert len(points[0].x) == 1200
    assert np.asarray(points[1].x) == pytest.approx(np.asarray(points[1].y))


def test_predicted_vs_true_draws_few_enough_points_for_a_browser() -> None:
    figure = figures.predicted_vs_true(evaluation(count=5000))

    assert max(len(trace.x) for trace in figure.data) == 3000


def test_calibration_curve_shows_methods_that_state_uncertainty() -> None:
    figure = figures.calibration_curve(evaluation())
    names = [trace.name for trace in figure.data]

    assert names == ["sampling error", "perfect", "net &lt;b&gt;"]
    assert np.asarray(figure.data[2].y)[[0, -1]] == pytest.approx([0.0, 1.0])


def test_error_cdf_reads_the_median_at_one_half() -> None:
    figure = figures.error_cdf(evaluation())
    network = figure.data[1]
    half = np.searchsorted(np.asarray(network.y), 0.5)

    assert np.asarray(network.x)[half] == pytest.approx(30.0, abs=20.0)
    assert figure.layout.xaxis.title.text == "error (mm)"


def test_an_evaluation_of_no_event_still_draws() -> None:
    empty = evaluation(count=0)

    for draw in (
        figures.error_map,
        figures.predicted_vs_true,
        figures.calibration_curve,
        figures.error_cdf,
    ):
        draw(empty).to_json()
