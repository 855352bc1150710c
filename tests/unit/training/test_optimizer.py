import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gerbil_tune.config.schema import AdamWConfig, ExperimentConfig, LrScheduleConfig, SgdConfig
from gerbil_tune.geometry import RecordingSetup
from gerbil_tune.models.localizer import Localizer
from gerbil_tune.models.registry import ARCHITECTURES
from gerbil_tune.training.optimizer import lr_factor, make_optimizer
from gerbil_tune.training.steps import mix_seed

MICROPHONES_MM = tuple((x, y, 100.0) for x in (-286.0, 286.0) for y in (-178.0, 178.0))
SETUP = RecordingSetup(4, 50_000.0, (572.0, 356.0), MICROPHONES_MM)
KINDS = [kind for kind in sorted(ARCHITECTURES) if not kind.startswith("legacy-")]
NORMS = (torch.nn.LayerNorm, torch.nn.BatchNorm1d, torch.nn.GroupNorm)


def factors(total_steps, **config):
    config = LrScheduleConfig(**config)
    return [lr_factor(config, step, total_steps) for step in range(total_steps)]


def test_warm_up_is_linear():
    found = factors(100, warmup_fraction=0.1)
    assert found[:10] == pytest.approx([(step + 1) / 11 for step in range(10)])
    assert found[10] == 1.0


def test_then_a_cosine_down_to_the_final_fraction():
    found = factors(110, warmup_fraction=0.0, final_fraction=0.2)
    expected = [0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi * step / 110)) for step in range(110)]
    assert found == pytest.approx(expected)
    assert found[55] == pytest.approx(0.6)


def test_constant_when_the_final_fraction_is_one():
    assert factors(50, warmup_fraction=0.0, final_fraction=1.0) == [1.0] * 50


@given(
    total_steps=st.integers(1, 400),
    warmup_fraction=st.floats(0.0, 0.99),
    final_fraction=st.floats(0.0, 1.0),
)
def test_rises_once_then_falls_and_stays_in_its_range(total_steps, warmup_fraction, final_fraction):
    found = factors(total_steps, warmup_fraction=warmup_fraction, final_fraction=final_fraction)
    assert all(0.0 < factor <= 1.0 for factor in found)
    top = found.index(max(found))
    assert found[:top] == sorted(found[:top])
    assert found[top:] == sorted(found[top:], reverse=True)
    after_warm_up = found[math.ceil(warmup_fraction * total_steps) :]
    assert all(factor >= final_fraction for factor in after_warm_up)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kernel_size", [1, 7])
def test_weights_are_decayed_norms_and_biases_are_not(kind, kernel_size):
    """A convolution with kernels of one sample has weights too."""
    model = {"kind": kind}
    if "lags" in ARCHITECTURES[kind].__init__.__annotations__["config"].model_fields:
        model["lags"] = {"kernel_size": kernel_size}
    network = Localizer(ExperimentConfig(model=model), SETUP)
    optimizer = make_optimizer(AdamWConfig(weight_decay=0.3), network)
    decay = {
        id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]
    }
    for name, parameter in network.named_parameters():
        owner = network.get_submodule(name.rpartition(".")[0])
        is_weight = name.endswith(".weight") and not isinstance(owner, NORMS)
        assert decay.pop(id(parameter)) == (0.3 if is_weight else 0.0), name
    assert not decay


def test_batch_norm_gains_are_not_decayed():
    network = torch.nn.Sequential(torch.nn.Conv1d(2, 3, 1), torch.nn.BatchNorm1d(3))
    decayed, others = make_optimizer(SgdConfig(), network).param_groups
    assert decayed["params"] == [network[0].weight]
    assert len(others["params"]) == 3


def test_optimizers_are_those_of_the_config():
    network = torch.nn.Linear(2, 2)
    adamw = make_optimizer(AdamWConfig(learning_rate=0.01, betas=(0.8, 0.95)), network)
    assert type(adamw) is torch.optim.AdamW
    assert adamw.param_groups[0]["betas"] == (0.8, 0.95)
    sgd = make_optimizer(SgdConfig(learning_rate=0.01, momentum=0.7), network)
    assert type(sgd) is torch.optim.SGD
    assert sgd.param_groups[0]["momentum"] == 0.7
    assert adamw.param_groups[0]["lr"] == sgd.param_groups[0]["lr"] == 0.01


def test_learning_rate_follows_the_schedule_over_the_whole_run(make_job, run_job):
    job = make_job(
        training={"epochs": 4},
        optimizer={"learning_rate": 0.001},
        lr_schedule={"warmup_fraction": 0.0, "final_fraction": 0.0},
    )
    steps = 4 * (160 // 32)
    last_steps = range(4, steps, 5)
    expected = [0.001 * 0.5 * (1 + math.cos(math.pi * step / steps)) for step in last_steps]
    assert [report["learning_rate"] for report in run_job(job)] == pytest.approx(expected)


def test_mixed_seeds_differ_and_fit_a_generator():
    numbers = list(itertools.product((0, 1, 2, 2**40), range(5), range(5), range(2)))
    seeds = {mix_seed(s, epoch, rank, step) for s, epoch, rank, step in numbers}
    assert len(seeds) == len(numbers)
    assert all(0 <= seed < 2**63 for seed in seeds)
