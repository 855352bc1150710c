"""Out of memory: the many ways in which it is said, and what can be freed."""

import errno
import gc

import torch

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
