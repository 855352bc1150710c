"""``gerbil-tune import``: networks of Gerbilizer and vocalocator as bundles."""

import hashlib
import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gerbil_tune import __version__
from gerbil_tune.cli.options import CacheDirOption, EventsOption, SavePathOption, SetOption
from gerbil_tune.config.legacy_checkpoint import (
    LegacyConfig,
    LegacyNetwork,
    decide_era,
    describe_network,
    read_legacy_config,
)
from gerbil_tune.config.legacy_format import Era, section_of
from gerbil_tune.config.schema import NAME_PATTERN
from gerbil_tune.errors import ConfigError, DatasetError

if TYPE_CHECKING:
    from torch import Tensor

    from gerbil_tune.data.events import EventSet
    from gerbil_tune.geometry import RecordingSetup
    from gerbil_tune.models.calibrated import Calibration
    from gerbil_tune.models.density import LocationDensity
    from gerbil_tune.models.localizer import Localizer

_BATCH = 32


def import_model(
    config: Annotated[
        Path,
        typer.Argument(
            metavar="CONFIG.json", help="config.json that Gerbilizer or vocalocator saved."
        ),
    ],
    era: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="gerbilizer|vocalocator-1.0|vocalocator-1.1",
            help="Program that trained it (1.0: until June 2024); needed where the files do not tell: the"
            " same weights mean other places in each.",
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="WEIGHTS.pt",
            help="Default: the config's WEIGHTS_PATH, or best_weights.pt beside it.",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Default: the config's CONFIG_NAME.")
    ] = None,
    save_path: SavePathOption = Path("trained_models"),
    data: Annotated[
        list[Path] | None,
        typer.Option(
            "--data",
            metavar="PATH",
            help="Events with locations that it was not trained on, to calibrate it on; repeatable.",
        ),
    ] = None,
    events: EventsOption = None,
    cache_dir: CacheDirOption = None,
    overrides: SetOption = None,
) -> None:
    """Import a network of Gerbilizer or vocalocator, or an ensemble of them, as it is: it predicts the same.

    Locations come out in mm from the arena's centre, whatever the program that trained it. A sample rate that
    its config states wrongly is corrected by --set data/sample_rate_hz=HZ, names of body points by
    --set data/keypoints=[NAME].
    """
    source = read_legacy_config(config)
    trained_by = decide_era(source, era)
    if weights is not None and source.members:
        raise ConfigError(
            "--weights cannot be used with an ensemble; each member's config names its own WEIGHTS_PATH"
        )
    named = _name(source, name)
    found = [
        _Found(member, describe_network(member, trained_by, named, overrides or []))
        for member in source.members or (source,)
    ]
    _check_sites(found)
    labelled = _open_labelled(data or [], events, found[0].network.setup)
    importer = _Importer(trained_by, weights, labelled)
    if source.members:
        folder = importer.write_ensemble(source, found, save_path / named)
    else:
        folder = importer.write_network(found[0], save_path).folder
    for note in _notes(found, is_calibrated=labelled is not None):
        typer.echo(f"warning: {note}", err=True)
    typer.echo(f"imported {folder}, a model of {trained_by}")
    typer.echo(f"next: gerbil-tune evaluate --model {folder} --data TEST.h5")


@dataclass(frozen=True, slots=True)
class _Found:
    """A network to import: its config, and what that means here."""

    config: LegacyConfig
    network: LegacyNetwork


@dataclass(frozen=True, slots=True)
class _Labelled:
    """Events to calibrate on, and their locations (N, K, D) in mm."""

    events: "EventSet"
    truth_mm_NKD: "Tensor"


def _name(source: LegacyConfig, asked: str | None) -> str:
    """What the bundle is called."""
    general = section_of(source.tree, "GENERAL", source.source)
    name = asked or str(general.get("CONFIG_NAME") or source.path.stem)
    if not re.fullmatch(NAME_PATTERN, name):
        raise ConfigError(
            f"the name {name!r} cannot be that of a folder of models; choose one with --name, of letters, "
            "digits, '.', '_' and '-'"
        )
    return name


def _check_sites(found: list[_Found]) -> None:
    """Refuse an ensemble whose members are for different sites.

    Raises:
        ConfigError: Naming the first two that differ.
    """
    first = found[0]
    for other in found[1:]:
        if other.network.setup != first.network.setup:
            raise ConfigError(
                f"{other.config.source} is for another recording site than {first.config.source}; the "
                "members of an ensemble must agree in microphones, sample rate, arena, keypoints and axes"
            )


