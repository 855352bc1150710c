"""``gerbil-tune promote``: the champion is the model that is not worse on the same events."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gerbil_tune.cli.options import CacheDirOption, EventsOption
from gerbil_tune.errors import ConfigError, DatasetError, GerbilTuneError

if TYPE_CHECKING:
    from gerbil_tune.data.events import EventSet
    from gerbil_tune.evaluation.verdict import Verdict


def promote(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Registered model.")],
    version: Annotated[
        int | None, typer.Argument(metavar="[VERSION]", help="Version number; not with --rollback.")
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            "--data",
            metavar="D.h5",
            help="Events with locations that neither model was trained on; repeatable; default: the test"
            " events of the version's training.",
        ),
    ] = None,
    events: EventsOption = None,
    force: Annotated[
        bool, typer.Option("--force", help="Promote whatever the comparison says, or without one.")
    ] = False,
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Make the champion before this one champion again.")
    ] = False,
    cache_dir: CacheDirOption = None,
) -> None:
    """Make a version the champion, the one that predict uses, unless it is worse than the one before.

    Both are compared on the same events by a paired bootstrap of the error and of how far the 95 % regions
    fall short of what they state. One that is worse beyond chance is refused with exit code 1.
    """
    from gerbil_tune.tracking.champions import (
        CHAMPION,
        champion_version,
        make_champion,
        roll_back,
    )
    from gerbil_tune.tracking.store import default_tracking_uri

    uri = default_tracking_uri(Path.cwd())
    if rollback:
        if version is not None or data or events or force:
            raise ConfigError(
                "--rollback goes back to the champion before this one and takes nothing but the model; "
                "leave out the version and the other options, or --rollback"
            )
        typer.echo(f"models:/{model}@{CHAMPION} is version {roll_back(model, uri)} again")
        return
    if version is None:
        raise ConfigError(
            f"which version of {model} is to be the champion? gerbil-tune promote {model} VERSION; "
            "gerbil-tune models lists them"
        )
    champion = champion_version(model, uri)
    if champion == version:
        typer.echo(f"models:/{model}@{CHAMPION} is version {version} already")
        return
    if champion is not None and not force:
        _refuse_if_worse(model, version, champion, uri, data, events)
    make_champion(model, version, uri)
    typer.echo(f"models:/{model}@{CHAMPION} is now version {version}")
    if champion is not None:
        typer.echo(f"back to version {champion}: gerbil-tune promote {model} --rollback")


def _refuse_if_worse(
    model: str,
    version: int,
    champion: int,
    uri: str,
    data: list[Path] | None,
    chosen: Path | None,
) -> None:
    from gerbil_tune.cli.held_out import held_out_events
    from gerbil_tune.data.events import open_chosen
    from gerbil_tune.tracking.model_registry import resolve_model

    new, old = (resolve_model(f"models:/{model}/{v}", uri).path for v in (version, champion))
    if data:
        events = open_chosen(data, chosen)
    elif chosen is not None:
        raise ConfigError(
            f"--events {chosen} chooses events of --data, which is missing; give both"
        )
    else:
        events = held_out_events(
            new, old, warn=lambda said: typer.echo(f"warning: {said}", err=True)
        )
    verdict = compare(new, old, events, names=(f"version {version}", f"version {champion}"))
    if verdict.worse:
        raise GerbilTuneError(
            f"version {version} of {model} is not promoted, for it is worse than the champion, version "
            f"{champion}, in {' and '.join(verdict.worse)}; --force promotes it all the same"
        )


def compare(
    candidate: Path, champion: Path, events: "EventSet", *, names: tuple[str, str]
) -> "Verdict":
    """Compare two models on the same events; print the table and what it comes to.

    Args:
        candidate: Folder of the bundle that would be the champion.
        champion: Folder of the one that is.
        events: With locations, of neither's training.
        names: What to call the two.

    Raises:
        DatasetError: If the events are not of the recording site of both.
    """
    from gerbil_tune.cli.evaluate import evaluate_models, print_table
    from gerbil_tune.cli.scoring import scored_part
    from gerbil_tune.evaluation.paired import compare_methods
    from gerbil_tune.evaluation.verdict import judge

    new, old = names
    result = evaluate_models({old: champion, new: candidate}, events, with_baselines=False)
    result, events, _ = scored_part(result, events)
    print_table(result)
    comparison = compare_methods(result, new, old, events.groups)
    typer.echo(f"\n{comparison.sentence(new, old)}")
    verdict = judge(comparison)
    typer.echo(verdict.sentence(new, old))
    return verdict


def may_take_over(
    candidate: Path, champion: Path, events: "EventSet | None", *, names: tuple[str, str]
) -> str | None:
    """Whether the best model of a study may take the place of the champion that there is.

    Args:
        candidate: Folder of the study's best model.
        champion: Folder of the champion.
        events: The study's test events, or None.
        names: What to call the two.

    Returns:
        Why it may not, in a few words; None where it may.
    """
    from gerbil_tune.cli.held_out import may_have_seen

    if events is None or events.is_impulse_response:
        return "the study has no test events to compare it on"
    if may_have_seen(candidate, champion):
        typer.echo(
            f"warning: {names[1]} was trained on other data, of which some test events may be a part",
            err=True,
        )
    try:
        verdict = compare(candidate, champion, events, names=names)
    except DatasetError as error:
        return f"the two cannot be compared ({error})"
    return f"it is worse in {' and '.join(verdict.worse)}" if verdict.worse else None
