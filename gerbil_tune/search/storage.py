"""Where a study is kept: its Optuna storage, its file ``study.yaml`` and its lock.

The storage is the only truth about a study. These are the attributes that this program writes there; a trial
has parameters and values besides.

of a trial     config, metrics, best_metrics, curve, seconds, reason, reason_kind, mishaps, accumulate_steps,
               paused_at, cleared_epoch, parent, root, donor, replaces, warm_start, warm_start_study
of the study   study_id, space, metric, objectives, data_fingerprint, validation_fingerprint, spent_s, runs,
               environment, champion, bundle, champion_uri, registered_bundle, refits, ensemble, selection
"""

import logging
import os
import uuid
from pathlib import Path

import optuna
import yaml
from filelock import FileLock, Timeout
from optuna.trial import FrozenTrial

from gerbil_tune.config.load import read_tree
from gerbil_tune.config.space import SpaceFile
from gerbil_tune.errors import ConfigError
from gerbil_tune.urls import without_password

STUDY_FILE = "study.yaml"
STORAGE_VARIABLE = "GERBIL_TUNE_STORAGE"
_LOCK_FILE = ".lock"
_HIDDEN = "***"
"""In a URL as ``study.yaml`` keeps it: where its password was."""
_BUSY_TIMEOUT_S = 60.0
"""A report may be reading while the search writes."""


def storage_url(study_dir: Path) -> str:
    """Return the study's own SQLite storage, as an absolute URL."""
    return f"sqlite:///{(study_dir.resolve() / 'optuna.db').as_posix()}"


def study_lock(study_dir: Path, timeout_s: float = 0.0) -> FileLock:
    """The lock that a search holds on its study; the system frees it when the process ends, however."""
    return FileLock(study_dir / _LOCK_FILE, timeout=timeout_s)


def is_running(study_dir: Path) -> bool:
    """Whether a search holds the study just now."""
    if not (study_dir / _LOCK_FILE).exists():
        return False
    try:
        with study_lock(study_dir):
            return False
    except Timeout:
        return True


def write_study_file(study_dir: Path, name: str, storage: str, space: SpaceFile) -> None:
    """Write the resolved study beside its results, without the storage's password."""
    content = {
        "name": name,
        "storage": without_password(storage),
        "space": space.model_dump(mode="json"),
    }
    path = study_dir / STUDY_FILE
    temporary = path.with_name(path.name + ".partial")
    temporary.write_text(yaml.safe_dump(content, sort_keys=False))
    temporary.replace(path)


def stored_study(study_dir: Path) -> optuna.Study:
    """Open the study of a folder for reading; nothing is created.

    A storage with a password is given by the environment variable ``GERBIL_TUNE_STORAGE``.

    Raises:
        ConfigError: If its storage cannot be reached, or holds none.
    """
    path = study_dir / STUDY_FILE
    facts = read_tree(path)
    missing = [key for key in ("name", "storage") if key not in facts]
    if missing:
        raise ConfigError(
            f"{path}: {missing[0]} is missing, so it is not the file of a study; run gerbil-tune search again"
        )
    name, url = str(facts["name"]), str(facts["storage"])
    given = os.environ.get(STORAGE_VARIABLE, url)
    if without_password(given) == url:
        url = given
    _check_file(url, path)
    try:
        return optuna.load_study(study_name=name, storage=_connect(url))
    except ConfigError:
        raise
    except KeyError:
        raise ConfigError(
            f"{path}: no study {name!r} is stored in {without_password(url)}; run gerbil-tune search again"
        ) from None
    except Exception as error:  # the storage's driver decides the type
        raise _cannot_open(url, error) from None


def _check_file(url: str, study_file: Path) -> None:
    """Refuse a SQLite file that is not there, before a connection makes an empty one of it."""
    kind, _, name = url.partition(":///")
    name = name.partition("?")[0]
    in_a_file = kind.startswith("sqlite") and name and not name.startswith((":memory:", "file:"))
    if in_a_file and not Path(name).is_file():
        raise ConfigError(
            f"{study_file}: the study's storage {name} is not there; put the file back, or name its new "
            "place under storage in that file, or run gerbil-tune search again to begin anew"
        )


def open_study(
    storage: str | optuna.storages.BaseStorage, name: str, space: SpaceFile
) -> optuna.Study:
    """Create a study, or open one that searched the same space for the same objectives.

    Raises:
        ConfigError: If it searched another, or the storage cannot be opened.
    """
    objectives = space.study.objectives
    try:
        study = optuna.create_study(
            storage=_connect(storage) if isinstance(storage, str) else storage,
            study_name=name,
            directions=["minimize"] * len(objectives),
            load_if_exists=True,
        )
    except ConfigError:
        raise
    except Exception as error:  # the storage's driver decides the type
        raise _cannot_open(str(storage), error) from None
    searched = space.model_dump(mode="json", include={"base", "parameters"})
    known = study.user_attrs
    if "space" not in known:
        study.set_user_attr("study_id", uuid.uuid4().hex)
        study.set_user_attr("metric", objectives[0])
        study.set_user_attr("objectives", list(objectives))
        study.set_user_attr("space", searched)
        return study
    begun_for = tuple(known.get("objectives", [known.get("metric")]))
    if known["space"] != searched or begun_for != objectives:
        other = "another space" if known["space"] != searched else "other objectives"
        raise ConfigError(
            f"the study {name!r} already holds {len(study.trials)} trials of {other}; "
            "give the new search another --name, or undo the change in the space file"
        )
    if "study_id" not in known:
        study.set_user_attr("study_id", uuid.uuid4().hex)
    return study


def curve_of(trial: FrozenTrial) -> dict[int, float]:
    """The metric after each epoch; where there are several objectives Optuna keeps none itself."""
    if trial.intermediate_values:
        return dict(trial.intermediate_values)
    return {int(epoch): value for epoch, value in trial.user_attrs.get("curve", {}).items()}


def is_own(trial: FrozenTrial) -> bool:
    """Whether a trial was run by this study, not taken from an earlier one."""
    return "warm_start" not in trial.user_attrs


def _connect(url: str) -> optuna.storages.RDBStorage:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    patient = {"connect_args": {"timeout": _BUSY_TIMEOUT_S}} if url.startswith("sqlite") else {}
    try:
        return optuna.storages.RDBStorage(_with_driver(url), engine_kwargs=patient)
    except Exception as error:  # the storage's driver decides the type
        raise _cannot_open(url, error) from None


def _with_driver(url: str) -> str:
    """Name the driver of ``gerbil_tune[server]``; which one SQLAlchemy takes depends on its version."""
    return url.replace("postgresql://", "postgresql+psycopg2://", 1)


def _cannot_open(url: str, error: Exception) -> ConfigError:
    """What to say of a storage that cannot be reached or read, without its password."""
    reason = without_password(" ".join(str(error).split()))
    hint = f"; set {STORAGE_VARIABLE} to the URL with its password" if _HIDDEN in url else ""
    return ConfigError(
        f"the study's storage {without_password(url)} cannot be opened: {reason}{hint}"
    )
