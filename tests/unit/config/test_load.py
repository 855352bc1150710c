import json
import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gerbil_tune.config.load import (
    compose,
    flatten,
    load_experiment,
    parse_overrides,
    read_tree,
)
from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.errors import ConfigError

finite = st.floats(allow_nan=False, allow_infinity=False)


@pytest.fixture
def write(tmp_path):
    def write(text, name="c.yaml"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def refusal(function, *arguments):
    with pytest.raises(ConfigError) as error:
        function(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_no_file_means_the_defaults():
    assert load_experiment(None) == ExperimentConfig()


def test_an_empty_file_means_the_defaults(write):
    assert load_experiment(write("# nothing yet\n")) == ExperimentConfig()


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "1.e-4", "1.0e-4", ".1e-3", "+1e-4", "0.0001"])
def test_a_number_with_an_exponent_is_a_number(write, text):
    value = read_tree(write(f"rate: {text}"))["rate"]
    assert value == pytest.approx(1e-4)
    assert isinstance(value, float)


@pytest.mark.parametrize("text", ["1e", "e4", "v1e4", "'1e-4'", "1e-4x", "0x1e4"])
def test_what_only_looks_like_an_exponent_is_none(write, text):
    assert not isinstance(read_tree(write(f"rate: {text}"))["rate"], float)


@given(finite)
def test_any_number_that_python_prints_is_read_back(value):
    assert parse_overrides([f"x={value!r}"])["x"] == value


def test_json5_has_comments_and_trailing_commas(write):
    text = "{training: {epochs: 3,}, /* fast */ optimizer: {learning_rate: 1e-4}, // all\n}"
    config = load_experiment(write(text, "c.json5"))
    assert config.training.epochs == 3
    assert config.optimizer.learning_rate == 1e-4


def test_the_same_config_in_yaml_and_json(write):
    tree = {"model": {"kind": "densenet", "growth": 8}, "data": {"keypoints": ["nose", "head"]}}
    as_yaml = load_experiment(write(yaml.safe_dump(tree), "c.yaml"))
    assert as_yaml == load_experiment(write(json.dumps(tree), "c.json"))
    assert as_yaml.data.keypoints == ("nose", "head")


def test_a_byte_order_mark_is_no_part_of_the_config(write):
    assert (
        load_experiment(write(b"\xef\xbb\xbf{training: {epochs: 3}}", "c.json")).training.epochs
        == 3
    )


def test_merge_keys_may_be_overridden(write):
    text = "x: &x {epochs: 3, seed: 1}\ntraining: {<<: *x, epochs: 5}"
    assert read_tree(write(text))["training"] == {"epochs": 5, "seed": 1}


@pytest.mark.parametrize(
    ("text", "name", "reason"),
    [
        ("a: 1\nb: {c: 1, c: 2}", "c.yaml", "the key 'c' stands twice"),
        ('{"a": 1, "a": 2}', "c.json", "Duplicate key"),
        ("a: [1, 2", "c.yaml", "expected ',' or ']'"),
        ("{a: }", "c.json5", "Unexpected"),
        ("{[1, 2]: 3}", "c.yaml", "found unhashable key"),
        ("a: !!python/object:os.system x", "c.yaml", "could not determine a constructor"),
        ("a: 2024-13-45", "c.yaml", "month must be in 1..12"),
        ("\x00", "c.yaml", "special characters are not allowed"),
    ],
)
def test_a_file_that_does_not_parse_is_told_in_one_sentence(write, text, name, reason):
    path = write(text, name)
    message = refusal(read_tree, path)
    assert message.startswith(f"{path} cannot be parsed: ")
    assert reason in message


def test_a_file_that_cannot_be_read_is_told_in_one_sentence(tmp_path, write):
    missing = tmp_path / "missing.yaml"
    assert refusal(read_tree, missing) == f"{missing} cannot be read: No such file or directory"
    assert refusal(read_tree, tmp_path) == f"{tmp_path} cannot be read: Is a directory"
    assert "cannot be read: 'utf-8' codec" in refusal(read_tree, write(b"a: \xff"))


