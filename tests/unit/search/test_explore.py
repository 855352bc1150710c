import pytest

from gerbil_tune.config.space import SpaceFile
from gerbil_tune.config.study import PopulationConfig
from gerbil_tune.search.explore import explore

SPACE = SpaceFile.model_validate(
    {
        "name": "s",
        "parameters": {
            "model/lags/hidden": {"type": "int", "low": 8, "high": 64},
            "augmentation/noise_prob": {"type": "categorical", "choices": [0.0, 0.25, 0.5, 0.75]},
            "augmentation/dropout_microphones": {"type": "int", "low": 1, "high": 9, "step": 2},
            "lr_schedule/warmup_fraction": {"type": "float", "low": 0.0, "high": 0.2},
            "optimizer/kind": {
                "type": "branch",
                "branches": {
                    "adamw": {"optimizer/learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2}},
                    "sgd": {"optimizer/momentum": {"type": "float", "low": 0.0, "high": 0.9}},
                },
            },
        },
    }
)  # fmt: skip
VALUES = {
    "model/lags/hidden": 20,
    "augmentation/noise_prob": 0.25,
    "augmentation/dropout_microphones": 5,
    "lr_schedule/warmup_fraction": 0.1,
    "optimizer/kind": "adamw",
    "optimizer/learning_rate": 1e-3,
}
PERTURBS = PopulationConfig(kind="pbt", factor=1.2, resample_probability=0.0)
RESAMPLES = PopulationConfig(kind="pbt", resample_probability=1.0)


def explored(config, values=VALUES, number=200):
    return [explore(values, SPACE, config, seed) for seed in range(number)]


def taken(results, path):
    return {result[path] for result in results}


def test_numbers_are_multiplied_or_divided_and_choices_move_by_one():
    results = explored(PERTURBS)
    assert taken(results, "optimizer/learning_rate") == {1e-3 * 1.2, 1e-3 / 1.2}
    assert taken(results, "lr_schedule/warmup_fraction") == {0.1 * 1.2, 0.1 / 1.2}
    assert taken(results, "augmentation/dropout_microphones") == {3, 7}
    assert taken(results, "augmentation/noise_prob") == {0.0, 0.5}


def test_nothing_leaves_its_range():
    at_the_end = {
        **VALUES,
        "augmentation/noise_prob": 0.75,
        "augmentation/dropout_microphones": 9,
        "optimizer/learning_rate": 1e-2,
    }
    results = explored(PERTURBS, at_the_end)
    assert taken(results, "augmentation/noise_prob") == {0.5}
    assert taken(results, "augmentation/dropout_microphones") == {7, 9}
    assert taken(results, "optimizer/learning_rate") == {1e-2, 1e-2 / 1.2}


@pytest.mark.parametrize("config", [PERTURBS, RESAMPLES])
def test_the_network_and_the_branches_stay(config):
    for result in explored(config):
        assert result.keys() == VALUES.keys()
        assert result["model/lags/hidden"] == 20
        assert result["optimizer/kind"] == "adamw"


def test_drawing_anew_reaches_the_whole_range():
    results = explored(RESAMPLES)
    assert taken(results, "augmentation/noise_prob") == {0.0, 0.25, 0.5, 0.75}
    assert taken(results, "augmentation/dropout_microphones") == {1, 3, 5, 7, 9}
    rates = taken(results, "optimizer/learning_rate")
    assert min(rates) < 1e-3
    assert max(rates) > 9e-3


def test_the_probability_of_drawing_anew_is_kept():
    config = PopulationConfig(kind="pbt", resample_probability=0.25)
    results = explored(config, number=2000)
    perturbed = sum(r["optimizer/learning_rate"] in (1.2e-3, 1e-3 / 1.2) for r in results)
    assert perturbed / len(results) == pytest.approx(0.75, abs=0.04)


def test_the_seed_decides():
    assert explore(VALUES, SPACE, RESAMPLES, 7) == explore(VALUES, SPACE, RESAMPLES, 7)
