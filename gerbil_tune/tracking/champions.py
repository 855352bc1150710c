"""Which version of a registered model is the champion, and which ones were before it."""

import json
from typing import Any

from gerbil_tune.errors import ModelNotFoundError
from gerbil_tune.tracking.model_registry import list_models, set_alias
from gerbil_tune.tracking.store import connect, store_errors

CHAMPION = "champion"
"""Alias of the version that predictions are made with."""
CANDIDATE = "candidate"
"""Alias of the version that was registered last and is not the champion."""
_HISTORY_TAG = "gerbil_tune.champions"
"""Of the registered model: all champions in order as a JSON list, without those that were taken back."""


def champion_version(model_name: str, tracking_uri: str) -> int | None:
    """Version of the champion; None where there is none.

    Raises:
        LaunchError: If the store cannot be used.
    """
    rows = [row for row in list_models(tracking_uri) if row.name == model_name]
    return next((row.version for row in rows if CHAMPION in row.aliases), None)


def make_champion(model_name: str, version: int, tracking_uri: str) -> None:
    """Let the alias point to a version, and note the one before.

    Raises:
        ModelNotFoundError: If there is no such version.
        LaunchError: If the store cannot be used.
    """
    before = champion_version(model_name, tracking_uri)
    set_alias(model_name, CHAMPION, version, tracking_uri)
    with store_errors(tracking_uri, "asked to note a champion"):
        client = connect(tracking_uri)
        history = _read_history(client, model_name)
        if before is not None and history[-1:] != [before]:
            history.append(before)  # somebody set the alias by hand
        if history[-1:] != [version]:
            history.append(version)
        _write_history(client, model_name, history)
        aliases = client.get_registered_model(model_name).aliases
        if str(aliases.get(CANDIDATE)) == str(version):
            client.delete_registered_model_alias(model_name, CANDIDATE)


def roll_back(model_name: str, tracking_uri: str) -> int:
    """Make the champion before this one the champion again; returns its version.

    Raises:
        ModelNotFoundError: If there is no such model, or no earlier champion that still exists.
        LaunchError: If the store cannot be used.
    """
    versions = {row.version for row in list_models(tracking_uri) if row.name == model_name}
    if not versions:
        raise ModelNotFoundError(
            f"no model {model_name!r} is registered; gerbil-tune models lists those that are"
        )
    current = champion_version(model_name, tracking_uri)
    with store_errors(tracking_uri, "asked for earlier champions"):
        client = connect(tracking_uri)
        history = _read_history(client, model_name)
        while history and (history[-1] == current or history[-1] not in versions):
            history.pop()
        if not history:
            raise ModelNotFoundError(
                f"model {model_name!r} has had no champion before version {current}; promote one by "
                f"gerbil-tune promote {model_name} VERSION"
            )
    set_alias(model_name, CHAMPION, history[-1], tracking_uri)
    with store_errors(tracking_uri, "asked to note a champion"):
        _write_history(client, model_name, history)
    return history[-1]


def _read_history(client: Any, model_name: str) -> list[int]:
    text = client.get_registered_model(model_name).tags.get(_HISTORY_TAG, "[]")
    return [int(version) for version in json.loads(text)]


def _write_history(client: Any, model_name: str, history: list[int]) -> None:
    client.set_registered_model_tag(model_name, _HISTORY_TAG, json.dumps(history))
