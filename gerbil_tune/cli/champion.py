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


def register_best(
    study: Any,
    bundle: Path,
    tracking_uri: str,
    run_id: str | None,
    test: "EventSet | None" = None,
) -> None:
    """Register the best model of a study, once; champion unless it is worse than the one that there is.

    What was done is noted in the study: a search that was stopped meanwhile goes on from there.

    Args:
        study: The Optuna study.
        bundle: Folder of the model or ensemble.
        tracking_uri: The store.
        run_id: The study's run there.
        test: Events on which the two are compared, or None.

    Raises:
        StoreAwayError: If the store stays away; the search called again goes on here.
    """
    from gerbil_tune.cli.registry import register_bundle_folder

    if study.user_attrs.get("registered_bundle") != str(bundle):
        model, version = _patiently(
            lambda: register_bundle_folder(bundle, tracking_uri, run_id=run_id)
        )
        study.set_user_attr("champion_uri", f"models:/{model}/{version}")
        study.set_user_attr("registered_bundle", str(bundle))
        study.set_user_attr("alias_is_set", False)
    if not study.user_attrs.get("alias_is_set", True):
        model, _, number = study.user_attrs["champion_uri"].rpartition("/")
        name, version = model.removeprefix("models:/"), int(number)
        is_champion = _patiently(lambda: _set_alias(bundle, name, version, tracking_uri, test))
        study.set_user_attr("is_champion", is_champion)
        study.set_user_attr("alias_is_set", True)


def _set_alias(
    bundle: Path, name: str, version: int, tracking_uri: str, test: "EventSet | None"
) -> bool:
    """Make a version the champion or, if it is worse than the present one, the candidate."""
    from gerbil_tune.cli.promotion import may_take_over
    from gerbil_tune.tracking.champions import CANDIDATE, champion_version, make_champion
    from gerbil_tune.tracking.model_registry import resolve_model, set_alias

    present = champion_version(name, tracking_uri)
    if present not in (None, version):
        champion = resolve_model(f"models:/{name}/{present}", tracking_uri).path
        names = (f"version {version}", f"version {present}")
        reason = may_take_over(bundle, champion, test, names=names)
        if reason is not None:
            set_alias(name, CANDIDATE, version, tracking_uri)
            typer.echo(
                f"version {version} of {name} is a candidate; version {present} stays champion: {reason}"
            )
            return False
    make_champion(name, version, tracking_uri)
    return True


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
    from gerbil_tune.cli.evaluation_page import write_outputs
    from gerbil_tune.cli.scoring import scored_part
    from gerbil_tune.tracking.model_registry import ResolvedModel

    if test is None or test.is_impulse_response:
        return
    result, scored, unscored = scored_part(evaluate_models({"champion": bundle}, test), test)
    print_table(result)
    model = ResolvedModel(bundle, str(bundle))
    write_outputs(study_dir / "evaluation.h5", result, scored, {"champion": model}, unscored)


def print_summary(study: Any, bundle: Path, page: Path, tracking_uri: str) -> None:
    """Say what there is now and what to do next."""
    uri = study.user_attrs["champion_uri"]
    model, _, number = uri.rpartition("/")
    is_champion = study.user_attrs.get("is_champion", True)
    role, reference = ("champion", f"{model}@champion") if is_champion else ("candidate", uri)
    name = model.removeprefix("models:/")
    compare = f"  gerbil-tune promote {name} {number}      compares it with the champion\n"
    typer.echo(
        f"{role}: {reference} ({_short(bundle)})\n"
        "next:\n"
        f"  {_how_to_look(tracking_uri)}\n"
        f"  open {_short(page)}      what was tried and how good the best model is\n"
        f"{'' if is_champion else compare}"
        f"  gerbil-tune predict --model {reference} --data YOUR.h5 -o predictions.h5"
    )


def _how_to_look(tracking_uri: str) -> str:
    from gerbil_tune.urls import without_password

    uri = without_password(tracking_uri).replace(f"{Path.cwd().as_posix()}/", "")
    if uri.startswith(("http:", "https:")):
        return f"open {uri}      every trial"
    return f"mlflow ui --backend-store-uri {uri}      every trial, at http://127.0.0.1:5000"


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
