"""The trained model that a training begins with, and the config that goes with it."""

import json
from collections.abc import Sequence
from pathlib import Path

from gerbil_tune.config.load import compose, load_experiment, parse_overrides
from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.errors import ConfigError, GerbilTuneError, ModelNotFoundError

_OF_ITS_SITE = {"sample_rate_hz", "arena_mm", "source_folder"}
"""Of a config's data section: what the data to train on must say themselves, or ``--set``."""
_OWN_SECTIONS = ("features", "scaling", "model", "head")
"""Of a trained model: without them its weights mean nothing."""


def load_fine_tuning(
    reference: str, config: Path | None, overrides: Sequence[str]
) -> ExperimentConfig:
    """The config of a training that begins with a trained model.

    Args:
        reference: As ``--model`` takes it.
        config: Config file; None: the trained model's own, but for what its data said of the recording site
            and for how it was itself fine-tuned.
        overrides: ``path/to/key=value`` strings.

    Raises:
        ModelNotFoundError: If the reference leads nowhere.
        ConfigError: On any mistake in the config, or if the model is an ensemble.
    """
    try:
        folder = _find(reference)
    except ModelNotFoundError:
        if config is None or reference.startswith("models:/"):
            raise
        folder = Path(reference).expanduser().absolute()  # a run that has begun needs it no more
    init_from = f"fine_tune/init_from={json.dumps(str(folder), ensure_ascii=False)}"
    if config is not None:
        return load_experiment(config, [*overrides, init_from])
    from gerbil_tune.models.bundle import read_bundle_config

    own, _ = read_bundle_config(folder)
    tree = own.model_dump(mode="json", exclude={"data": _OF_ITS_SITE, "fine_tune": True})
    return compose(tree, parse_overrides([*overrides, init_from]), "--set")


def begin_with_weights(experiment: ExperimentConfig, bundle: Path) -> ExperimentConfig:
    """The same training of a trained model: what its weights depend on is as it was."""
    from gerbil_tune.models.bundle import read_bundle_config

    own, _ = read_bundle_config(bundle)
    tree = experiment.model_dump(mode="json", exclude=set(_OWN_SECTIONS))
    tree |= own.model_dump(mode="json", include=set(_OWN_SECTIONS))
    return compose(tree, {"fine_tune/init_from": str(bundle)}, str(bundle))


def bundle_of_weights(weights: Path, config: Path) -> Path | None:
    """The bundle that a predecessor's WEIGHTS_PATH leads to, or None if it is something else.

    Args:
        weights: A bundle's folder or a file in it; a relative path counts from here, as it did, or from the
            config's folder.
        config: The file that names it.
    """
    from gerbil_tune.models.bundle import read_bundle_config

    places = [base / weights.expanduser() for base in (Path.cwd(), config.absolute().parent)]
    for folder in (candidate for place in places for candidate in (place, place.parent)):
        try:
            read_bundle_config(folder)
        except GerbilTuneError:
            continue
        return folder.resolve()
    return None


def _find(reference: str) -> Path:
    """Folder of the bundle that a reference means."""
    from gerbil_tune.models.bundle_files import CONFIG_FILE
    from gerbil_tune.tracking.model_registry import resolve_model
    from gerbil_tune.tracking.store import default_tracking_uri

    folder = resolve_model(reference, default_tracking_uri(Path.cwd())).path
    if not (folder / CONFIG_FILE).is_file():
        raise ConfigError(
            f"--init-from {reference} is an ensemble, and training begins with one network; name a member, "
            f"such as {folder / 'members' / '00'}"
        )
    return folder
