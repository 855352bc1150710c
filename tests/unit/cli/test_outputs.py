"""Commands do not write over somebody's recordings."""

import pytest
from typer.testing import CliRunner

from gerbil_tune.cli.app import app
from gerbil_tune.errors import ConfigError


def run(*words):
    done = CliRunner().invoke(app, [str(word) for word in words])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def test_a_picture_is_a_png(make_event_file):
    path = make_event_file()
    content = path.read_bytes()
    with pytest.raises(
        ConfigError, match=r"must name a picture ending in .png, but is .*events.h5"
    ):
        run("data", "show", path, "-o", path)
    assert path.read_bytes() == content


def test_an_evaluation_replaces_nothing_but_an_evaluation(make_event_file, make_bundle):
    path = make_event_file()
    content = path.read_bytes()
    with pytest.raises(ConfigError, match=r"holds no evaluation, so it is not replaced"):
        run("evaluate", "--model", make_bundle(), "--data", path, "-o", path)
    assert path.read_bytes() == content
    output = path.with_name("evaluation.h5")
    for _ in range(2):
        assert (
            run("evaluate", "--model", make_bundle(), "--data", path, "-o", output).exit_code == 0
        )


def test_locations_that_are_no_numbers_are_not_evaluated(make_event_file, make_bundle):
    locations = [[0.0, 0.0]] * 11 + [[float("nan"), 0.0]]
    path = make_event_file(locations=locations)
    with pytest.raises(ValueError, match="not finite"):
        run("evaluate", "--model", make_bundle(), "--data", path)
