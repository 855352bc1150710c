import errno

import pytest
import torch
from ray.exceptions import OutOfMemoryError as RayOutOfMemoryError
from ray.exceptions import RayTaskError

from gerbil_tune.errors import LaunchError, NonFiniteLossError
from gerbil_tune.training.memory import free_memory, out_of_memory, train_in_what_fits


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


class Hungry:
    """Trains in this process, and runs out of memory after an epoch in which steps had too few parts."""

    def __init__(self, run_job, parts):
        self.run_job, self.parts = run_job, parts
        self.jobs, self.said = [], []

    def __call__(self, job):
        self.jobs.append(job)
        if job.config.training.accumulate_steps < self.parts:
            return self.run_job(job, self.run_out)
        return self.run_job(job)

    def run_out(self, metrics):
        raise MemoryError("no room")


@pytest.mark.parametrize("accumulate_steps", [1, 3])
def test_a_run_goes_on_once_in_smaller_parts(make_job, run_job, accumulate_steps):
    training = {"epochs": 3, "global_batch_size": 40, "accumulate_steps": accumulate_steps}
    job, hungry = make_job(training=training), Hungry(run_job, 2 * accumulate_steps)
    reports = train_in_what_fits(hungry, job, hungry.said.append)
    parts = 2 * accumulate_steps
    assert hungry.said == [
        f"a worker ran out of memory (no room); going on with each step in {parts} parts"
    ]
    assert [report["epoch"] for report in reports] == [1, 2, 3]  # the first is told again
    used = [job.config.training for job in hungry.jobs]
    assert [training.accumulate_steps for training in used] == [accumulate_steps, parts]
    assert used[1].global_batch_size == 40
    assert hungry.jobs[1].run_dir == job.run_dir


def test_memory_that_runs_out_again_is_an_error(make_job, run_job):
    hungry = Hungry(run_job, 8)
    with pytest.raises(LaunchError) as error:
        train_in_what_fits(hungry, make_job(), hungry.said.append)
    assert len(hungry.jobs) == 2
    assert str(error.value) == (
        "a worker ran out of memory, with each step in 2 parts too (no room); free memory or take a machine "
        "with more, and the same command goes on"
    )


def test_what_has_room_is_trained_once(make_job, run_job):
    hungry = Hungry(run_job, 1)
    train_in_what_fits(hungry, make_job(training={"epochs": 1}), hungry.said.append)
    assert (len(hungry.jobs), hungry.said) == (1, [])
