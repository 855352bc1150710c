import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gerbil_tune.config.parameters import (
    BranchParameter,
    CategoricalParameter,
    FloatParameter,
    IntParameter,
)
from gerbil_tune.config.space import load_space
from gerbil_tune.errors import ConfigError


class TestParameters:
    @pytest.mark.parametrize(
        ("parameter", "what"),
        [
            ("{type: flot, low: 1, high: 2}", "/type is 'flot'; valid: float, int, categorical, branch"),
            ("{low: 1, high: 2}", "/type is missing"),
            ("3", " must be a section (a mapping), but is 3"),
            ("{type: int, low: 1}", "/high is missing"),
            ("{type: int, low: 1, high: 2, base: 3}", "/base is not a known key; "
             "valid: type, low, high, log, step"),
            ("{type: int, low: 2, high: 2}", ": low must be below high, but low is 2 and high is 2"),
            ("{type: int, low: 3, high: 2}", ": low must be below high, but low is 3 and high is 2"),
            ("{type: int, low: 0, high: 2, log: true}",
             ": low must be above 0 where log is true, but is 0"),
            ("{type: int, low: 1, high: 9, log: true, step: 2}",
             ": step must be 1 where log is true, but is 2"),
            ("{type: int, low: 1, high: 9, step: 0}",
             "/step: input should be greater than 0 (received 0)"),
            ("{type: int, low: 1.5, high: 2}",
             "/low: input should be a valid integer (received 1.5)"),
            ("{type: int, low: true, high: 2}",
             "/low: input should be a valid integer (received true)"),
            ("{type: int, low: 1, high: 2, log: 1}",
             "/log: input should be a valid boolean (received 1)"),
            ("{type: float, low: x, high: 2}",
             '/low: input should be a valid number (received "x")'),
            ("{type: float, low: true, high: 2}",
             "/low: input should be a valid number (received true)"),
            ("{type: float, low: .nan, high: 2}",
             "/low: input should be a finite number (received NaN)"),
            ("{type: float, low: 1, high: .inf}",
             "/high: input should be a finite number (received Infinity)"),
            ("{type: float, low: 2.5, high: 1}",
             ": low must be below high, but low is 2.5 and high is 1.0"),
            ("{type: float, low: 0, high: 1, log: true}",
             ": low must be above 0 where log is true, but is 0.0"),
            ("{type: float, low: 0, high: 1, step: 1}",
             "/step is not a known key; valid: type, low, high, log"),
            ("{type: categorical, choices: []}",
             "/choices: list should have at least 1 item, not 0 (received [])"),
            ("{type: categorical, choices: 3}",
             "/choices: input should be a valid list (received 3)"),
            ("{type: branch, branches: {}}",
             "/branches: dictionary should have at least 1 item, not 0 (received {})"),
        ],
    )  # fmt: skip
    def test_a_wrong_parameter_is_refused(self, refusal, parameter, what, one):
        assert refusal(one(parameter)) == f"space.yaml: parameters/training/epochs{what}"

    @pytest.mark.parametrize(
        ("choice", "what"),
        [
            ("[1, 2]", "must be a number, a string, true, false or null, but is [1, 2]"),
            ("{a: 1}", "must be a number, a string, true, false or null, but is {'a': 1}"),
            (".nan", "a number must be finite, but is nan"),
        ],
    )
    def test_a_choice_is_one_value(self, refusal, choice, what, one):
        message = refusal(one(f"{{type: categorical, choices: [{choice}, 3]}}"))
        assert message == f"space.yaml: parameters/training/epochs/choices/0: {what}"

    @given(st.integers(-50, 50), st.integers(1, 60), st.integers(1, 9))
    def test_the_probes_of_whole_numbers_can_be_proposed(self, low, width, step):
        parameter = IntParameter(type="int", low=low, high=low + width, step=step)
        probes = parameter.probes()
        proposals = list(range(low, low + width + 1, step))
        assert set(probes) <= set(proposals)
        assert {proposals[0], proposals[-1]} <= set(probes)
        assert {value % 2 for value in probes} == {value % 2 for value in proposals}
        assert all(parameter.allows(value) for value in proposals)
        assert not parameter.allows(low - step)
        assert not parameter.allows(proposals[-1] + step)

    def test_what_a_parameter_can_propose(self):
        real = FloatParameter(type="float", low=0.5, high=2)
        assert all(real.allows(value) for value in (0.5, 1, 2.0))
        assert not any(real.allows(value) for value in (0.4, 2.1, True, "1", None))
        whole = IntParameter(type="int", low=0, high=2)
        assert not any(whole.allows(value) for value in (1.0, True, "1", None, 3))
        choice = CategoricalParameter(type="categorical", choices=("a", None))
        assert choice.allows("a")
        assert choice.allows(None)
        assert not choice.allows("b")

    @given(
        st.sampled_from(
            [
                FloatParameter(type="float", low=-1, high=3),
                FloatParameter(type="float", low=1e-4, high=1e2, log=True),
                IntParameter(type="int", low=-3, high=9, step=4),
                IntParameter(type="int", low=1, high=50, log=True),
            ]
        ),
        st.floats(0, 1),
    )
    def test_shares_of_a_range_and_back(self, parameter, share):
        value = parameter.at(share)
        assert parameter.allows(value)
        assert parameter.at(parameter.share(value)) == pytest.approx(value)

    def test_whole_numbers_have_equal_room(self):
        parameter = IntParameter(type="int", low=2, high=10, step=3)  # 2, 5, 8
        values = [parameter.at((i + 0.5) / 300) for i in range(300)]
        assert [values.count(value) for value in (2, 5, 8)] == [100, 100, 100]
        log = IntParameter(type="int", low=1, high=4, log=True)
        assert log.at(math.log(1.4 / 0.5) / math.log(4.5 / 0.5)) == 1

    def test_choices_have_equal_room(self):
        parameter = CategoricalParameter(type="categorical", choices=("a", "b"))
        assert [parameter.at(share) for share in (0, 0.49, 0.5, 1)] == ["a", "a", "b", "b"]
        branch = BranchParameter(type="branch", branches={"x": {}, "y": {}})
        assert [branch.at(share) for share in (0.2, 0.7)] == ["x", "y"]

    @pytest.mark.parametrize(
        ("parameter", "expected"),
        [
            (FloatParameter(type="float", low=0, high=1), (0, 0.5, 1)),
            (FloatParameter(type="float", low=1, high=100, log=True), (1, pytest.approx(10), 100)),
            (IntParameter(type="int", low=2, high=11, step=4), (2, 6, 10)),
            (IntParameter(type="int", low=2, high=3), (2, 3)),
            (IntParameter(type="int", low=1, high=100, log=True), (1, 10, 100)),
            (CategoricalParameter(type="categorical", choices=("a", "b", "c", "d")), tuple("abcd")),
        ],
    )
    def test_a_grid_has_both_ends(self, parameter, expected):
        assert parameter.grid(3) == expected


