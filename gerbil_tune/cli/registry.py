"""``gerbil-tune register`` and ``models``: the model registry."""

from pathlib import Path
from typing import Annotated

import typer


def register(
    bundle: Annotated[
        Path,
        typer.Argument(
            metavar="BUNDLE", help="trained_models/<name>/<00001>, a model or an ensemble."
        ),
    ],
    name: Annotated[
        str | None, typer.Option(help="Registered model; default: the bundle's name.")
    ] = None,
) -> None:
    """Register a bundle as a new version with the alias candidate."""
    from gerbil_tune.tracking.store import default_tracking_uri

    uri = default_tracking_uri(Path.cwd())
    model, version = register_bundle_folder(bundle, uri, name=name)
    from gerbil_tune.tracking.champions import CANDIDATE
    from gerbil_tune.tracking.model_registry import set_alias

    set_alias(model, CANDIDATE, version, uri)
    typer.echo(f"registered models:/{model}/{version} as @{CANDIDATE}")
    typer.echo(f"next: gerbil-tune promote {model} {version}")


def models() -> None:
    """List the registered models, their versions and aliases."""
    from rich.console import Console
    from rich.table import Table

    from gerbil_tune.tracking.model_registry import list_models
    from gerbil_tune.tracking.store import default_tracking_uri
    from gerbil_tune.urls import without_password

    uri = default_tracking_uri(Path.cwd())
    rows = list_models(uri)
    if not rows:
        typer.echo(
            f"no model is registered at {without_password(uri)}; gerbil-tune search and register make some"
        )
        return
    table = Table("model", "version", "aliases", "created", "validation median (mm)")
    for row in rows:
        median = row.metrics.get("val_error_median_mm")
        table.add_row(
            row.name,
            str(row.version),
            ", ".join(row.aliases),
            f"{row.created:%Y-%m-%d %H:%M}",
            "" if median is None else f"{median:.1f}",
        )
    Console().print(table)


def register_bundle_folder(
    bundle: Path, uri: str, *, name: str | None = None, run_id: str | None = None
) -> tuple[str, int]:
    """Register a bundle; return the registered model's name and the new version."""
    import gerbil_tune.tracking.model_registry as model_registry
    from gerbil_tune.models.bundle import load_bundle
    from gerbil_tune.tracking.model_card import CardFacts, model_card

    loaded = load_bundle(bundle)
    model = name or loaded.name
    provenance, setup = loaded.provenance, loaded.setup
    conformal, callers = loaded.calibration.conformal, loaded.calibration.callers
    card = CardFacts(
        name=model,
        architecture=loaded.kind,
        num_parameters=loaded.num_parameters,
        setup=setup,
        metrics=loaded.metrics,
        temperature=loaded.calibration.temperature,
        conformal_levels=() if conformal is None else conformal.levels,
        provenance=provenance,
        caller_error_rate=None if callers is None else callers.lowest_error_rate,
    )
    noted = {name: str(provenance[name]) for name in ("study", "commit") if provenance.get(name)}
    version = model_registry.register_bundle(
        bundle,
        model_name=model,
        run_id=run_id,
        setup=setup,
        pyfunc_file=Path(__file__).parents[1] / "pyfunc.py",
        tags={
            "architecture": loaded.kind,
            "arena_mm": " x ".join(f"{width:g}" for width in setup.arena_mm),
            "microphones": str(setup.num_microphones),
            "sample_rate_hz": f"{setup.sample_rate_hz:g}",
            "data_fingerprint": str(provenance["data_fingerprint"]),
            **noted,
        },
        tracking_uri=uri,
        card=model_card(card),
        metrics=loaded.metrics,
    )
    return model, version
