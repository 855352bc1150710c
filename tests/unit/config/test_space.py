import itertools
import json

import pytest
import yaml

from gerbil_tune.config.load import flatten
from gerbil_tune.config.parameters import (
    CategoricalParameter,
    branch_combinations,
    parameter_paths,
)
from gerbil_tune.config.space import (
    SpaceFile,
    boundary_configs,
    default_config,
    explorable,
    load_space,
)
from gerbil_tune.config.study import MedianConfig
from gerbil_tune.errors import ConfigError

BRANCHED = """
name: branched
base: {model: {lags: {hidden: 9}}}
parameters:
  training/epochs: {type: int, low: 2, high: 9, step: 3}
  model/kind:
    type: branch
    branches:
      gcc-net: {model/lags/hidden: {type: int, low: 8, high: 64, log: true}}
      densenet:
        model/growth: {type: int, low: 8, high: 9}
        model/normalization: {type: categorical, choices: [batch, layer, none]}
  optimizer/kind:
    type: branch
    branches:
      adamw: {optimizer/learning_rate: {type: float, low: 1e-4, high: 1e-2, log: true}}
      sgd: {optimizer/momentum: {type: float, low: 0, high: 0.9}}
"""


def test_a_space_file(load):
    space = load(
        """
        name: quick
        study: {trials: 7, metric: val_nll, sampler: {kind: random, seed: 3}, time_budget_s: 1e3}
        base: {training: {epochs: 5}}
        parameters:
          optimizer/learning_rate: {type: float, low: 1e-4, high: 1e-2, log: true}
          model/lags/hidden: {type: int, low: 8, high: 64}
          features/gcc/envelope: {type: categorical, choices: [true, false]}
        points: [{optimizer/learning_rate: 1e-3}, {model/lags/hidden: 64}]
        """
    )
    assert (space.name, space.study.trials, space.study.metric) == ("quick", 7, "val_nll")
    assert (space.study.sampler.kind, space.study.sampler.seed) == ("random", 3)
    assert space.study.time_budget_s == 1000
    rate = space.parameters["optimizer/learning_rate"]
    assert (rate.low, rate.high, rate.log) == (1e-4, 1e-2, True)
    assert space.parameters["features/gcc/envelope"].choices == (True, False)
    assert space.points == ({"optimizer/learning_rate": 1e-3}, {"model/lags/hidden": 64})
    assert default_config(space, "s").training.epochs == 5


def test_the_study_has_defaults(load, one):
    space = load(one("{type: int, low: 1, high: 2}"))
    assert space.study.metric == "val_error_median_mm"
    assert (space.study.sampler.kind, space.study.trial_scheduler.kind) == ("tpe", "asha")
    assert space.points == ()


def test_a_space_survives_json_and_yaml(load):
    space = load(BRANCHED)
    dumped = space.model_dump(mode="json")
    assert SpaceFile.model_validate(json.loads(json.dumps(dumped))) == space
    assert SpaceFile.model_validate(yaml.safe_load(yaml.safe_dump(dumped))) == space


@pytest.mark.parametrize(
    ("choices", "expected"),
    [
        ("[true, 1, 1.5, text, null]", (True, 1, 1.5, "text", None)),
        ("[1e-4, 2]", (1e-4, 2)),
    ],
)
def test_choices_keep_their_types(choices, expected):
    tree = {"type": "categorical", "choices": yaml.safe_load(choices.replace("1e", "1.0e"))}
    parameter = CategoricalParameter.model_validate(tree)
    assert [(type(c), c) for c in parameter.choices] == [(type(c), c) for c in expected]


