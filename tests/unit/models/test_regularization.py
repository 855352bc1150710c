"""Letters: B batch."""

import math

import pytest
import torch

from gerbil_tune.models.regularization import StochasticDepth, depth_probabilities


def test_probabilities_grow_linearly_to_the_last_block():
    assert depth_probabilities(0.5, 5) == pytest.approx((0.1, 0.2, 0.3, 0.4, 0.5))
    assert depth_probabilities(0.3, 1) == (0.3,)
    assert depth_probabilities(0.0, 3) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.8])
def test_an_event_goes_without_its_branch_as_often_as_asked(probability):
    torch.manual_seed(0)
    num_events = 20_000
    branch = torch.full((num_events, 2, 3), 3.0)
    found = StochasticDepth(probability)(branch)
    dropped_B = (found == 0).all(dim=(1, 2))
    kept_B = torch.isclose(found, branch / (1 - probability)).all(dim=(1, 2))
    assert (dropped_B | kept_B).all(), "a branch is left out whole or not at all"
    # Five standard deviations of a binomial proportion.
    tolerance = 5 * math.sqrt(probability * (1 - probability) / num_events)
    assert dropped_B.float().mean().item() == pytest.approx(probability, abs=tolerance)
    assert found.mean().item() == pytest.approx(3.0, abs=3 * tolerance / (1 - probability))


def test_evaluation_leaves_the_branch_alone():
    branch = torch.randn(4, 3, 2)
    assert StochasticDepth(0.9).eval()(branch) is branch
    assert StochasticDepth(0.0).train()(branch) is branch


def test_the_seed_decides():
    depth, branch = StochasticDepth(0.5), torch.ones(64, 1)
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(depth(branch))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_gradient_goes_the_way_of_the_events_that_keep_the_branch():
    torch.manual_seed(0)
    branch = torch.randn(50, 4, requires_grad=True)
    found = StochasticDepth(0.4)(branch)
    found.sum().backward()
    kept_B1 = (found != 0).any(dim=1, keepdim=True)
    torch.testing.assert_close(branch.grad, (kept_B1 / 0.6).expand(50, 4))


def test_bfloat16_stays_and_is_scaled_to_its_precision():
    torch.manual_seed(0)
    found = StochasticDepth(0.3)(torch.ones(100, 1, dtype=torch.bfloat16))
    assert found.dtype == torch.bfloat16
    assert set(found.flatten().tolist()) == {0.0, torch.tensor(1 / 0.7).bfloat16().item()}
