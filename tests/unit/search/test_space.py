"""Sampling a space file with a real Optuna study."""

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from gerbil_tune.config.load import compose
from gerbil_tune.config.space import SpaceFile
from gerbil_tune.errors import ConfigError
from gerbil_tune.search.space import named_distributions, named_point, sample, values_by_path

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
                    "corrnet": {"model/lags/hidden": {"type": "int", "low": 64, "high": 128}},
                    "densenet": {"model/growth": {"type": "int", "low": 4, "high": 8}},
                },
            },
            # The last step is 25: Optuna warns of a range that its steps do not divide.
            "training/epochs": {"type": "int", "low": 10, "high": 28, "step": 5},
        },
    }
)


def make_study() -> optuna.Study:
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))


def test_every_sample_is_a_valid_config_of_its_branch() -> None:
    study = make_study()
    kinds = set()
    for _ in range(60):
        trial = study.ask()
        values = sample(trial, SPACE.parameters)
        config = compose(SPACE.base, values, "sample")
        kinds.add(config.model.kind)
        assert config.model.kind == values["model/kind"]
        assert config.training.global_batch_size in (16, 32, 48, 64)
        assert config.training.epochs in (10, 15, 20, 25)
        assert ("model/growth" in values) == (config.model.kind == "densenet")
        if config.model.kind == "corrnet":
            assert 64 <= config.model.lags.hidden <= 128
        study.tell(trial, 0.0)
    assert kinds == {"gcc-net", "corrnet", "densenet"}


def test_names_carry_the_branch_so_that_ranges_never_mix() -> None:
    study = make_study()
    for _ in range(40):
        trial = study.ask()
        sample(trial, SPACE.parameters)
        study.tell(trial, 0.0)
    distributions = {}
    for trial in study.trials:
        for name, distribution in trial.distributions.items():
            assert distributions.setdefault(name, distribution) == distribution
    assert distributions["optimizer/learning_rate"] == FloatDistribution(1e-4, 1e-2, log=True)
    assert distributions["model/lags/hidden@gcc-net"] == IntDistribution(8, 32)
    assert distributions["model/lags/hidden@corrnet"] == IntDistribution(64, 128)
    assert distributions["model/kind"] == CategoricalDistribution(
        ("gcc-net", "corrnet", "densenet")
    )


def test_distributions_are_those_that_sampling_defines() -> None:
    study = make_study()
    for _ in range(20):
        trial = study.ask()
        values = sample(trial, SPACE.parameters)
        assert named_distributions(values, SPACE.parameters) == trial.distributions
        assert values_by_path(trial.params) == values


def test_sampling_a_trial_again_returns_what_it_has() -> None:
    study = make_study()
    trial = study.ask()
    first = sample(trial, SPACE.parameters)
    again = optuna.Trial(study, trial._trial_id)
    assert sample(again, SPACE.parameters) == first


def test_a_point_is_named_along_its_branches() -> None:
    point = {"model/kind": "corrnet", "model/lags/hidden": 70, "optimizer/learning_rate": 1e-3}
    assert named_point(point, SPACE.parameters) == {
        "model/kind": "corrnet",
        "model/lags/hidden@corrnet": 70,
        "optimizer/learning_rate": 1e-3,
    }
    study = make_study()
    study.enqueue_trial(named_point(point, SPACE.parameters))
    values = sample(study.ask(), SPACE.parameters)
    assert {key: values[key] for key in point} == point


def test_a_point_in_a_branch_it_does_not_choose_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"model/lags/hidden exists only in a branch"):
        named_point({"model/lags/hidden": 70}, SPACE.parameters)