class TestWhatAConfigAccepts:
    @pytest.mark.parametrize(
        ("parameter", "path", "what"),
        [
            ("{type: int, low: 1, high: 2}", "training/epoch",
             "training/epoch is not a known key; "
             "valid: epochs, global_batch_size, "),
            ("{type: int, low: 1, high: 2}", "trainin/epochs", "trainin is not a known key; valid: name"),
            ("{type: int, low: 0, high: 2}", "training/epochs",
             "training/epochs: input should be greater than 0 (received 0)"),
            ("{type: float, low: 1, high: 2}", "training/epochs",
             "training/epochs: input should be a valid integer (received 1.0)"),
            ("{type: float, low: 0, high: 1.5}", "features/gcc/exponent",
             "features/gcc/exponent: input should be less than or equal to 1 (received 1.5)"),
            ("{type: categorical, choices: [a, b/c]}", "name",
             "name: string should match pattern"),
            ("{type: categorical, choices: [adamw, adam]}", "optimizer/kind",
             "optimizer/kind is 'adam'; valid: adamw, sgd"),
            ("{type: int, low: 1, high: 2}", "training/epochs/x",
             "training/epochs: input should be a valid integer (received {"),
            ("{type: int, low: 1, high: 2}", "training",
             "training must be a section (a mapping), but is 1"),
        ],
    )  # fmt: skip
    def test_a_value_that_no_config_accepts_is_refused_with_the_file(
        self, refusal, parameter, path, what, one
    ):
        message = refusal(one(parameter, path))
        assert message.startswith(f"space.yaml: parameters: {what}")

    def test_the_base_is_checked_on_its_own(self, refusal, one):
        rest = "base: {training: {epocs: 3}}"
        message = refusal(one("{type: int, low: 1, high: 2}", rest=rest))
        assert message.startswith("space.yaml: base: training/epocs is not a known key; valid: ")

    @pytest.mark.parametrize("name", ["2024-01-01", "[x]"])
    def test_a_base_may_hold_anything_that_yaml_knows_and_is_refused(self, refusal, name, one):
        message = refusal(one("{type: int, low: 1, high: 2}", rest=f"base: {{name: {name}}}"))
        assert message.startswith("space.yaml: base: name: input should be a valid string")

    def test_a_rule_that_fails_between_the_ends_is_found(self, refusal, one):
        odd = "{type: int, low: 11, high: 51}"
        message = refusal(one(odd, "model/kernel_size", "base: {model: {kind: densenet}}"))
        assert message == "space.yaml: parameters: model: kernel_size must be odd, but is 12"

    def test_and_a_step_keeps_it(self, load, one):
        odd = "{type: int, low: 11, high: 51, step: 2}"
        load(one(odd, "model/kernel_size", "base: {model: {kind: densenet}}"))

    def test_a_kind_is_searched_without_the_options_of_another(self, refusal):
        text = """
        name: q
        parameters:
          model/kind: {type: categorical, choices: [gcc-net, densenet]}
          model/lags/hidden: {type: int, low: 8, high: 9}
        """
        assert refusal(text).startswith("space.yaml: parameters: model/lags is not a known key")


