"""Configs and weights as Gerbilizer and vocalocator wrote them, with outputs that their programs gave.

Letters: B batch, C microphones, T samples.
"""

import json
import math
from pathlib import Path

import numpy as np
import torch

CONV = {
    "CONV_NUM_CHANNELS": [4, 8],
    "CONV_FILTER_SIZES": [5, 5],
    "SHOULD_DOWNSAMPLE": [False, True],
    "CONV_DILATIONS": [1, 2],
}
CROP_LENGTH = 512
NUM_MICROPHONES = 4


def simple_shapes(*, num_outputs=5, num_inputs=NUM_MICROPHONES, batch_norm=True):
    """Of a SimpleNetwork with the layers of ``CONV``."""
    shapes = {}
    widths = [num_inputs, *CONV["CONV_NUM_CHANNELS"]]
    for layer in range(len(widths) - 1):
        in_channels, out_channels = widths[layer : layer + 2]
        for conv in ("fc", "gc"):
            shapes[f"conv_layers.{layer}.{conv}.weight"] = (out_channels, in_channels, 5)
            shapes[f"conv_layers.{layer}.{conv}.bias"] = (out_channels,)
        if batch_norm:
            shapes |= _batch_norm(f"conv_layers.{layer}.batch_norm", out_channels)
    return shapes | _linear("coord_readout", widths[-1], num_outputs)


def corr_shapes(*, num_outputs=5, hidden=16, length=64, num_layers=3):
    """Of a CorrSimpleNetwork with the layers of ``CONV``."""
    shapes = simple_shapes()
    del shapes["coord_readout.weight"], shapes["coord_readout.bias"]
    num_pairs = math.comb(NUM_MICROPHONES, 2)
    shapes |= _batch_norm("cps_network.0", num_pairs * length)
    shapes |= _linear("cps_network.1", num_pairs * length, hidden)
    for layer in range(num_layers - 1):
        shapes |= _linear(f"cps_network.{3 + layer}.submodule.0", hidden, hidden)
    joined = CONV["CONV_NUM_CHANNELS"][-1] + hidden
    shapes |= _linear("coord_readout.0", joined, joined)
    return shapes | _linear("coord_readout.2", joined, num_outputs)


def wavenet_shapes(*, num_outputs=5, num_blocks=3, channels=8, kernel_size=3, hidden=None):
    """Of a Wavenet; with ``hidden``, one with the correlations of two pairs at 64 lags."""
    shapes = {
        "initial_conv.weight": (channels, NUM_MICROPHONES, kernel_size),
        "initial_conv.bias": (channels,),
    }
    if hidden is not None:
        shapes |= _batch_norm("xcorr_mlp.0", 128)
        shapes |= _linear("xcorr_mlp.1", 128, hidden) | _linear("xcorr_mlp.3", hidden, hidden)
    for block in range(num_blocks):
        if hidden is not None:
            shapes |= _linear(f"blocks.{block}.injection_linear", hidden, channels)
        shapes[f"blocks.{block}.conv.weight"] = (2 * channels, channels, kernel_size)
        shapes[f"blocks.{block}.conv.bias"] = (2 * channels,)
        shapes[f"blocks.{block}.one_by_one.weight"] = (channels, channels, 1)
        shapes[f"blocks.{block}.one_by_one.bias"] = (channels,)
    return shapes | _linear("dense.0", channels, 512) | _linear("dense.2", 512, num_outputs)


def _linear(name, num_inputs, num_outputs):
    return {f"{name}.weight": (num_outputs, num_inputs), f"{name}.bias": (num_outputs,)}


def _batch_norm(name, size):
    vectors = ("weight", "bias", "running_mean", "running_var")
    return {**{f"{name}.{part}": (size,) for part in vectors}, f"{name}.num_batches_tracked": ()}


def state_dict(shapes, *, phase=0.0):
    """Weights that are sines of their place."""
    weights = {}
    for number, (name, shape) in enumerate(sorted(shapes.items())):
        places = np.arange(math.prod(shape), dtype=np.float64)
        values = 0.1 * np.sin(0.37 * places + number + phase)
        if name.endswith("running_var"):
            values = 1 + np.abs(values)
        elif name.endswith(("batch_norm.weight", "cps_network.0.weight", "xcorr_mlp.0.weight")):
            values = 1 + values
        weights[name] = torch.from_numpy(values.astype(np.float32).reshape(shape))
        if name.endswith("num_batches_tracked"):
            weights[name] = torch.tensor(0)
    return weights


