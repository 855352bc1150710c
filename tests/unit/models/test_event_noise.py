"""Random numbers of events: theirs alone, as random as they should be, and the same each time."""

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from gerbil_tune.models.event_noise import EventNoise

LIKE = torch.zeros(1, dtype=torch.float64)


def numbers(noise: EventNoise, count: int = 4) -> torch.Tensor:
    return torch.cat([noise.normal((count,), LIKE), noise.uniform((count,), LIKE)], dim=1)


def test_those_of_an_event_do_not_depend_on_the_others() -> None:
    every = numbers(EventNoise.counted(100))
    assert torch.equal(numbers(EventNoise(torch.tensor([70, 3]))), every[[70, 3]])
    assert torch.equal(numbers(EventNoise.counted(100).rows(slice(20, 30))), every[20:30])


def test_each_use_seed_and_event_has_others() -> None:
    noise = EventNoise.counted(50)
    drawn = [noise.normal((3,), LIKE), noise.normal((3,), LIKE)]
    drawn.append(EventNoise.counted(50, seed=1).normal((3,), LIKE))
    together = torch.cat(drawn).flatten().numpy()
    assert len(np.unique(together)) == together.size


@pytest.mark.parametrize(("kind", "law"), [("normal", "norm"), ("uniform", "uniform")])
def test_they_have_the_law_that_they_should_have(kind: str, law: str) -> None:
    drawn = getattr(EventNoise.counted(20_000), kind)((1,), LIKE)
    assert kstest(drawn.flatten().numpy(), law).pvalue > 1e-3


def test_type_device_and_shape_are_those_that_are_asked_for() -> None:
    drawn = EventNoise.counted(5).uniform((2, 3), torch.zeros(1, dtype=torch.float32))
    assert drawn.shape == (5, 2, 3)
    assert drawn.dtype == torch.float32


def test_more_than_the_table_can_give_is_refused() -> None:
    with pytest.raises(ValueError, match="more than half of the table"):
        EventNoise.counted(1).normal((1 << 20,), LIKE)
