"""An exponential moving average of the weights: less noise than those of the last step."""

from typing import cast

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from gerbil_tune.models.localizer import Localizer


class WeightAverage:
    """The average of a model's weights and running statistics over the steps.

    After n steps the decay is at most (1 + n) / (10 + n), so that the first weights are soon forgotten.

    Args:
        model: Whose weights; copied.
        decay: Factor on the average at each step, below 1.
    """

    def __init__(self, model: Localizer, decay: float) -> None:
        self._decay = decay
        self._averaged = AveragedModel(model, multi_avg_fn=self._add, use_buffers=True)
        self._averaged.requires_grad_(False)

    @property
    def model(self) -> Localizer:
        """The model with the average."""
        return cast("Localizer", self._averaged.module)

    def update(self, model: Localizer) -> None:
        """Add the weights after a step."""
        self._averaged.update_parameters(model)

    def state_dict(self) -> dict[str, Tensor]:
        """The average and the number of steps in it, by name."""
        return self._averaged.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what ``state_dict`` gave."""
        self._averaged.load_state_dict(state)

    def _add(
        self,
        average: tuple[Tensor, ...] | list[Tensor],
        weights: tuple[Tensor, ...] | list[Tensor],
        num_steps: Tensor | int,
    ) -> None:
        if not torch.is_floating_point(average[0]):  # counters of steps
            torch._foreach_copy_(average, weights)
            return
        n = int(self._averaged.n_averaged)  # on the CPU: the one passed waits for the device
        decay = min(self._decay, (1 + n) / (10 + n))
        average_at = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        average_at(average, weights, num_steps)
