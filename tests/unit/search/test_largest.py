"""The largest configuration against all configurations at the ends of the ranges."""

import itertools
from pathlib import Path
from typing import Any

import pytest

from gerbil_tune.config.load import compose
from gerbil_tune.config.parameters import branch_combinations
from gerbil_tune.config.space import SpaceFile, boundary_configs, load_space
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.cost import ModelCost, model_cost
from gerbil_tune.search import largest as largest_module
from gerbil_tune.search.largest import largest_training_bytes
from gerbil_tune.search.quasi_random import quasi_random_point

MICROPHONES_MM = tuple((x, y, 360.0) for x in (-286.0, 286.0) for y in (-178.0, 178.0))
SETUP = RecordingSetup(4, 125_000.0, (572.0, 356.0), MICROPHONES_MM)
SPACES = Path(__file__).parents[3] / "search_spaces"


def make_space(parameters: dict[str, Any], **study: object) -> SpaceFile:
    base = {"data": {"crop_length": 1024}}
    return SpaceFile.model_validate(
        {"name": "s", "study": study, "base": base, "parameters": parameters}
    )


def training_bytes(space: SpaceFile, values: dict[str, Any], num_workers: int = 1) -> int:
    return model_cost(compose(space.base, values, "c"), SETUP, num_workers).training_bytes


BATCH = {"type": "categorical", "choices": [16, 64]}
BRANCHES = {
    "training/global_batch_size": BATCH,
    "data/crop_length": {"type": "int", "low": 512, "high": 2048, "step": 1536},
    "scaling/audio/kind": {
        "type": "branch",
        "branches": {
            "gain": {"scaling/audio/gain": {"type": "float", "low": 1.0, "high": 9.0}},
            "event_zscore": {},
        },
    },
    "optimizer/kind": {
        "type": "branch",
        "branches": {
            "sgd": {"optimizer/momentum": {"type": "categorical", "choices": [0.9]}},
            "adamw": {"optimizer/weight_decay": {"type": "categorical", "choices": [0.1]}},
        },
    },
    "model/kind": {
        "type": "branch",
        "branches": {
            "gcc-net": {
                "model/lags/hidden": {"type": "int", "low": 8, "high": 256},
            },
            "densenet": {
                "model/growth": {"type": "int", "low": 4, "high": 24},
                "model/normalization": {"type": "categorical", "choices": ["layer", "none"]},
            },
        },
    },
}


@pytest.mark.parametrize("num_workers", [1, 4])
def test_it_is_the_largest_of_all_combinations(num_workers: int) -> None:
    space = make_space(BRANCHES)
    # What neither changes a shape nor an optimizer would only be counted again.
    combinations = [
        {path: ends for path, ends in probes.items() if not path.startswith("scaling/")}
        for probes in branch_combinations(space.parameters, "s")
        if probes["scaling/audio/kind"] == ("gain",)
    ]
    every = [
        training_bytes(space, dict(zip(probes, ends, strict=True)), num_workers)
        for probes in combinations
        for ends in itertools.product(*probes.values())
    ]
    largest = largest_training_bytes(space, SETUP, num_workers, "s")
    assert largest == max(every)
    one_at_a_time = [model_cost(c, SETUP, num_workers) for c in boundary_configs(space, "s")]
    assert largest > 1.5 * max(cost.training_bytes for cost in one_at_a_time)


def test_the_limit_on_memory_caps_it() -> None:
    free = largest_training_bytes(make_space(BRANCHES), SETUP, 1, "s")
    for limit_gb, expected in ((free / 2e9, free / 2), (free / 1e8, free)):
        limited = make_space(BRANCHES, constraints={"max_memory_gb": limit_gb})
        assert largest_training_bytes(limited, SETUP, 1, "s") == pytest.approx(expected)


def test_everything_together_with_few_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each cost takes some hundredths of a second; the space has 81 parameters in 162 kinds of branches."""
    asked = []

    def counted(*arguments: Any) -> ModelCost:
        asked.append(arguments)
        return model_cost(*arguments)

    monkeypatch.setattr(largest_module, "model_cost", counted)
    space = load_space(SPACES / "full.yaml")
    largest = largest_training_bytes(space, SETUP, 1, "full")
    assert len(asked) < 400
    assert largest == pytest.approx(19.82e9, rel=0.01)
    for index in range(12):
        assert training_bytes(space, quasi_random_point(space, index, 0)) <= largest