class TestBranches:
    def test_every_combination_is_built(self, load):
        space = load(BRANCHED)
        combinations = list(branch_combinations(space.parameters, "s"))
        chosen = {(c["model/kind"], c["optimizer/kind"]) for c in combinations}
        kinds = [("gcc-net",), ("densenet",)], [("adamw",), ("sgd",)]
        assert chosen == set(itertools.product(*kinds))
        configs = list(boundary_configs(space, "s"))
        assert {config.model.kind for config in configs} == {"gcc-net", "densenet"}
        assert {config.training.epochs for config in configs} == {2, 5, 8}
        growths = {config.model.growth for config in configs if config.model.kind == "densenet"}
        assert growths == {8, 9}

    def test_paths_inside_branches_are_known(self, load):
        assert list(parameter_paths(load(BRANCHED).parameters)) == [
            "training/epochs",
            "model/kind",
            "model/lags/hidden",
            "model/growth",
            "model/normalization",
            "optimizer/kind",
            "optimizer/learning_rate",
            "optimizer/momentum",
        ]

    def test_branches_nest(self, load):
        space = load(
            """
            name: nested
            parameters:
              scaling/audio/kind:
                type: branch
                branches:
                  event_zscore: {}
                  gain:
                    scaling/audio/gain: {type: float, low: 1, high: 1e4, log: true}
                    optimizer/kind:
                      type: branch
                      branches:
                        sgd: {optimizer/momentum: {type: float, low: 0, high: 0.5}}
                        adamw: {}
            """
        )
        combinations = list(branch_combinations(space.parameters, "s"))
        assert [set(c) for c in combinations] == [
            {"scaling/audio/kind"},
            {"scaling/audio/kind", "scaling/audio/gain", "optimizer/kind", "optimizer/momentum"},
            {"scaling/audio/kind", "scaling/audio/gain", "optimizer/kind"},
        ]

    @pytest.mark.parametrize(
        ("right", "wrong", "what"),
        [
            ("model/growth: {type: int, low: 8", "model/grwth: {type: int, low: 8", "model/grwth is not"),
            ("growth: {type: int, low: 8", "growth: {type: int, low: 0", "model/growth: input should be"),
            ("[batch, layer, none]", "[batch, group]", "model/normalization: input should be"),
            ("sgd: {", "lion: {", "optimizer/kind is 'lion'; valid: adamw, sgd"),
            ("high: 0.9", "high: 1.0", "optimizer/momentum: input should be less than 1"),
        ],
    )  # fmt: skip
    def test_a_wrong_leaf_in_a_branch_is_found_before_anything_runs(
        self, refusal, right, wrong, what
    ):
        assert right in BRANCHED
        message = refusal(BRANCHED.replace(right, wrong))
        assert message.startswith(f"space.yaml: parameters: {what}")

    def test_a_wrong_type_in_a_branch_is_named_by_its_place(self, refusal):
        message = refusal(BRANCHED.replace("type: float, low: 0,", "type: flat, low: 0,"))
        assert message == (
            "space.yaml: parameters/optimizer/kind/branches/sgd/optimizer/momentum/type is 'flat'; "
            "valid: float, int, categorical, branch"
        )

    def test_an_option_of_one_branch_does_not_reach_the_other(self, load):
        for config in boundary_configs(load(BRANCHED), "s"):
            leaves = flatten(config)
            assert ("model/growth" in leaves) == (leaves["model/kind"] == "densenet")

    def test_a_path_in_a_branch_and_outside_it_is_refused(self, refusal):
        text = BRANCHED.replace("model/growth:", "training/epochs:")
        assert refusal(text) == (
            "space.yaml: parameters: training/epochs is searched in the branch densenet of model/kind "
            "and outside it; search it in one place"
        )

    def test_a_path_in_branches_of_two_parameters_is_refused(self, refusal):
        text = BRANCHED.replace("model/lags/hidden:", "optimizer/learning_rate:")
        assert "optimizer/learning_rate is searched in the branch adamw of" in refusal(text)


