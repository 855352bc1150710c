"""Weights of a trained model as the beginning of another training, wherever they fit."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from gerbil_tune.config.load import flatten
from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.errors import ConfigError, DatasetError
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.bundle import read_bundle_config, weights_name
from gerbil_tune.models.localizer import Localizer
from gerbil_tune.models.low_rank import unchanged_weights
from gerbil_tune.models.scaling import LocationScale

_READOUT = "network.readout."
_WHAT_WEIGHTS_MEAN = ("features/", "scaling/", "head/")
"""Sections of a config that may change what a tensor of the same shape stands for."""
_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Unfitting:
    """A tensor that has no counterpart of its shape.

    Attributes:
        name: In the state of a plain model.
        shape_there: In the trained model; None where it has none of this name.
        shape_here: In the one that is trained; None likewise.
    """

    name: str
    shape_there: tuple[int, ...] | None
    shape_here: tuple[int, ...] | None

    def __str__(self) -> str:
        there, here = ("absent" if s is None else s for s in (self.shape_there, self.shape_here))
        return f"{self.name}, {there} in the trained model, {here} here"


@dataclass(frozen=True, slots=True)
class LoadedWeights:
    """What came of the weights of a trained model.

    Attributes:
        loaded: Names of tensors that were taken.
        reinitialized: Those of the model that stay as they were initialized.
        unused: Those of the trained model that the other has no place for.
    """

    loaded: tuple[str, ...]
    reinitialized: tuple[Unfitting, ...]
    unused: tuple[Unfitting, ...]


def load_what_fits(model: nn.Module, weights: Mapping[str, Tensor]) -> LoadedWeights:
    """Copy every tensor that the model has under the same name and with the same shape.

    Args:
        model: Changed in place; it may have low-rank changes, which stay.
        weights: Of a plain model, by name.

    Raises:
        ConfigError: If none fits.
    """
    own = unchanged_weights(model)
    fitting = [name for name in own if name in weights and weights[name].shape == own[name].shape]
    if not fitting:
        raise ConfigError(
            f"none of the trained model's {len(weights)} tensors fits any of this one's {len(own)} in name "
            "and shape; train with the trained model's own model section, which train without --config does"
        )
    with torch.no_grad():
        for name in fitting:
            own[name].copy_(weights[name])
    anew = tuple(_unfitting(name, weights, own) for name in own if name not in fitting)
    unused = tuple(_unfitting(name, weights, own) for name in weights if name not in own)
    return LoadedWeights(tuple(fitting), anew, unused)


def load_initial_weights(
    model: Localizer, config: ExperimentConfig, setup: RecordingSetup
) -> list[str]:
    """Begin with the best weights of the trained model that ``fine_tune/init_from`` names.

    Args:
        model: Of the same config and site; it may have low-rank changes already.
        config: Of the training.
        setup: Its recording site.

    Returns:
        What was done, a sentence or a tensor a line; nothing if no trained model is named.

    Raises:
        ModelNotFoundError: If there is no trained model.
        DatasetError: If it is damaged.
        ConfigError: If no tensor fits, or one that does not would not be trained either.
    """
    if config.fine_tune.init_from is None:
        return []
    folder = Path(config.fine_tune.init_from)
    there_config, there_setup = read_bundle_config(folder)
    weights, fingerprint = _read_weights(folder)
    done = load_what_fits(model, weights)
    _check_all_is_trained(config, done)
    return [
        f"training begins with the weights of {folder} (SHA-256 {fingerprint[:_DIGITS]}...): "
        f"{len(done.loaded)} of {len(done.loaded) + len(done.reinitialized)} tensors",
        *(f"initialized anew: {tensor}" for tensor in done.reinitialized),
        *(f"not used: {tensor}" for tensor in done.unused),
        *_differences(_meanings(there_config, there_setup), _meanings(config, setup)),
    ]


def _unfitting(name: str, there: Mapping[str, Tensor], here: Mapping[str, Tensor]) -> Unfitting:
    shapes = (tuple(side[name].shape) if name in side else None for side in (there, here))
    return Unfitting(name, *shapes)


def _read_weights(folder: Path) -> tuple[dict[str, Tensor], str]:
    """The best weights of a bundle, and the SHA-256 of their file."""
    path = folder / weights_name("best")
    try:
        content = path.read_bytes()
        return load(content), hashlib.sha256(content).hexdigest()
    except (OSError, SafetensorError) as error:
        raise DatasetError(f"{path} cannot be read ({error}); export the model again") from None


def _check_all_is_trained(config: ExperimentConfig, done: LoadedWeights) -> None:
    """Refuse to freeze what is only initialized."""
    frozen = [tensor for tensor in done.reinitialized if not tensor.name.startswith(_READOUT)]
    if config.fine_tune.what != "all" and frozen:
        raise ConfigError(
            f"fine_tune/what {config.fine_tune.what} keeps the trained model's weights, but some do not fit, "
            f"such as {frozen[0]}; train with fine_tune/what=all"
        )


def _differences(there: Mapping[str, object], here: Mapping[str, object]) -> Iterator[str]:
    for name in dict.fromkeys((*there, *here)):
        was, now = there.get(name, "absent"), here.get(name, "absent")
        if was != now:
            yield (
                f"warning: {name} was {was} for the trained model and is {now} here; what its weights have "
                "learned may not hold"
            )


def _meanings(config: ExperimentConfig, setup: RecordingSetup) -> dict[str, object]:
    """What the same numbers in a network depend on for their meaning, by a name for users."""
    leaves = flatten(config).items()
    return {
        "one unit of the network, in mm,": (
            LocationScale(config.scaling.location, setup).mm_per_unit_D.tolist()
        ),
        "the sample rate in Hz": setup.sample_rate_hz,
        "the list of keypoints": list(setup.keypoints),
        **{path: value for path, value in leaves if path.startswith(_WHAT_WEIGHTS_MEAN)},
    }
