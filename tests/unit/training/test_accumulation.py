"""A step in several parts is the step on the whole; with several workers it is tested with them."""

import pytest
import torch

from gerbil_tune.models.localizer import Localizer
from gerbil_tune.training.loop import begin
from gerbil_tune.training.optimizer import optimizer_step, split_batch
from gerbil_tune.training.session import InProcessSession
from gerbil_tune.training.steps import StreamedSteps

CPU = torch.device("cpu")
CONV = {"channels": [4, 6], "kernel_sizes": [9, 5], "downsample": [True, True], "dilations": [1, 1]}
MODELS = {
    "gcc-net": {"lags": {"num_channels": 8, "num_blocks": 2, "hidden": 16, "dropout": 0.0}},
    "simplenet": {"kind": "simplenet", "conv": CONV},
    "densenet": {"kind": "densenet", "num_stages": 4, "kernel_size": 9},
    "corrnet": {"kind": "corrnet", "conv": CONV, "hidden": 8, "lags": {"dropout": 0.0}},
}


def first_step(job):
    steps = StreamedSteps(
        job.config,
        job.setup,
        job.splits.train,
        Localizer(job.config, job.setup),
        InProcessSession(print, CPU),
    )
    return next(steps.epoch(0))


def gradients(job, batch, num_parts):
    torch.manual_seed(0)
    state = begin(Localizer(job.config, job.setup), job)
    loss = optimizer_step(state, state.model.network, *batch, None, num_parts)
    return float(loss), {name: p.grad for name, p in state.model.named_parameters()}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("num_parts", [2, 3, 32, 100])
def test_parts_add_up_to_the_gradient_of_the_whole(make_job, name, num_parts):
    job = make_job(model=MODELS[name], training={"precision": "float32"})
    batch = first_step(job)
    expected_loss, expected = gradients(job, batch, 1)
    loss, found = gradients(job, batch, num_parts)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for parameter, gradient in expected.items():
        torch.testing.assert_close(found[parameter], gradient, rtol=1e-3, atol=1e-5 * largest)


@pytest.mark.parametrize(
    ("num_parts", "sizes"), [(1, [32]), (3, [11, 11, 10]), (32, [1] * 32), (100, [1] * 32)]
)
def test_parts_are_as_equal_as_can_be(make_job, num_parts, sizes):
    features, locations_BKD = first_step(make_job())
    parts = list(split_batch(features, locations_BKD, num_parts))
    assert [len(places) for _, places in parts] == sizes
    assert torch.equal(torch.cat([places for _, places in parts]), locations_BKD)
    assert torch.equal(torch.cat([part.gcc_BPL for part, _ in parts]), features.gcc_BPL)
    assert torch.equal(torch.cat([part.lengths_B for part, _ in parts]), features.lengths_B)


def test_a_run_in_parts_is_the_run(make_job, run_job):
    model = {"lags": {"dropout": 0.0}}
    whole = run_job(make_job("whole", model=model))
    in_parts = run_job(make_job("parts", model=model, training={"accumulate_steps": 3}))
    for first, second in zip(whole, in_parts, strict=True):
        assert second == pytest.approx(first, rel=2e-3, abs=1e-4)
