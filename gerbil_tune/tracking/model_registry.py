"""Bundles as versions of registered models, and the way back from a reference to a folder."""

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import yaml

from gerbil_tune.errors import ConfigError, ModelNotFoundError
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.tracking.logged_model import create_run, log_model
from gerbil_tune.tracking.store import (
    connect,
    first_line,
    load_mlflow,
    mlflow_error,
    sqlite_file,
    store_errors,
)
from gerbil_tune.urls import without_password

if TYPE_CHECKING:
    from mlflow import MlflowClient

METRIC_TAG_PREFIX = "metric/"
MODEL_FILES = ("config.json", "ensemble.json")
"""A folder with one of them is a bundle, of one network or of several."""
_SCHEME = "models:/"
_REFERENCE = re.compile(r"models:/(?P<name>[^/@]+)(?:/(?P<version>\d+|latest)|@(?P<alias>[^/@]+))")


@dataclass(frozen=True)
class ResolvedModel:
    """A model that a reference led to.

    Attributes:
        path: Folder of its bundle, on this machine.
        uri: ``models:/<name>/<version>``, or the folder of a bundle that is not from a registry.
        version: Version in the registry, or None.
    """

    path: Path
    uri: str
    version: str | None = None


@dataclass(frozen=True)
class ModelVersionRow:
    """One version of a registered model, as ``gerbil-tune models`` lists it.

    Attributes:
        name: Of the registered model.
        version: Counted from 1.
        aliases: Such as ``champion``.
        created: When it was registered, UTC.
        run_id: The MLflow run that made it.
        metrics: Main metrics at registration, units in the names.
        tags: All other tags.
    """

    name: str
    version: int
    aliases: tuple[str, ...]
    created: datetime
    run_id: str | None
    metrics: dict[str, float]
    tags: dict[str, str]


def register_bundle(
    bundle_dir: Path,
    *,
    model_name: str,
    run_id: str | None,
    setup: RecordingSetup,
    pyfunc_file: Path,
    tags: Mapping[str, str],
    tracking_uri: str,
    card: str = "",
    metrics: Mapping[str, float] | None = None,
) -> int:
    """Copy a bundle into the store and register it as the next version of a model.

    Args:
        bundle_dir: The bundle; it is copied whole.
        model_name: Registered model; it is created if there is none of this name.
        run_id: The run that trained it; None opens a run for it in an experiment of the model's name.
        setup: Its channel count is the only free dimension that the signature fixes.
        pyfunc_file: The Python file that MLflow runs to load the model (``gerbil_tune/pyfunc.py``).
        tags: Labels of the version.
        tracking_uri: The store.
        card: Markdown, the version's description; see ``model_card``.
        metrics: Main metrics, stored as tags of the version.

    Returns:
        The version.

    Raises:
        ModelNotFoundError: If there is no bundle in the folder.
        StoreAwayError: If the store cannot be used for now.
        LaunchError: If it is wrong in itself.
    """
    if not _is_bundle(bundle_dir):
        raise ModelNotFoundError(
            f"{bundle_dir} is not a model bundle: it has no config.json; name a folder such as "
            "trained_models/gerbil-locator/00001"
        )
    all_tags = {METRIC_TAG_PREFIX + name: repr(float(v)) for name, v in (metrics or {}).items()}
    all_tags |= tags
    with store_errors(tracking_uri, f"used to register {bundle_dir}"):
        client = connect(tracking_uri)
        run_id = run_id or create_run(client, model_name, bundle_dir, tracking_uri)
        model_id, location = log_model(
            client, run_id, model_name, bundle_dir, setup, pyfunc_file, card
        )
        _create_registered_model(client, model_name)
        version = client.create_model_version(
            model_name,
            source=location,
            run_id=run_id,
            tags=all_tags,
            description=card,
            model_id=model_id,
        )
        # The tag by which the user interface links the run's model to its version.
        link = json.dumps([{"name": model_name, "version": str(version.version)}])
        client.set_logged_model_tags(model_id, {"mlflow.modelVersions": link})
    return int(version.version)


