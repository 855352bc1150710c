"""The champion, those before it, and the way back; in a real store."""

from collections.abc import Callable
from pathlib import Path

import pytest

from gerbil_tune.cli.registry import register_bundle_folder
from gerbil_tune.errors import ModelNotFoundError
from gerbil_tune.tracking.champions import champion_version, make_champion, roll_back
from gerbil_tune.tracking.model_registry import list_models, set_alias
from gerbil_tune.tracking.store import connect

pytestmark = pytest.mark.slow
NAME = "champions-test"


@pytest.fixture(scope="module")
def uri(make_bundle: Callable[..., Path], mlflow_store: str) -> str:
    """A store with three versions of a model."""
    bundle = make_bundle()
    for version in (1, 2, 3):
        assert register_bundle_folder(bundle, mlflow_store, name=NAME) == (NAME, version)
    return mlflow_store


def test_champions_follow_each_other_and_come_back(uri: str) -> None:
    assert champion_version(NAME, uri) is None
    with pytest.raises(ModelNotFoundError, match="has had no champion before"):
        roll_back(NAME, uri)
    set_alias(NAME, "candidate", 2, uri)
    for version in (1, 2, 3):
        make_champion(NAME, version, uri)
        assert champion_version(NAME, uri) == version
    assert [row.aliases for row in list_models(uri) if row.name == NAME] == [("champion",), (), ()]
    assert (roll_back(NAME, uri), champion_version(NAME, uri)) == (2, 2)
    make_champion(NAME, 3, uri)
    connect(uri).delete_model_version(NAME, "2")
    assert roll_back(NAME, uri) == 1, "version 2 has gone"
    set_alias(NAME, "champion", 3, uri)  # by hand
    assert roll_back(NAME, uri) == 1
    with pytest.raises(ModelNotFoundError, match="no champion before version 1"):
        roll_back(NAME, uri)


def test_a_model_that_there_is_not(uri: str) -> None:
    assert champion_version("nobody", uri) is None
    with pytest.raises(ModelNotFoundError, match="gerbil-tune models lists"):
        roll_back("nobody", uri)