def golden_input_BTC():
    """What the outputs below are of, as their networks take it: normalized already."""
    b, t, c = np.ogrid[:2, :CROP_LENGTH, :NUM_MICROPHONES]
    return torch.from_numpy(np.sin(0.01 * (t + 1) * (c + 1) + b).astype(np.float32))


def config(architecture, *, era="vocalocator", output="GAUSSIAN_FULL_COV", data=(), **parameters):
    """A config.json of one of the two programs, with what it fills in."""
    filled = (
        {"COMPUTE_XCORRS": False}
        if era == "gerbilizer"
        else {"NORMALIZE_DATA": True, "VOCALIZATION_DIR": None}
    )
    sizes = {} if architecture == "Wavenet" else CONV
    return {
        "GENERAL": {"CONFIG_NAME": "lab", "DEVICE": "GPU"},
        "ARCHITECTURE": architecture,
        "DATA": {
            "NUM_MICROPHONES": NUM_MICROPHONES,
            "SAMPLE_RATE": 125000,
            "CROP_LENGTH": CROP_LENGTH,
            "ARENA_DIMS": [572, 366],
            "ARENA_DIMS_UNITS": "MM",
            "DATAFILE_PATH": "/somewhere/else",
            **filled,
            **dict(data),
        },
        "MODEL_PARAMS": {**sizes, "OUTPUT_TYPE": output, **parameters},
        "OPTIMIZATION": {"OPTIMIZER": "SGD", "NUM_EPOCHS": 2},
    }


def save_run(folder: Path, tree, weights, *, name="best_weights.pt", stated=True) -> Path:
    """Write a config and weights as a training left them; return the config's path."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(weights, folder / name)
    if stated:
        tree = {**tree, "WEIGHTS_PATH": str(folder / name)}
    path = folder / "config.json"
    path.write_text(json.dumps(tree))
    return path


CORR_OPTIONS = {"CPS_HIDDEN_SIZE": 16, "CPS_NUM_LAYERS": 3, "XCORR_LENGTH": 64}
WAVENET_OPTIONS = {"NUM_BLOCKS": 3, "CONV_CHANNELS": 8, "KERNEL_SIZE": 3}
PAIRS_OPTIONS = {
    **WAVENET_OPTIONS,
    "XCORR_PAIRS": [[0, 1], [2, 3]],
    "XCORR_LENGTH": 64,
    "XCORR_HIDDEN": 16,
}
NETWORKS = {
    "gerbilizer-simple": (
        config("GerbilizerSimpleNetwork", era="gerbilizer"),
        "gerbilizer",
        simple_shapes(),
        573,
        [
            [-0.0964656, -0.011396, -0.0579093, 0.0834149, -0.0075056],
            [-0.0966884, -0.0112503, -0.0579731, 0.0833946, -0.00740195],
        ],
    ),
    "vocalocator-simple": (
        config("VocalocatorSimpleNetwork"),
        "vocalocator-1.1",
        simple_shapes(),
        573,
        [
            [-0.0966636, -0.0113486, -0.0578046, 0.0831614, -0.00711169],
            [-0.0968595, -0.0112225, -0.0578569, 0.0831382, -0.00701365],
        ],
    ),
    "vocalocator-corr": (
        config("CorrSimpleNetwork", **CORR_OPTIONS),
        "vocalocator-1.1",
        corr_shapes(),
        8725,
        [
            [-0.0167856, -0.00514252, 0.382643, -0.309957, 0.423346],
            [0.00723989, 0.0563379, 0.253456, -0.150466, 0.279725],
        ],
    ),
    "vocalocator-wavenet": (
        config("Wavenet", **WAVENET_OPTIONS),
        "vocalocator-1.1",
        wavenet_shapes(),
        8693,
        [
            [-1.16647, -0.771879, 0.32888, 1.21448, 1.13394],
            [-1.16647, -0.77188, 0.328884, 1.21449, 1.13394],
        ],
    ),
    "vocalocator-wavenet-pairs": (
        config("Wavenet", **PAIRS_OPTIONS),
        "vocalocator-1.1",
        wavenet_shapes(hidden=16),
        11693,
        [
            [-1.13881, -1.00125, 0.034091, 1.10694, 1.31708],
            [-1.13989, -1.00138, 0.0350125, 1.10815, 1.31758],
        ],
    ),
}
"""By name: config, era, shapes of weights, number of parameters, and raw outputs that the programs gave."""