@pytest.mark.parametrize(("text", "what"), [("- 1", "list"), ("just text", "str"), ("3", "int")])
def test_a_file_without_a_mapping_is_refused(write, text, what):
    path = write(text)
    assert refusal(read_tree, path) == f"{path} must hold a mapping, but holds {what}"


def test_a_mistake_is_told_with_the_file(write):
    path = write("training: {epochs: true}")
    assert refusal(load_experiment, path) == (
        f"{path}: training/epochs: input should be a valid integer (received true)"
    )
    assert refusal(load_experiment, None, ["training/epochs=x"]).startswith(
        "config: training/epochs"
    )


class TestOverrides:
    def test_values_are_yaml(self):
        config = load_experiment(
            None,
            [
                "training/epochs=3",
                "optimizer/learning_rate=1e-4",
                "training/clip_norm=null",
                "features/gcc/envelope=true",
                "data/keypoints=[nose, head]",
                "name=a=b".replace("=b", ""),
            ],
        )
        assert config.training.epochs == 3
        assert config.optimizer.learning_rate == 1e-4
        assert config.training.clip_norm is None
        assert config.features.gcc.envelope is True
        assert config.data.keypoints == ("nose", "head")
        assert config.name == "a"

    def test_a_value_may_hold_an_equals_sign(self):
        assert parse_overrides(["name=a=b"]) == {"name": "a=b"}

    def test_the_command_line_wins_over_the_file_and_the_last_over_the_first(self, write):
        path = write("training: {epochs: 3, seed: 4}")
        config = load_experiment(path, ["training/epochs=5", "training/epochs=6"])
        assert (config.training.epochs, config.training.seed) == (6, 4)

    def test_a_whole_section_can_be_set(self):
        config = load_experiment(None, ["model={kind: densenet, growth: 7}"])
        assert config.model.growth == 7

    def test_options_without_a_kind_get_the_default_kind(self, write):
        config = load_experiment(write("model: {lags: {hidden: 7}}"), ["optimizer/weight_decay=0"])
        assert (config.model.kind, config.model.lags.hidden) == ("gcc-net", 7)
        assert (config.optimizer.kind, config.optimizer.weight_decay) == ("adamw", 0)

    @pytest.mark.parametrize("kind", ["", "kind: gcc-net, "])
    def test_another_kind_drops_the_options_of_the_old_one(self, write, kind):
        path = write(f"model: {{{kind}lags: {{hidden: 7}}}}")
        assert load_experiment(path, ["model/kind=densenet"]).model.kind == "densenet"

    def test_the_same_kind_keeps_its_options(self, write):
        path = write("model: {lags: {hidden: 7}}")
        assert load_experiment(path, ["model/kind=gcc-net"]).model.lags.hidden == 7

    @pytest.mark.parametrize("order", [1, -1])
    def test_a_kind_and_its_options_in_any_order(self, write, order):
        overrides = ["model/growth=7", "model/kind=densenet"][::order]
        config = load_experiment(write("model: {kind: corrnet, hidden: 3}"), overrides)
        assert (config.model.kind, config.model.growth) == ("densenet", 7)

    @pytest.mark.parametrize("override", ["epochs", "=3", ""])
    def test_without_an_equals_sign_or_a_path_it_is_refused(self, override):
        assert refusal(load_experiment, None, [override]) == (
            f"--set {override!r} must be path/to/key=value, for example training/epochs=50"
        )

    @pytest.mark.parametrize("value", ["{", "[1", "2024-13-45", "'"])
    def test_a_value_that_is_no_yaml_is_refused(self, value):
        override = f"training/epochs={value}"
        message = refusal(load_experiment, None, [override])
        assert message.startswith(f"--set {override!r} cannot be parsed as YAML: ")

    def test_a_path_through_a_value_is_refused(self, write):
        path = write("training: {epochs: 3}")
        assert refusal(load_experiment, path, ["training/epochs/x=3"]) == (
            "--set: training/epochs/x cannot be set, for training/epochs is 3, not a section"
        )

    @pytest.mark.parametrize(
        ("override", "what"),
        [
            ("training/epoch=3", "training/epoch is not a known key; valid: epochs, "),
            ("trainin/epochs=3", "trainin is not a known key; valid: name, data, "),
            ("training//epochs=3", "training/ is not a known key; valid: epochs, "),
            ("training=3", "training must be a section (a mapping), but is 3"),
            ("model/kind=oracle", "model/kind is 'oracle'; valid: densenet, "),
            ("model/kind=null", "model/kind is 'None'; valid: densenet, "),
        ],
    )
    def test_an_unknown_path_is_refused(self, override, what):
        assert refusal(load_experiment, None, [override]).startswith(f"config: {what}")


