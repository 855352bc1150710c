import errno

import pytest
import torch
from ray.exceptions import OutOfMemoryError as RayOutOfMemoryError
from ray.exceptions import RayTaskError

from gerbil_tune.errors import NonFiniteLossError
from gerbil_tune.training.memory import free_memory, out_of_memory


def of_the_cpu_allocator() -> BaseException:
    try:
        torch.empty(2**60)
    except RuntimeError as error:
        return error
    raise AssertionError


def caused_by(cause: BaseException) -> BaseException:
    try:
        raise ValueError("later") from cause
    except ValueError as error:
        return error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        of_the_cpu_allocator(),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate"
        ),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: cudaErrorMemoryAllocation"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RayOutOfMemoryError("Task was killed due to the node running low on memory."),
        RayTaskError("train", "traceback", MemoryError()),
        caused_by(MemoryError()),
        caused_by(caused_by(of_the_cpu_allocator())),
    ],
    ids=lambda error: f"{type(error).__name__}: {str(error)[:40]}",
)
def test_memory_that_ran_out_is_known_by_all_its_names(error):
    assert out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        OSError(errno.ENOSPC, "No space left on device"),
        ValueError("out of memory"),
        NonFiniteLossError("the loss became nan"),
        KeyboardInterrupt(),
    ],
)
def test_other_errors_are_not_taken_for_it(error):
    assert not out_of_memory(error)


def test_a_circle_of_causes_ends():
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert not out_of_memory(first)


def test_memory_can_be_freed_at_any_time():
    free_memory()
