from dataclasses import replace

import pytest
import torch

from gerbil_tune.evaluation import blocks
from gerbil_tune.evaluation.blocks import (
    draw_log_densities,
    event_blocks,
    negative_log_likelihoods,
    without_negligible,
)
from gerbil_tune.models.density import LocationDensity
from gerbil_tune.models.event_noise import EventNoise
from tests.unit.evaluation.densities import gaussians, grids, mixtures, truths_of


@pytest.mark.parametrize("values_at_a_time", [1, 100, 10**9])
def test_blocks_hold_each_event_once(
    monkeypatch: pytest.MonkeyPatch, values_at_a_time: int
) -> None:
    monkeypatch.setattr(blocks, "_VALUES_AT_A_TIME", values_at_a_time)
    density = mixtures(count=21, keypoints=2)
    parts = list(event_blocks(density, num_draws=3))

    means = torch.cat([block.means_mm_BKMD for _, block in parts])
    assert torch.equal(means, density.means_mm_BKMD)
    assert parts[0][0].start == 0
    values_per_event = 3 * 2 * 2 * 2
    assert len(parts) == -(-21 // max(1, values_at_a_time // values_per_event))


def test_likelihoods_do_not_depend_on_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    density = grids(count=15)
    truth = truths_of(density)
    whole = negative_log_likelihoods(density, truth)
    monkeypatch.setattr(blocks, "_VALUES_AT_A_TIME", 1)

    assert negative_log_likelihoods(density, truth.numpy()) == pytest.approx(whole)
    assert whole == pytest.approx(-density.log_density_BK(truth).numpy(), rel=1e-4)


def test_leaving_out_what_has_no_weight_changes_nothing() -> None:
    _, block = next(event_blocks(grids(count=3)))
    light = without_negligible(block)
    draws = block.sample(500, EventNoise.counted(len(block.log_weights_BKM), 0))

    assert light.log_weights_BKM.shape[2] < block.log_weights_BKM.shape[2]
    assert torch.allclose(light.log_density_BK(draws), block.log_density_BK(draws), atol=1e-4)


@pytest.mark.parametrize("sd_mm", [20.0, 0.1])
def test_cells_are_looked_at_all_at_once(sd_mm: float) -> None:
    """Two grids over each other have no covariance in common, so that takes the other way."""
    grid = grids(count=5).to(dtype=torch.float64)
    tril = sd_mm * torch.tensor([[1.0, 0.0], [0.5, 0.7]], dtype=torch.float64)
    shared = replace(grid, scale_tril_mm_BKMDD=tril.expand(grid.scale_tril_mm_BKMDD.shape))
    draws = shared.sample(40, EventNoise.counted(len(shared.log_weights_BKM), 1))

    expected = LocationDensity.mixture_of([shared, shared]).log_density_BK(draws)
    assert torch.allclose(draw_log_densities(shared, draws), expected, atol=1e-6)


def test_a_single_gaussian_stays() -> None:
    density = gaussians()

    assert without_negligible(density) is density