def set_alias(model_name: str, alias: str, version: int, tracking_uri: str) -> None:
    """Let an alias such as ``champion`` point to a version, and to no other.

    Raises:
        ModelNotFoundError: If there is no such version.
        ConfigError: If MLflow does not allow the alias.
    """
    rows = list_models(tracking_uri)
    if not any(row.name == model_name and row.version == version for row in rows):
        raise ModelNotFoundError(
            f"model {model_name!r} has no version {version} in {without_password(tracking_uri)}; "
            f"{_describe(rows)}"
        )
    with store_errors(tracking_uri, f"asked to set the alias {alias!r}"):
        try:
            connect(tracking_uri).set_registered_model_alias(model_name, alias, str(version))
        except mlflow_error() as error:
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            raise ConfigError(
                f"alias {alias!r} cannot be set ({first_line(error)}); use letters, digits, "
                "'_' and '-', for example champion"
            ) from error


def list_models(tracking_uri: str) -> list[ModelVersionRow]:
    """List all versions of all registered models, by name, the newest first.

    Raises:
        LaunchError: If the store cannot be used.
    """
    database = sqlite_file(tracking_uri)
    if database is not None and not database.exists():
        return []
    with store_errors(tracking_uri, "asked for its models"):
        client = connect(tracking_uri)
        models = {model.name: model for model in _pages(client.search_registered_models)}
        rows = [_row(version, models) for version in _pages(client.search_model_versions)]
    return sorted(rows, key=lambda row: (row.name, -row.version))


def resolve_model(
    reference: str, tracking_uri: str, cache_dir: Path | None = None
) -> ResolvedModel:
    """Find the bundle that a reference means; torch is not needed.

    Args:
        reference: ``models:/<name>@<alias>``, ``models:/<name>/<version>``, ``models:/<name>/latest``,
            or a bundle's folder, its config.json or its ensemble.json.
        tracking_uri: The store whose registry is asked.
        cache_dir: Where models of a remote store are kept; default: ``gerbil_tune`` in the user's cache.

    Raises:
        ModelNotFoundError: If it leads nowhere; the message says what exists.
        LaunchError: If the store cannot be used.
    """
    if not reference.startswith(_SCHEME):
        return _resolve_folder(reference, tracking_uri)
    match = _REFERENCE.fullmatch(reference)
    rows = list_models(tracking_uri)
    row = None if match is None else _find_row(rows, **match.groupdict())
    if row is None:
        form = "" if match else " (the forms are models:/NAME@ALIAS and models:/NAME/VERSION)"
        raise ModelNotFoundError(
            f"model {reference!r} is not in {without_password(tracking_uri)}{form}; {_describe(rows)}"
        )
    with store_errors(tracking_uri, f"asked for {reference}"):
        source = connect(tracking_uri).get_model_version_download_uri(row.name, str(row.version))
        folder = _local_copy(source, tracking_uri, cache_dir)
    uri = f"{_SCHEME}{row.name}/{row.version}"
    return ResolvedModel(_bundle_folder(folder, uri), uri, str(row.version))


def _resolve_folder(reference: str, tracking_uri: str) -> ResolvedModel:
    path = Path(reference).expanduser().absolute()
    folder = path.parent if path.name in MODEL_FILES else path
    if _is_bundle(folder):
        return ResolvedModel(folder, str(folder))
    if not folder.is_dir():
        raise ModelNotFoundError(
            f"model {reference!r} is neither an existing bundle folder nor models:/NAME@ALIAS; "
            f"{_describe(list_models(tracking_uri))}"
        )
    inside = sorted(entry.name for entry in folder.iterdir() if _is_bundle(entry))
    hint = f"choose one of its bundles: {', '.join(inside)}" if inside else "it holds no bundle"
    raise ModelNotFoundError(f"model {reference!r} is a folder without config.json; {hint}")