def _open_labelled(
    paths: list[Path], index: Path | None, setup: "RecordingSetup"
) -> _Labelled | None:
    """Open the events to calibrate on, if any are given.

    Raises:
        ConfigError: If some are chosen of none.
        DatasetError: If they cannot be used with the model, or have no locations of its keypoints.
    """
    if not paths:
        if index is not None:
            raise ConfigError("--events chooses events of --data, which is missing")
        return None
    import torch

    from gerbil_tune.data.events import open_chosen
    from gerbil_tune.inference.inputs import check_recording
    from gerbil_tune.inference.locations import matching_locations

    events = open_chosen(paths, index)
    for note in check_recording(events, setup):
        typer.echo(f"warning: {note}", err=True)
    truth = matching_locations(events, setup)
    if truth is None:
        raise DatasetError(
            f"{paths[0]} has no locations of {', '.join(setup.keypoints)} in {setup.num_axes} axes, so "
            "nothing can be calibrated on it; its keypoints are named by --set data/keypoints=[NAME]"
        )
    return _Labelled(events, torch.from_numpy(truth))


@dataclass(frozen=True, slots=True)
class _Imported:
    """A bundle, and what it states of the events to calibrate on."""

    folder: Path
    density: "LocationDensity | None"


@dataclass(frozen=True, slots=True)
class _Importer:
    """Writes bundles of networks that one program trained."""

    era: Era
    weights: Path | None
    labelled: _Labelled | None

    def write_network(self, found: _Found, root: Path) -> _Imported:
        from gerbil_tune.models.bundle import save_bundle, save_weights, weights_name
        from gerbil_tune.models.legacy_weights import (
            find_weights,
            load_legacy_model,
            weights_beside,
        )

        network = found.network
        best = find_weights(found.config, self.weights)
        with tempfile.TemporaryDirectory() as folder:
            model = load_legacy_model(network, best)
            for which, path in weights_beside(best).items():
                loaded = model if path == best else load_legacy_model(network, path)
                save_weights(Path(folder) / weights_name(which), loaded.state_dict())
            density = self._state(model, network)
            calibration, metrics = self._calibrate(density, network.setup)
            bundle = save_bundle(
                root,
                config=network.experiment,
                setup=network.setup,
                weights_folder=Path(folder),
                metrics=metrics,
                calibration=calibration,
                provenance={
                    **self._provenance(found.config),
                    "weights_file": str(best.resolve()),
                    "weights_sha256": _sha256(best),
                },
            )
        calibrated = None if density is None else density.tempered(calibration.temperature)
        return _Imported(bundle, calibrated)

    def write_ensemble(self, source: LegacyConfig, found: list[_Found], parent: Path) -> Path:
        from gerbil_tune.models.density import LocationDensity
        from gerbil_tune.models.ensemble import save_ensemble

        with tempfile.TemporaryDirectory() as folder:
            members = [self.write_network(each, Path(folder)) for each in found]
            stated = [member.density for member in members if member.density is not None]
            mixture = LocationDensity.mixture_of(stated) if stated else None
            calibration, metrics = self._calibrate(mixture, found[0].network.setup)
            return save_ensemble(
                parent,
                [member.folder for member in members],
                metrics=metrics,
                calibration=calibration,
                provenance=self._provenance(source),
            )

    def _state(self, model: "Localizer", network: LegacyNetwork) -> "LocationDensity | None":
        """What a model states of the events to calibrate on."""
        if self.labelled is None:
            return None
        import torch

        from gerbil_tune.data.batches import EvaluationBatches

        events = self.labelled.events
        raw_NO = torch.empty(len(events), model.head.num_outputs)
        batches = EvaluationBatches(
            events,
            crop_length=network.experiment.data.evaluation_crop_length,
            per_worker_batch_size=_BATCH,
        )
        with torch.inference_mode():
            for batch in batches:
                raw_NO[batch.indices_B] = model(batch.audio_BTC, batch.lengths_B)
        return model.density(raw_NO)

    def _calibrate(
        self, density: "LocationDensity | None", setup: "RecordingSetup"
    ) -> "tuple[Calibration, dict[str, float]]":
        from gerbil_tune.evaluation.calibrate import calibrate
        from gerbil_tune.models.calibrated import Calibration

        if density is None or self.labelled is None:
            return Calibration(), {}
        return calibrate(density, self.labelled.truth_mm_NKD, setup)

    def _provenance(self, config: LegacyConfig) -> dict[str, str]:
        return {
            "imported_from": self.era,
            "config_file": str(config.path.resolve()),
            "config_sha256": _sha256(config.path),
            "data_fingerprint": "unknown",
            "package_version": __version__,
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _notes(found: list[_Found], *, is_calibrated: bool) -> list[str]:
    """What the user should know, each once."""
    notes = [note for each in found for note in each.network.notes]
    if not is_calibrated and any(each.network.experiment.head.kind == "point" for each in found):
        notes.append(
            "a network of OUTPUT_TYPE POINT states no uncertainty, and what is given for it means nothing; "
            "import it again with --data and events with locations"
        )
    return list(dict.fromkeys(notes))
