"""What becomes of the best model of a study: registered, scored on the test events, announced."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

if TYPE_CHECKING:
    from gerbil_tune.data.events import EventSet

_T = TypeVar("_T")

_PATIENCE_S = 90.0
"""For a tracking store that is locked or restarts; the trials are done, so nothing else waits."""
_AGAIN_S = 3.0


def register_champion(study: Any, bundle: Path, tracking_uri: str, run_id: str | None) -> None:
    """Register a bundle as the champion, once, and note in the study which version it is.

    Args:
        study: The Optuna study.
        bundle: Folder of the model or ensemble.
        tracking_uri: The store.
        run_id: The study's run there.

    Raises:
        StoreAwayError: If the store stays away; the search called again goes on here.
    """
    from gerbil_tune.cli.registry import CHAMPION, register_bundle_folder
    from gerbil_tune.tracking.model_registry import set_alias

    if study.user_attrs.get("registered_bundle") != str(bundle):
        model, version = _patiently(
            lambda: register_bundle_folder(bundle, tracking_uri, run_id=run_id)
        )
        study.set_user_attr("champion_uri", f"models:/{model}/{version}")
        study.set_user_attr("registered_bundle", str(bundle))
        study.set_user_attr("alias_is_set", False)
    if not study.user_attrs.get("alias_is_set", True):
        model, _, number = study.user_attrs["champion_uri"].rpartition("/")
        name = model.removeprefix("models:/")
        _patiently(lambda: set_alias(name, CHAMPION, int(number), tracking_uri))
        study.set_user_attr("alias_is_set", True)


def _patiently(work: Callable[[], _T]) -> _T:
    from gerbil_tune.tracking.tracker import StoreAwayError

    end = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return work()
        except StoreAwayError:
            if time.monotonic() > end:
                raise
            time.sleep(_AGAIN_S)


def evaluate_champion(bundle: Path, test: "EventSet | None", study_dir: Path) -> None:
    """Score it on the test events, which no training has seen."""
    from gerbil_tune.cli.evaluate import evaluate_models, print_table

    if test is None or test.is_impulse_response:
        return
    result = evaluate_models({"champion": bundle}, test)
    result.save(study_dir / "evaluation.h5")
    print_table(result)


def print_summary(study: Any, bundle: Path, page: Path, tracking_uri: str) -> None:
    """Say what there is now and what to do next."""
    model = study.user_attrs["champion_uri"].rpartition("/")[0]
    typer.echo(
        f"champion: {model}@champion ({_short(bundle)})\n"
        "next:\n"
        f"  {_how_to_look(tracking_uri)}\n"
        f"  open {_short(page)}      what was tried and how good the champion is\n"
        f"  gerbil-tune predict --model {model}@champion --data YOUR.h5 -o predictions.h5"
    )


def _how_to_look(tracking_uri: str) -> str:
    from gerbil_tune.urls import without_password

    uri = without_password(tracking_uri).replace(f"{Path.cwd().as_posix()}/", "")
    if uri.startswith(("http:", "https:")):
        return f"open {uri}      every trial"
    return f"mlflow ui --backend-store-uri {uri}      every trial, at http://127.0.0.1:5000"


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
