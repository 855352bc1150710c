"""Costs against layers counted by hand and against what really runs."""

import time

import pytest
import torch
from torch.overrides import TorchFunctionMode

from gerbil_tune.config.load import compose
from gerbil_tune.config.schema import ExperimentConfig
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.cost import model_cost
from gerbil_tune.models.localizer import Localizer

SETUP = RecordingSetup(4, 125_000.0, (572.0, 356.0), keypoints=("nose", "head"))
KINDS = ("gcc-net", "corrnet", "simplenet", "densenet")


def make_config(**values: object) -> ExperimentConfig:
    short = {"data/crop_length": 3000, **values}
    return compose({}, short, "config")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_are_those_of_the_model(kind):
    config = make_config(**{"model/kind": kind})
    model = Localizer(config, SETUP)
    assert model_cost(config, SETUP).parameters == sum(p.numel() for p in model.parameters())


def test_operations_of_a_network_counted_by_hand():
    config = compose(
        {
            "data": {"crop_length": 1000},
            "model": {
                "kind": "simplenet",
                "conv": {
                    "channels": [8, 16],
                    "kernel_sizes": [9, 5],
                    "downsample": [True, False],
                    "dilations": [1, 2],
                    "normalization": "layer",
                },
            },
        },
        {},
        "config",
    )
    # Twice the channels: tanh and gate. A multiplication and an addition for each weight and time.
    first = 2 * 500 * (4 * 9) * (2 * 8)
    second = 2 * 500 * (8 * 5) * (2 * 16)
    readout = 2 * 16 * (2 * 5)
    cost = model_cost(config, SETUP)
    assert cost.gflop_per_event == pytest.approx((first + second + readout) / 1e9, rel=1e-12)
    assert cost.features_gflop_per_event == 0
    weights = (4 * 9 + 1) * 16 + 2 * 8 + (8 * 5 + 1) * 32 + 2 * 16 + (16 + 1) * 10
    assert cost.parameters == weights


class Transforms(TorchFunctionMode):
    """Notes how many Fourier transforms run, and how long they are."""

    def __init__(self):
        super().__init__()
        self.lengths = []

    def __torch_function__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        if function in (torch.fft.rfft, torch.fft.irfft):
            spectra = result if function is torch.fft.rfft else arguments[0]
            self.lengths += [keywords["n"]] * (spectra.numel() // spectra.shape[-1])
        return result


@pytest.mark.parametrize("envelope", [False, True])
@pytest.mark.parametrize("num_samples", [3000, 3072, 100])
def test_the_transforms_of_the_correlations_are_those_that_run(envelope, num_samples):
    config = make_config(**{"features/gcc/envelope": envelope, "data/crop_length": num_samples})
    model = Localizer(config, SETUP)
    audio_BTC = torch.randn(1, num_samples, 4)
    with Transforms() as transforms, torch.no_grad():
        model.extractor(audio_BTC, torch.tensor([num_samples]))
    length = model.extractor.gcc.spectra.fft_length
    assert set(transforms.lengths) == {length}
    by_formula = 2.5 * length * torch.log2(torch.tensor(float(length), dtype=torch.float64))
    pairs, frequencies = 6, length // 2 + 1
    num_windows = (len(transforms.lengths) - pairs * (2 if envelope else 1)) // 4
    expected = len(transforms.lengths) * by_formula + 8 * pairs * num_windows * frequencies
    cost = model_cost(config, SETUP)
    assert cost.features_gflop_per_event == pytest.approx(float(expected) / 1e9, rel=1e-9)
    assert cost.gflop_per_event > cost.features_gflop_per_event


def test_the_batch_does_not_change_the_cost_of_an_event():
    costs = [
        model_cost(
            make_config(**{"model/kind": "corrnet", "training/global_batch_size": size}), SETUP
        )
        for size in (2, 64)
    ]
    assert costs[0].gflop_per_event == pytest.approx(costs[1].gflop_per_event)
    assert costs[0].training_bytes < costs[1].training_bytes


def test_memory_is_that_of_a_workers_part_of_the_batch():
    half = make_config(**{"model/kind": "densenet", "training/global_batch_size": 16})
    whole = make_config(**{"model/kind": "densenet", "training/global_batch_size": 32})
    in_parts = make_config(
        **{
            "model/kind": "densenet",
            "training/global_batch_size": 32,
            "training/accumulate_steps": 2,
        }
    )
    expected = model_cost(half, SETUP).training_bytes
    assert model_cost(whole, SETUP, num_workers=2).training_bytes == expected
    assert model_cost(in_parts, SETUP).training_bytes == expected
    assert model_cost(whole, SETUP).training_bytes > expected


def test_optimizer_and_average_hold_copies_of_the_weights():
    adamw = model_cost(make_config(), SETUP)
    sgd = model_cost(make_config(**{"optimizer/kind": "sgd"}), SETUP)
    averaged = model_cost(make_config(**{"training/ema_decay": 0.99}), SETUP)
    assert adamw.training_bytes - sgd.training_bytes == 4 * adamw.parameters
    assert averaged.training_bytes - adamw.training_bytes == 4 * adamw.parameters


@pytest.mark.parametrize("normalization", ["batch", "layer", "none"])
def test_activations_are_what_a_real_forward_pass_keeps(normalization):
    config = make_config(
        **{
            "model/kind": "densenet",
            "model/normalization": normalization,
            "training/global_batch_size": 4,
        }
    )
    model = Localizer(config, SETUP).train()
    weights = {parameter.data_ptr() for parameter in model.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        raw = model(torch.randn(4, 3000, 4), torch.full((4,), 3000))
    sizes = [storage.nbytes() for storage in kept.values()]
    del raw
    cost = model_cost(config, SETUP)
    audio = 4 * 3000 * 4 * 4
    expected = 16 * cost.parameters + 2 * audio + sum(sizes) + 2 * max(sizes)
    assert cost.training_bytes == pytest.approx(expected, rel=0.1)


def test_it_is_cheap():
    model_cost(make_config(**{"model/kind": "densenet"}), SETUP)  # imports
    started = time.process_time()
    for growth in range(4, 12):
        model_cost(make_config(**{"model/kind": "densenet", "model/growth": growth}), SETUP)
    assert (time.process_time() - started) / 8 < 0.2
