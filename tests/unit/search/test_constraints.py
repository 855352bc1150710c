import pytest

from gerbil_tune.config.load import compose
from gerbil_tune.config.study import ConstraintsConfig
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.cost import model_cost
from gerbil_tune.search.constraints import violations

SETUP = RecordingSetup(4, 125_000.0, (572.0, 356.0))
CONFIG = compose({"model": {"kind": "densenet"}, "data": {"crop_length": 2000}}, {}, "config")
COST = model_cost(CONFIG, SETUP)


def test_without_limits_everything_is_feasible():
    assert violations(CONFIG, SETUP, ConstraintsConfig()) == ([], "")


def test_a_limit_that_is_just_kept_is_kept():
    limits = ConstraintsConfig(
        max_parameters=COST.parameters,
        max_gflop_per_event=COST.gflop_per_event,
        max_memory_gb=COST.training_bytes / 1e9,
    )
    values, why = violations(CONFIG, SETUP, limits)
    assert values == [0.0, 0.0, 0.0]
    assert why == ""


def test_what_is_exceeded_is_named_and_how_far():
    limits = ConstraintsConfig(
        max_parameters=COST.parameters * 2, max_gflop_per_event=COST.gflop_per_event / 2
    )
    values, why = violations(CONFIG, SETUP, limits)
    assert values == pytest.approx([-0.5, 1.0])
    assert why.startswith(f"it takes {COST.gflop_per_event:.6g} GFLOP an event, above ")
    assert "study/constraints/max_gflop_per_event" in why
    assert "parameters" not in why


def test_several_are_all_named():
    limits = ConstraintsConfig(max_parameters=1000, max_memory_gb=0.001)
    values, why = violations(CONFIG, SETUP, limits)
    assert min(values) > 0
    assert (
        f"{COST.parameters:,} parameters, above study/constraints/max_parameters 1,000 and" in why
    )
    assert "GB of memory" in why


def test_workers_share_the_memory():
    limits = ConstraintsConfig(max_memory_gb=COST.training_bytes / 1e9 * 0.8)
    assert violations(CONFIG, SETUP, limits)[0][0] > 0
    assert violations(CONFIG, SETUP, limits, num_workers=2)[0][0] < 0
