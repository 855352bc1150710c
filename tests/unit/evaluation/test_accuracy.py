import math

import numpy as np
import pytest

from gerbil_tune.evaluation.accuracy import errors_mm, summarize_errors


def test_error_is_the_distance_averaged_over_keypoints() -> None:
    truth = np.zeros((2, 2, 2))
    predicted = np.array([[[3.0, 4.0], [0.0, 0.0]], [[0.0, 1.0], [1.0, 0.0]]])

    assert errors_mm(predicted, truth) == pytest.approx([2.5, 1.0])


def test_error_in_three_dimensions() -> None:
    assert errors_mm(np.array([[[1.0, 2.0, 2.0]]]), np.zeros((1, 1, 3))) == pytest.approx([3.0])


def test_float32_predictions_lose_nothing() -> None:
    truth = np.full((1, 1, 2), 286.0, np.float32)

    assert errors_mm(truth + np.float32(0.5), truth) == pytest.approx(
        [0.5 * math.sqrt(2)], rel=1e-9
    )


def test_summary_of_known_errors() -> None:
    summary = summarize_errors(np.arange(101.0))

    assert (summary.mean_mm, summary.median_mm, summary.p90_mm) == pytest.approx((50.0, 50.0, 90.0))


def test_summary_of_nothing_is_nan() -> None:
    assert math.isnan(summarize_errors(np.zeros(0)).median_mm)
