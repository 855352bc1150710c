"""Functions that ``torch.compile`` leaves as they are."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch._compile import _disable_dynamo

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def uncompiled(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Do what ``torch.compiler.disable`` does, but load the compiler only where something is compiled.

    That decorator loads it at once: a second of each process that only predicts, most of what one takes to
    start.
    """
    guarded: Callable[_Arguments, _Result] = _disable_dynamo(function)

    @wraps(function)
    def call(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        if torch.compiler.is_compiling():  # traced, and broken off there
            return guarded(*args, **kwargs)
        return function(*args, **kwargs)

    return call
