"""Weights of the predecessors' networks: read without running what is in the file, checked, and renamed.

Letters: O raw outputs.
"""

import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from gerbil_tune.config.legacy_checkpoint import LegacyConfig, LegacyNetwork
from gerbil_tune.config.legacy_heads import Rows
from gerbil_tune.errors import DatasetError
from gerbil_tune.models.localizer import Localizer

_LAYERS = {
    # Signal and gate, two convolutions in theirs, are one.
    r"layers\.(\d+)\.conv\.": (r"conv_layers.\1.fc.", r"conv_layers.\1.gc."),
    r"layers\.(\d+)\.norm\.": (r"conv_layers.\1.batch_norm.",),
}
_NAMES: dict[str, dict[str, tuple[str, ...]]] = {
    "legacy-simplenet": {**_LAYERS, r"readout\.": ("coord_readout.",)},
    "legacy-corrnet": {
        **_LAYERS,
        r"correlation_net\.(\d+)\.linear\.": (r"cps_network.\1.submodule.0.",),
        r"correlation_net\.": ("cps_network.",),
        r"hidden\.": ("coord_readout.0.",),
        r"readout\.": ("coord_readout.2.",),
    },
    "legacy-wavenet": {
        r"correlation_net\.": ("xcorr_mlp.",),
        r"stem\.": ("initial_conv.",),
        r"blocks\.(\d+)\.conv\.": (r"blocks.\1.conv.",),
        r"blocks\.(\d+)\.mix\.": (r"blocks.\1.one_by_one.",),
        r"blocks\.(\d+)\.inject\.": (r"blocks.\1.injection_linear.",),
        r"hidden\.": ("dense.0.",),
        r"readout\.": ("dense.2.",),
    },
}
"""By architecture: how names of our weights begin (a pattern), and those of theirs that are joined to it."""
_READOUT = "readout."


def load_legacy_model(network: LegacyNetwork, path: Path) -> Localizer:
    """Build a predecessor's network with its weights.

    Args:
        network: What its config says.
        path: A file of ``torch.save``.

    Returns:
        The whole model, in evaluation mode.

    Raises:
        DatasetError: If the file cannot be read, or does not fit the config.
    """
    theirs = read_state_dict(path)
    model = Localizer(network.experiment, network.setup)
    model.network.load_state_dict(_renamed(theirs, network, model.network, path))
    return model.eval()


def find_weights(config: LegacyConfig, asked: Path | None) -> Path:
    """Where the weights of a network are.

    Args:
        config: Of the network.
        asked: What the user says; None: nothing.

    Raises:
        DatasetError: If there are none; naming all places.
    """
    if asked is not None:
        tried = [asked]
    else:
        folder, stated = config.path.parent, config.weights_path
        tried = [] if stated is None else [Path(stated), folder / stated]
        if config.is_file:  # beside the file of an ensemble there is nothing of a single member
            tried += [] if stated is None else [folder / Path(stated).name]
            tried.append(folder / "best_weights.pt")
    for path in tried:
        if path.is_file():
            return path
    places = ", ".join(dict.fromkeys(map(str, tried))) or "nowhere, for it has no WEIGHTS_PATH"
    raise DatasetError(f"{config.source}: its weights were not found; tried: {places}")


def weights_beside(best: Path) -> dict[str, Path]:
    """The weights from before training, the best and the last; the best where the others are not there."""
    named = {which: best.with_name(f"{which}_weights.pt") for which in ("init", "final")}
    return {"best": best, **{w: path if path.is_file() else best for w, path in named.items()}}


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read tensors by name; a file that would run code is refused.

    Raises:
        DatasetError: If it cannot be read, or holds something else.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise DatasetError(
            f"{path} is no file of torch.save, or holds more than tensors, which reading it could run; save "
            "the state_dict of the network alone"
        ) from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DatasetError(f"{path} cannot be read as weights ({reason})") from None
    if not isinstance(content, Mapping) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in content.items()
    ):
        raise DatasetError(
            f"{path} must hold a state_dict, tensors by name, but holds {type(content).__name__}"
        )
    return dict(content)


def _renamed(
    theirs: Mapping[str, Tensor], network: LegacyNetwork, module: nn.Module, path: Path
) -> dict[str, Tensor]:
    """Their weights by our names."""
    kind, head = network.experiment.model.kind, network.head
    unused = set(theirs)
    ours = {}
    for name, wanted in module.state_dict().items():
        names = _their_names(kind, name)
        rows = head.num_outputs if name.startswith(_READOUT) else None
        parts = [_part(theirs, each, _shape(wanted, len(names), rows), path) for each in names]
        joined = torch.cat(parts) if len(parts) > 1 else parts[0]
        ours[name] = joined if rows is None else _arranged(joined, head.rows)
        unused.difference_update(names)
    if unused:
        raise DatasetError(
            f"{path} has {min(unused)}, which the network of its config has not; is it of another config?"
        )
    return ours


def _their_names(kind: str, name: str) -> list[str]:
    """Of what a weight of ours is made."""
    for pattern, beginnings in _NAMES[kind].items():
        if found := re.match(pattern, name):
            return [found.expand(beginning) + name[found.end() :] for beginning in beginnings]
    raise AssertionError(f"{name} of {kind} has no counterpart")


def _shape(wanted: Tensor, num_parts: int, num_rows: int | None) -> tuple[int, ...]:
    """Of one of so many parts that make a weight of ours, or of a readout that has so many rows."""
    if not wanted.shape:
        return ()
    first = wanted.shape[0] // num_parts if num_rows is None else num_rows
    return (first, *wanted.shape[1:])


def _part(theirs: Mapping[str, Tensor], name: str, shape: tuple[int, ...], path: Path) -> Tensor:
    tensor = theirs.get(name)
    if tensor is None:
        raise DatasetError(
            f"{path} has no {name}, which the network of its config has; is it of another config?"
        )
    if tuple(tensor.shape) != shape:
        raise DatasetError(
            f"{path}: {name} must be of shape {list(shape)} by its config, but is of {list(tensor.shape)}; "
            "is it of another config?"
        )
    return tensor


def _arranged(readout: Tensor, rows: Rows) -> Tensor:
    """A readout, or its bias, whose rows are those of theirs or give a constant."""
    arranged = readout.new_zeros(len(rows), *readout.shape[1:])
    for place, row in enumerate(rows):
        if isinstance(row, int):
            arranged[place] = readout[row]
        elif readout.ndim == 1:
            arranged[place] = row
    return arranged