class TestPoints:
    @pytest.mark.parametrize(
        "point",
        [
            "{}",
            "{training/epochs: 5}",
            "{model/kind: densenet, model/growth: 8, model/normalization: none}",
            "{model/kind: gcc-net, model/lags/hidden: 10, optimizer/kind: sgd, optimizer/momentum: 0}",
        ],
    )
    def test_a_point_sets_what_is_searched(self, load, point):
        assert load(f"{BRANCHED}points: [{point}]").points == (yaml.safe_load(point),)

    @pytest.mark.parametrize(
        ("point", "what"),
        [
            ("{training/epoch: 3}", " sets training/epoch, which is not searched; searched: model/growth"),
            ("{training/epochs: 3}", " sets training/epochs to 3, which the search cannot propose; "
             "valid: whole numbers from 2 to 9 in steps of 3"),
            ("{training/epochs: 2.0}", " sets training/epochs to 2.0, which the search cannot propose"),
            ("{optimizer/kind: adamw, optimizer/learning_rate: 1}",
             " sets optimizer/learning_rate to 1, which the search cannot propose; valid: 0.0001 to 0.01"),
            ("{model/kind: resnet}", " sets model/kind to resnet, which the search cannot propose; "
             "valid: gcc-net, densenet"),
            ("{model/kind: densenet, model/normalization: group}",
             " sets model/normalization to group, which the search cannot propose; "
             "valid: batch, layer, none"),
            ("{model/growth: 8}", " sets model/growth, which exists only in a branch that the point does "
             "not choose; let the point set the branch too"),
            ("{model/kind: gcc-net, model/growth: 8}", " sets model/growth, which exists only in a branch"),
            ("{training/epochs: [5]}", "/training/epochs: must be a number, a string, true, false or "
             "null, but is [5]"),
        ],
    )  # fmt: skip
    def test_a_point_that_nothing_proposes_is_refused(self, refusal, point, what):
        message = refusal(f"{BRANCHED}points: [{{}}, {point}]")
        assert message.startswith(f"space.yaml: points/1{what}")


class TestOverrides:
    def test_they_are_laid_over_the_base(self, load, one):
        text = one("{type: float, low: 0, high: 1}", "features/gcc/exponent", "base: {name: a}")
        config = default_config(load(text, "name=b", "training/epochs=2"), "s")
        assert (config.name, config.training.epochs) == ("b", 2)

    def test_an_unknown_path_is_refused_before_anything_runs(self, refusal, one):
        text = one("{type: int, low: 1, high: 2}")
        message = refusal(text, "training/epoch=3")
        assert message.startswith("space.yaml: base: training/epoch is not a known key; valid: ")

    def test_another_kind_drops_what_the_base_says_of_the_old_one(self, load, one):
        text = one("{type: int, low: 1, high: 2}", rest="base: {model: {lags: {hidden: 3}}}")
        assert default_config(load(text, "model/kind=densenet"), "s").model.kind == "densenet"

    def test_a_mistake_in_one_is_told(self, refusal, one):
        text = one("{type: int, low: 1, high: 2}")
        assert refusal(text, "epochs") == (
            "--set 'epochs' must be path/to/key=value, for example training/epochs=50"
        )


STUDIED = """
name: s
study:
  trials: 7
  sampler: {seed: 3}
  trial_scheduler: {grace_epochs: 5, reduction_factor: 4}
parameters:
  optimizer/learning_rate: {type: float, low: 1.0e-4, high: 1.0e-2}
  training/epochs: {type: int, low: 2, high: 9}
"""


