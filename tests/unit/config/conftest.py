import textwrap

import pytest

from gerbil_tune.config.space import load_space
from gerbil_tune.errors import ConfigError


@pytest.fixture
def write_space(tmp_path):
    def write(text):
        path = tmp_path / "space.yaml"
        path.write_text(textwrap.dedent(text))
        return path

    return write


@pytest.fixture
def load(write_space):
    return lambda text, *overrides: load_space(write_space(text), overrides)


@pytest.fixture
def refusal(write_space):
    def refusal(text, *overrides):
        path = write_space(text)
        with pytest.raises(ConfigError) as error:
            load_space(path, overrides)
        message = str(error.value)
        assert "\n" not in message
        return message.replace(str(path), "space.yaml")

    return refusal


@pytest.fixture
def one():
    """A space file with one parameter."""

    def one(parameter, path="training/epochs", rest=""):
        return f"name: q\nparameters:\n  {path}: {parameter}\n{rest}"

    return one
