"""A study's best model in the registry, and what is said at the end."""

from collections.abc import Callable
from pathlib import Path

import optuna
import pytest

from gerbil_tune.cli.champion import print_summary, register_best
from gerbil_tune.tracking.model_registry import list_models


@pytest.mark.slow
def test_the_best_is_registered_once_and_its_alias_is_not_forgotten(
    make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    study = optuna.create_study()
    bundle, mlflow_store = make_bundle(), f"sqlite:///{tmp_path}/mlflow.db"
    register_best(study, bundle, mlflow_store, None)
    register_best(study, bundle, mlflow_store, None)
    (row,) = list_models(mlflow_store)
    assert row.aliases == ("champion",)
    assert study.user_attrs["champion_uri"] == f"models:/{row.name}/1"
    assert study.user_attrs["is_champion"]

    study.set_user_attr("registered_bundle", "")  # another model is better now
    register_best(study, bundle, mlflow_store, None)
    assert not study.user_attrs["is_champion"], "there is nothing to compare the two on"
    study.set_user_attr("champion_uri", f"models:/{row.name}/1")
    study.set_user_attr("alias_is_set", False)  # killed between the version and its alias
    register_best(study, bundle, mlflow_store, None)
    aliases = {row.version: row.aliases for row in list_models(mlflow_store)}
    assert aliases == {2: ("candidate",), 1: ("champion",)}


def test_a_candidate_is_not_called_champion(capsys: pytest.CaptureFixture[str]) -> None:
    study = optuna.create_study()
    study.set_user_attr("champion_uri", "models:/locator/3")
    study.set_user_attr("is_champion", False)
    print_summary(study, Path("bundle"), Path("report.html"), "sqlite:///mlflow.db")
    said = capsys.readouterr().out
    assert "candidate: models:/locator/3" in said
    assert "gerbil-tune promote locator 3 " in said
    assert "gerbil-tune predict --model models:/locator/3" in said


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("postgresql://lab:secret@host/db", "mlflow ui --backend-store-uri postgresql://lab:***@"),
        ("https://lab:secret@mlflow.lab", "open https://lab:***@mlflow.lab "),
    ],
)
def test_the_summary_shows_no_password(
    uri: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    study = optuna.create_study()
    study.set_user_attr("champion_uri", "models:/locator/3")
    print_summary(study, Path("bundle"), Path("report.html"), uri)
    said = capsys.readouterr().out
    assert shown in said
    assert "secret" not in said
    assert "gerbil-tune predict --model models:/locator@champion" in said