class TestOverridesOfTheStudy:
    def test_they_change_it_and_not_the_base(self, load):
        space = load(STUDIED, "study/constraints/max_gflop_per_event=0.5", "study/trials=9")
        assert (space.study.trials, space.study.constraints.max_gflop_per_event) == (9, 0.5)
        assert space.base.get("study") is None

    def test_a_section_may_be_set_whole(self, load):
        space = load(STUDIED, "study/constraints={max_parameters: 5}")
        assert space.study.constraints.max_parameters == 5

    def test_another_trial_scheduler_drops_the_fields_of_the_old_one(self, load):
        space = load(STUDIED, "study/trial_scheduler/kind=median")
        assert space.study.trial_scheduler == MedianConfig(kind="median")
        space = load(
            STUDIED, "study/trial_scheduler/grace_epochs=2", "study/trial_scheduler/kind=median"
        )
        assert space.study.trial_scheduler.grace_epochs == 2
        assert load(STUDIED, "study/trial_scheduler/kind=none").study.trial_scheduler.kind == "none"

    def test_the_same_one_keeps_them(self, load):
        space = load(STUDIED, "study/trial_scheduler/kind=asha")
        assert space.study.trial_scheduler.grace_epochs == 5

    def test_another_sampler_keeps_the_seed(self, load):
        sampler = load(STUDIED, "study/sampler/kind=random").study.sampler
        assert (sampler.kind, sampler.seed) == ("random", 3)

    @pytest.mark.parametrize(
        ("override", "what"),
        [
            ("study/trial=9", "space.yaml: study/trial is not a known key; valid: metric"),
            ("study/trials=0", "space.yaml: study/trials: input should be greater than 0"),
            ("study/trials/x=1", "--set: study/trials/x cannot be set, for trials is no section"),
            ("study/sampler/kind=best", "space.yaml: study/sampler/kind: input should be 'tpe'"),
            ("study/trial_scheduler/kind=best", "space.yaml: study/trial_scheduler/kind is 'best'"),
        ],
    )
    def test_a_mistake_is_told(self, refusal, override, what):
        assert refusal(STUDIED, override).startswith(what)

    def test_a_study_that_is_no_section_is_refused(self, refusal):
        text = "name: s\nstudy: 3\nparameters: {training/epochs: {type: int, low: 1, high: 2}}"
        expected = "space.yaml: study must be a section (a mapping), but is 3"
        assert refusal(text) == expected
        assert refusal(text, "study/trials=3") == expected


class TestMethodsThatHaveNothingToWorkOn:
    CHOICES = """
name: s
parameters:
  model/kind: {type: branch, branches: {gcc-net: {model/lags/hidden: {type: int, low: 8, high: 9}}}}
"""

    def test_cma_es_without_numbers(self, refusal, load):
        assert "adapts numbers that are searched outside branches" in refusal(
            self.CHOICES, "study/sampler/kind=cmaes"
        )
        load(STUDIED, "study/sampler/kind=cmaes")

    def test_a_population_without_anything_to_explore(self, refusal, load):
        override = "study/trial_scheduler/kind=pbt"
        assert "optimizer/, lr_schedule/, augmentation/" in refusal(self.CHOICES, override)
        assert explorable(load(STUDIED, override)) == ["optimizer/learning_rate"]

    def test_a_branch_is_never_explored_but_what_is_in_it(self, load):
        assert explorable(load(BRANCHED)) == ["optimizer/learning_rate", "optimizer/momentum"]

    def test_a_grid_that_is_too_large(self, refusal, load):
        overrides = ("study/sampler/kind=grid", "study/sampler/grid_points=50000")
        load(STUDIED, overrides[0])
        message = refusal(STUDIED, *overrides)
        assert "the grid has 400,000 points, and more than 100,000 are not searched" in message


def test_a_parameter_fixed_by_set_is_searched_no_more(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text(
        """
name: s
parameters:
  augmentation/mirror_prob: {type: categorical, choices: [0.0, 0.5]}
  optimizer/learning_rate: {type: float, low: 1.0e-4, high: 1.0e-2}
  model/kind:
    type: branch
    branches:
      gcc-net: {model/lags/hidden: {type: int, low: 8, high: 32}}
      densenet: {model/growth: {type: int, low: 4, high: 8}}
points:
  - {augmentation/mirror_prob: 0.5, optimizer/learning_rate: 1.0e-3}
"""
    )
    space = load_space(path, ("augmentation/mirror_prob=0.0", "model/kind=gcc-net"))
    assert set(space.parameters) == {"optimizer/learning_rate", "model/lags/hidden"}
    assert space.points == ({"optimizer/learning_rate": 1e-3},)
    config = default_config(space, "s")
    assert (config.model.kind, config.augmentation.mirror_prob) == ("gcc-net", 0.0)
    with pytest.raises(ConfigError, match="nothing is left to search"):
        load_space(
            path,
            (
                "augmentation/mirror_prob=0.0",
                "optimizer/learning_rate=0.001",
                "model/kind=densenet",
                "model/growth=5",
            ),
        )
