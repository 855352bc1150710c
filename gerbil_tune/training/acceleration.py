"""How operations are run: compiled, or such that their results repeat bit by bit."""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from gerbil_tune.config.schema import TrainingConfig
from gerbil_tune.models.features.features import Features
from gerbil_tune.training.memory import out_of_memory

_CUBLAS_VARIABLE = "CUBLAS_WORKSPACE_CONFIG"
_CUBLAS_WORKSPACES = ":4096:8"
"""Of a fixed size, without which cuBLAS may choose another algorithm each time (its manual, 2.1.4)."""
_LONGEST_REASON = 200


@contextmanager
def accelerated(config: TrainingConfig) -> Iterator[None]:
    """Compile and repeat as configured; afterwards the process is as it was before.

    One process may train one configuration after the other.
    """
    with _deterministic(config.deterministic), _compiler(config.compile):
        yield


@contextmanager
def _deterministic(is_wanted: bool) -> Iterator[None]:
    if not is_wanted:
        yield
        return
    was_wanted = torch.are_deterministic_algorithms_enabled()
    was_warning = torch.is_deterministic_algorithms_warn_only_enabled()
    was_benchmarking = torch.backends.cudnn.benchmark
    variable = os.environ.get(_CUBLAS_VARIABLE)
    # It counts from the first product of matrices on.
    os.environ.setdefault(_CUBLAS_VARIABLE, _CUBLAS_WORKSPACES)
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was_wanted, warn_only=was_warning)
        torch.backends.cudnn.benchmark = was_benchmarking
        if variable is None:
            del os.environ[_CUBLAS_VARIABLE]


@contextmanager
def _compiler(is_wanted: bool) -> Iterator[None]:
    if not is_wanted:
        yield
        return
    with warnings.catch_warnings():
        # What it thinks of itself and of the hardware is nothing that a user could act on.
        warnings.filterwarnings("ignore", module=r"torch(\.|$)")
        try:
            yield
        finally:
            # It keeps what it has compiled for a class, and stops compiling after some networks of it.
            torch.compiler.reset()


def compile_network(
    network: nn.Module,
    say: Callable[[str], object],
    *,
    backend: str | Callable[..., Any] = "inductor",
) -> None:
    """Let a network run compiled from now on, for events of any length; where that fails, as it is.

    Neither its class nor its state changes. Copy it before: copies would run what is compiled for this one.

    Args:
        network: Changed in place.
        say: Told in a sentence if it cannot be compiled.
        backend: The compiler, by torch's name for it or as torch calls one.
    """
    network.forward = _CompiledForward(network.forward, say, backend)


class _CompiledForward:
    """A network's ``forward``: compiled when it is first called, and again for other shapes where needed."""

    def __init__(
        self,
        forward: Callable[..., Tensor],
        say: Callable[[str], object],
        backend: str | Callable[..., Any],
    ) -> None:
        self._plain = forward
        self._say = say
        self._backend = backend
        self._chosen: Callable[..., Tensor] | None = None

    def __call__(self, features: Features) -> Tensor:
        if self._chosen is self._plain:
            return self._plain(features)
        try:
            if self._chosen is None:
                self._chosen = torch.compile(self._plain, dynamic=True, backend=self._backend)
            return self._chosen(features)
        except Exception as error:  # of whatever the compiler and its own tools come upon
            if out_of_memory(error):
                raise
            said, *_advice_to_developers = str(error).split("\n\n")
            reason = " ".join(said.split())[:_LONGEST_REASON]
        result = self._plain(
            features
        )  # an error of the network itself comes again, and is no compiler's
        self._chosen = self._plain
        self._say(f"the network could not be compiled, and runs as it is: {reason}")
        return result
