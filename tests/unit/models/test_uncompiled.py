"""Functions that ``torch.compile`` leaves as they are."""

import subprocess
import sys

import torch

from gerbil_tune.models.uncompiled import uncompiled


@uncompiled
def doubled_by_hand(x: torch.Tensor) -> torch.Tensor:
    """In a way that a compiler would reject: it looks whether it is being traced."""
    assert not torch.compiler.is_compiling()
    return torch.from_numpy(2 * x.detach().numpy())


def test_it_runs_as_it_is_in_a_compiled_function_and_alone() -> None:
    compiled = torch.compile(lambda x: doubled_by_hand(x + 1) + 1, backend="eager")
    x = torch.arange(3.0)
    torch.testing.assert_close(compiled(x), 2 * (x + 1) + 1)
    torch.testing.assert_close(doubled_by_hand(x), 2 * x)
    assert doubled_by_hand.__name__ == "doubled_by_hand"


def test_the_compiler_is_not_loaded_with_the_models() -> None:
    """It takes a second, which each process that predicts would pay."""
    command = "import sys, gerbil_tune.models.bundle; sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", command], check=False).returncode == 0
