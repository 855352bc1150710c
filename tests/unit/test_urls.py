import pytest

from gerbil_tune.urls import without_password


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql+psycopg2://lab:s3cret@db:5432/x", "postgresql+psycopg2://lab:***@db:5432/x"),
        ("mysql://lab:pa/s@s@db/x", "mysql://lab:***@db/x"),
        ("https://lab:s3cret@mlflow.lab:5000/", "https://lab:***@mlflow.lab:5000/"),
        ("http://:s3cret@mlflow.lab", "http://:***@mlflow.lab"),
        (
            "postgresql://db/x?user=lab&password=s3cret&a=1",
            "postgresql://db/x?user=lab&password=***&a=1",
        ),
        ("https://h/x?access_token=s3cret", "https://h/x?access_token=***"),
        (
            "request to http://lab:s3cret@h:1/a failed (s)",
            "request to http://lab:***@h:1/a failed (s)",
        ),
    ],
)
def test_passwords_are_hidden(url: str, shown: str) -> None:
    assert without_password(url) == shown
    assert without_password(shown) == shown


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:////data/a:b@c/optuna.db",
        "http://mlflow.lab:5000",
        "https://lab@mlflow.lab:5000/models:/gerbil@champion",
        "http://mlflow.lab:5000/models:/gerbil@champion",
        "postgresql://lab@db:5432/x",
        "models:/gerbil@champion",
        "",
    ],
)
def test_all_else_stays(url: str) -> None:
    assert without_password(url) == url
