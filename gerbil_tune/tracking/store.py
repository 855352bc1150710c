"""Where MLflow keeps its data, and a client for it that stays quiet.

MLflow is imported here and nowhere else but in the functions of this package, late: it costs a second.
"""

import contextlib
import functools
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from gerbil_tune.errors import ConfigError, LaunchError
from gerbil_tune.tracking.tracker import StoreAwayError
from gerbil_tune.urls import without_password

if TYPE_CHECKING:
    from mlflow import MlflowClient

_SQLITE = "sqlite:///"
_DATABASES = ("postgresql", "mysql", "mssql")
_SERVERS = ("http", "https", "databricks")

_REASON_LENGTH = 160
_TOO_MANY_REQUESTS = 429
_SERVER_ERRORS = 500
_WRONG_DATABASE = ("unable to open database", "readonly database", "not a database")
"""What SQLite says where waiting does not help; MLflow reports it like a lock."""
_WHERE_IT_AROSE = "(raised as a result of"
"""How SQLAlchemy begins some errors, before what happened."""

_SETTINGS = {
    # No progress bars, links or advertisements between the lines of a search.
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # A study sends nothing to third parties, and compute nodes often have no route to them.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # A dead server is noticed in seconds; what could not be written is kept and tried again.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}


def default_tracking_uri(folder: Path) -> str:
    """Choose the tracking store: ``MLFLOW_TRACKING_URI`` if set, else ``mlflow.db`` in a folder.

    Raises:
        ConfigError: If the variable names a kind of store that is not supported.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if uri:
        return absolute_tracking_uri(uri)
    return f"{_SQLITE}{(folder.resolve() / 'mlflow.db').as_posix()}"


def absolute_tracking_uri(uri: str) -> str:
    """Make a tracking URI independent of the working directory (Ray changes it for each trial).

    Raises:
        ConfigError: If it is neither sqlite, another database, nor a server.
    """
    scheme = urlsplit(uri).scheme.split("+")[0]
    if uri.startswith(_SQLITE) and len(uri) > len(_SQLITE):
        return f"{_SQLITE}{Path(uri.removeprefix(_SQLITE)).absolute().as_posix()}"
    if scheme in _DATABASES or scheme in _SERVERS or uri == "databricks":
        return uri
    raise ConfigError(
        f"MLflow tracking URI {without_password(uri)!r} is not supported: it must be "
        "sqlite:////absolute/path/mlflow.db, a postgresql, mysql or mssql database or the http(s) "
        "address of a server (plain folders are a kind of store that MLflow no longer develops); correct "
        "MLFLOW_TRACKING_URI"
    )


def sqlite_file(uri: str) -> Path | None:
    """Return the database file of a sqlite tracking URI, None for other stores."""
    return Path(uri.removeprefix(_SQLITE)) if uri.startswith(_SQLITE) else None


def default_artifact_location(uri: str) -> str | None:
    """Choose where the artifacts of a new experiment go.

    Returns:
        ``mlartifacts`` beside a sqlite file or, for other databases, in the working directory, as a
        ``file:`` URI; None for servers, which decide themselves.
    """
    if urlsplit(uri).scheme.split("+")[0] in _SERVERS or uri == "databricks":
        return None
    database = sqlite_file(uri)
    folder = Path.cwd() if database is None else database.parent
    return (folder.resolve() / "mlartifacts").as_uri()


def connect(uri: str) -> "MlflowClient":
    """Return a client that reads and writes one store, without touching MLflow's global state.

    Raises:
        StoreAwayError: If the store cannot be opened for now.
        LaunchError: If it is wrong in itself.
    """
    load_mlflow()
    from mlflow import MlflowClient

    database = sqlite_file(uri)
    with store_errors(uri, "opened"):
        if database is not None:
            database.parent.mkdir(parents=True, exist_ok=True)
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


@contextlib.contextmanager
def store_errors(uri: str, what: str = "used") -> Iterator[None]:
    """Say in one sentence what a store does not do, and tell what passes from what does not.

    Raises:
        StoreAwayError: If the store cannot be used for now.
        LaunchError: If it, or what is asked of it, is wrong in itself.
    """
    load_mlflow()
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, mlflow_error(), OSError) as error:
        kind, advice = (
            LaunchError,
            ("check that it is one and can be written, or set MLFLOW_TRACKING_URI to another"),
        )
        if is_away(error):
            kind, advice = StoreAwayError, "it may be locked, restarting or out of reach"
        raise kind(
            f"the MLflow store {without_password(uri)} cannot be {what} ({first_line(error)}); {advice}"
        ) from error


def find_or_create_experiment(
    client: "MlflowClient", name: str, artifact_location: str | None, uri: str, advice: str = ""
) -> str:
    """Id of the experiment of a name.

    Args:
        client: Of the store.
        name: Of the experiment.
        artifact_location: Where a new one keeps its files; None: where the store says.
        uri: Of the store, for messages.
        advice: What else may be done where it was deleted, such as ``or choose another --name``.

    Raises:
        LaunchError: If it was deleted.
    """
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return str(client.create_experiment(name, artifact_location))
        except mlflow_error() as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            # Another process was faster.
            experiment = client.get_experiment_by_name(name)
    if experiment.lifecycle_stage != "active":
        otherwise = f" {advice}" if advice else ""
        raise LaunchError(
            f"the MLflow experiment {name!r} in {without_password(uri)} was deleted; restore it with "
            f"`mlflow experiments restore -x {experiment.experiment_id}`{otherwise}"
        )
    return str(experiment.experiment_id)


def is_away(error: Exception) -> bool:
    """Tell a store that fails for now from one, or from a call, that is wrong in itself."""
    from sqlalchemy.exc import OperationalError

    if isinstance(error, mlflow_error()):
        status = error.get_http_status_code()
        passes = status >= _SERVER_ERRORS or status == _TOO_MANY_REQUESTS
    else:
        passes = isinstance(error, OperationalError | OSError)
    wrong = isinstance(error, FileNotFoundError | NotADirectoryError | PermissionError)
    return passes and not wrong and not any(text in str(error) for text in _WRONG_DATABASE)


@contextlib.contextmanager
def known_warnings_ignored() -> Iterator[None]:
    """Ignore the warnings that MLflow raises about itself and that nobody here can act on."""
    with warnings.catch_warnings():
        # MLflow's tables use a loader that SQLAlchemy 2.1 deprecates.
        warnings.filterwarnings("ignore", message="The ``noload`` loader strategy")
        # MLflow's own type hints, at import.
        warnings.filterwarnings("ignore", message=".*Any type hint is inferred as AnyType")
        yield


def mlflow_error() -> Any:
    """The exception that MLflow raises, for an ``except`` clause: evaluated, and imported, only there."""
    load_mlflow()
    from mlflow.exceptions import MlflowException

    return MlflowException


@functools.cache
def load_mlflow() -> None:
    """Import MLflow so that it prints, warns and sends nothing; later imports of it are plain."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    with known_warnings_ignored():
        import mlflow.pyfunc
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
    if "MLFLOW_LOGGING_LEVEL" not in os.environ:
        logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # It logs a traceback for each error that it raises as well.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    # It tells each of its retries; what comes of them is told by whoever called.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)


def first_line(error: Exception) -> str:
    """What an error of MLflow says first, short enough for a sentence, and without passwords."""
    lines = (str(error).strip() or type(error).__name__).splitlines()
    said = [line for line in lines if not line.startswith(_WHERE_IT_AROSE)] or lines
    text = without_password(said[0])
    return text if len(text) <= _REASON_LENGTH else text[: _REASON_LENGTH - 3] + "..."