class TestTheFile:
    @pytest.mark.parametrize(
        ("text", "what"),
        [
            ("parameters: {training/epochs: {type: int, low: 1, high: 2}}", "name is missing"),
            ("name: q", "parameters is missing"),
            ("name: q\nparameters: {}", "parameters: dictionary should have at least 1 item"),
            ("name: a b\n", "name: string should match pattern"),
            ("name: q\nparamters: {}", "paramters is not a known key; "
             "valid: name, study, base, parameters, points"),
            ("name: q\nstudy: {trial: 3}\n", "study/trial is not a known key; valid: metric, further"),
            ("name: q\nstudy: {metric: loss}\n", "study/metric: input should be 'val_error_median_mm', "),
            ("name: q\nstudy: {trials: 0}\n", "study/trials: input should be greater than 0 (received 0)"),
            ("name: q\nstudy: {sampler: {seed: -1}}\n", "study/sampler/seed: input should be greater"),
            ("name: q\nstudy: {sampler: {kind: grad}}\n",
             "study/sampler/kind: input should be 'tpe', 'gp', 'cmaes', 'random', 'grid' or 'quasi-random' "
             '(received "grad")'),
            ("name: q\nstudy: {trial_scheduler: {reduction_factor: 1}}\n",
             "study/trial_scheduler/reduction_factor: input should be greater than or equal to 2"),
            ("name: q\nbase: [1]\n", "base must be a section (a mapping), but is [1]"),
            ("name: q\npoints: {a: 1}\n", "points: input should be a valid list"),
        ],
    )  # fmt: skip
    def test_a_wrong_key_is_named(self, refusal, text, what):
        if "parameters" not in text and text != "name: q":
            text += "\nparameters: {training/epochs: {type: int, low: 1, high: 2}}"
        assert refusal(text).startswith(f"space.yaml: {what}")

    def test_a_parameter_that_stands_twice_is_refused(self, refusal, one):
        text = one(
            "{type: int, low: 1, high: 2}", rest="  training/epochs: {type: int, low: 3, high: 4}"
        )
        assert "the key 'training/epochs' stands twice" in refusal(text)

    def test_a_missing_file_is_told(self, tmp_path):
        with pytest.raises(ConfigError, match=r"none\.yaml cannot be read: No such file"):
            load_space(tmp_path / "none.yaml")