class TestCompose:
    def test_kinds_come_first_whatever_the_order(self):
        base = {"model": {"kind": "corrnet", "hidden": 3}}
        values = {"model/growth": 7, "model/kind": "densenet", "training/epochs": 2}
        config = compose(base, values, "trial 1")
        assert (config.model.kind, config.model.growth) == ("densenet", 7)
        assert config == compose(base, dict(reversed(values.items())), "trial 1")

    def test_the_base_is_left_alone(self):
        base = {"model": {"kind": "corrnet", "hidden": 3}, "training": {"epochs": 5}}
        before = json.dumps(base)
        compose(base, {"model/kind": "densenet", "training/epochs": 2}, "trial 1")
        assert json.dumps(base) == before

    def test_a_base_without_a_kind_is_of_the_default_kind(self):
        base = {"model": {"lags": {"hidden": 7}}}
        assert compose(base, {}, "s").model.lags.hidden == 7
        assert compose(base, {"model/kind": "densenet"}, "s").model.kind == "densenet"

    def test_mistakes_are_told_with_their_source(self):
        assert refusal(compose, {}, {"training/epochs": 0}, "trial 7").startswith(
            "trial 7: training/epochs: input should be greater than 0"
        )
        assert refusal(compose, {"training": 1}, {"training/epochs": 2}, "trial 7") == (
            "trial 7: training/epochs cannot be set, for training is 1, not a section"
        )


class TestFlatten:
    def test_every_leaf_has_a_slash_path(self):
        leaves = flatten(load_experiment(None, ["data/keypoints=[nose, head]"]))
        assert leaves["training/epochs"] == 20
        assert leaves["model/kind"] == "gcc-net"
        assert leaves["data/keypoints"] == '["nose", "head"]'
        assert leaves["optimizer/betas"] == "[0.9, 0.999]"
        assert leaves["data/arena_mm"] is None

    def test_only_scalars_come_out(self):
        for value in flatten(ExperimentConfig()).values():
            assert value is None or isinstance(value, str | int | float | bool)
            assert not isinstance(value, float) or math.isfinite(value)

    @pytest.mark.parametrize("kind", ["densenet", "simplenet", "corrnet", "gcc-net"])
    def test_a_config_is_rebuilt_from_its_leaves(self, kind):
        config = load_experiment(None, [f"model/kind={kind}", "data/keypoints=[nose]"])
        leaves = flatten(config)
        lists = {k: json.loads(v) for k, v in leaves.items() if str(v).startswith("[")}
        assert compose({}, {**leaves, **lists}, "leaves") == config

    def test_the_order_does_not_depend_on_the_file(self, write):
        one = load_experiment(write("training: {seed: 1, epochs: 2}\nname: a"))
        other = load_experiment(write("name: a\ntraining: {epochs: 2, seed: 1}"))
        assert list(flatten(one).items()) == list(flatten(other).items())
