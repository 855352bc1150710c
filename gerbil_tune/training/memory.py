"""Out of memory: the many ways in which it is said, what can be freed, and training with less of it."""

import dataclasses
import errno
import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from gerbil_tune.errors import LaunchError
from gerbil_tune.training.job import TrainingJob

Result = TypeVar("Result")

_PHRASES = (
    "can't allocate memory",  # torch's CPU allocator
    "cannot allocate memory",
    "not enough memory",
    "out of memory",
    "cudaerrormemoryallocation",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
)
_NAMES = {"OutOfMemoryError"}  # Ray's, which must not be imported here


def out_of_memory(error: BaseException) -> bool:
    """Whether an error, or one that caused it, says that memory ran out.

    Args:
        error: Of torch on any device, of Python, of the system or of Ray.
    """
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        if _says_so(cause):
            return True
        inner = getattr(cause, "cause", None)  # of Ray's task errors
        cause = inner if isinstance(inner, BaseException) else cause.__cause__
    return False


def _says_so(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ in _NAMES:
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(phrase in text for phrase in _PHRASES)


def free_memory() -> None:
    """Give back what nobody uses; drop the error first, whose traceback holds the tensors of its frames."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def train_in_what_fits(
    train: Callable[[TrainingJob], Result],
    job: TrainingJob,
    say: Callable[[str], None],
    *,
    advice: str = "free memory or take a machine with more, and the same command goes on",
) -> Result:
    """Train; where memory runs out, go on once with each step in twice as many parts.

    A step has the same events then, and the run goes on from its newest checkpoint.

    Args:
        train: Trains a job to its end.
        job: What to train.
        say: Told in a sentence of the second training.
        advice: What to do where that does not fit either.

    Raises:
        LaunchError: If memory runs out again.
    """
    try:
        return train(job)
    except MemoryError as error:
        said = str(error)
    free_memory()
    training = job.config.training
    parts = 2 * training.accumulate_steps
    say(f"a worker ran out of memory ({said[:300]}); going on with each step in {parts} parts")
    smaller = training.model_copy(update={"accumulate_steps": parts})
    config = job.config.model_copy(update={"training": smaller})
    try:
        return train(dataclasses.replace(job, config=config))
    except MemoryError as error:
        raise LaunchError(
            f"a worker ran out of memory, with each step in {parts} parts too ({str(error)[:300]}); {advice}"
        ) from None