def _is_bundle(folder: Path) -> bool:
    return any((folder / name).is_file() for name in MODEL_FILES)


def _find_row(
    rows: list[ModelVersionRow], name: str, version: str | None, alias: str | None
) -> ModelVersionRow | None:
    candidates = [row for row in rows if row.name == name]
    if version == "latest":
        return candidates[0] if candidates else None
    for row in candidates:
        if str(row.version) == version or alias in row.aliases:
            return row
    return None


def _describe(rows: list[ModelVersionRow]) -> str:
    """Say what exists, for an error message."""
    if not rows:
        return "no model is registered there; register one with gerbil-tune register"
    lines = []
    for name in dict.fromkeys(row.name for row in rows):
        versions = [row for row in rows if row.name == name]
        aliases = [f"@{alias} = {row.version}" for row in versions for alias in row.aliases]
        numbers = ", ".join(str(row.version) for row in versions[:10])
        more = ", ..." if len(versions) > 10 else ""
        lines.append(
            f"models:/{name} (versions {numbers}{more}; {', '.join(aliases) or 'no alias'})"
        )
    return f"registered: {', '.join(lines)}"


def _create_registered_model(client: "MlflowClient", model_name: str) -> None:
    try:
        client.create_registered_model(model_name)
    except mlflow_error() as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _pages(search: Any) -> Iterator[Any]:
    token = None
    while True:
        page = search(page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _row(version: Any, models: Mapping[str, Any]) -> ModelVersionRow:
    # A search does not tell the aliases of versions; their model does.
    pointers = models[version.name].aliases if version.name in models else {}
    metrics = {
        name.removeprefix(METRIC_TAG_PREFIX): float(text)
        for name, text in version.tags.items()
        if name.startswith(METRIC_TAG_PREFIX)
    }
    return ModelVersionRow(
        name=version.name,
        version=int(version.version),
        aliases=tuple(sorted(a for a, v in pointers.items() if int(v) == int(version.version))),
        created=datetime.fromtimestamp(version.creation_timestamp / 1000, UTC),
        run_id=version.run_id or None,
        metrics=metrics,
        tags={k: v for k, v in version.tags.items() if not k.startswith(METRIC_TAG_PREFIX)},
    )


def _local_copy(source: str, tracking_uri: str, cache_dir: Path | None) -> Path:
    """Folder of a logged model: in place where it is on this machine, else downloaded once."""
    parts = urlsplit(source)
    if parts.scheme in ("", "file"):
        return Path(url2pathname(parts.path) if parts.scheme else source)
    cache_home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cache_dir = cache_dir or cache_home / "gerbil_tune" / "models"
    target = cache_dir / hashlib.sha256(f"{tracking_uri} {source}".encode()).hexdigest()[:24]
    if target.is_dir():
        return target
    load_mlflow()
    from mlflow.artifacts import download_artifacts

    cache_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=cache_dir) as temporary:
        downloaded = download_artifacts(
            artifact_uri=source, dst_path=temporary, tracking_uri=tracking_uri
        )
        try:
            Path(downloaded).rename(target)
        except OSError:
            # Another process may have been faster; its copy is as good.
            if not target.is_dir():
                raise
    return target


def _bundle_folder(folder: Path, uri: str) -> Path:
    """Folder of the bundle inside a logged model, as its MLmodel file says."""
    description = folder / "MLmodel"
    if not description.is_file():
        raise ModelNotFoundError(
            f"{uri} is registered, but its files are not in {folder}; were they deleted, or is the "
            "store on a disk that this machine does not have?"
        )
    content = yaml.safe_load(description.read_text())
    try:
        relative = content["flavors"]["python_function"]["artifacts"]["bundle"]["path"]
    except (KeyError, TypeError):
        raise ModelNotFoundError(
            f"{uri} was not registered by gerbil-tune (no bundle is listed in {description}); "
            "choose another version"
        ) from None
    return folder / relative
