import math

import pytest
from scipy.stats import qmc

from gerbil_tune.config.load import compose
from gerbil_tune.config.space import SpaceFile
from gerbil_tune.search.quasi_random import quasi_random_point

SPACE = SpaceFile.model_validate(
    {
        "name": "s",
        "parameters": {
            "optimizer/learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True},
            "training/global_batch_size": {"type": "int", "low": 16, "high": 64, "step": 16},
            "model/kind": {
                "type": "branch",
                "branches": {
                    "gcc-net": {"model/lags/hidden": {"type": "int", "low": 8, "high": 32}},
                    "densenet": {"model/growth": {"type": "int", "low": 4, "high": 8}},
                },
            },
        },
    }
)
POINTS = [quasi_random_point(SPACE, index, seed=2) for index in range(128)]


def test_points_depend_on_their_number_and_seed_alone():
    assert quasi_random_point(SPACE, 77, seed=2) == POINTS[77]
    assert quasi_random_point(SPACE, 77, seed=3) != POINTS[77]
    assert len({str(point) for point in POINTS}) == len(POINTS)


def test_they_are_those_of_the_sequence():
    sequence = qmc.Sobol(5, rng=2).random(8)
    for index, shares in enumerate(sequence):
        rate = 1e-4 * (1e-2 / 1e-4) ** shares[0]
        assert POINTS[index]["optimizer/learning_rate"] == pytest.approx(rate)
        assert POINTS[index]["model/kind"] == ("gcc-net" if shares[2] < 0.5 else "densenet")


def test_all_are_valid_configs_of_their_branch():
    for point in POINTS:
        compose({}, point, "point")
        assert ("model/growth" in point) == (point["model/kind"] == "densenet")


def test_every_dimension_is_filled_evenly():
    # Of a power of two of points, each half, quarter, eighth of a dimension holds its share exactly.
    shares = [math.log(point["optimizer/learning_rate"] / 1e-4) / math.log(100) for point in POINTS]
    eighths = [int(share * 8) for share in shares]
    assert [eighths.count(part) for part in range(8)] == [16] * 8
    sizes = [point["training/global_batch_size"] for point in POINTS]
    assert [sizes.count(size) for size in (16, 32, 48, 64)] == [32] * 4
    kinds = [point["model/kind"] for point in POINTS]
    assert kinds.count("gcc-net") == 64
