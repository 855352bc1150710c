"""The end of a command whose Ray has died."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from gerbil_tune.errors import GerbilTuneError, StoppedError


@contextmanager
def left_without_ray() -> Iterator[None]:
    """End this process with an error's sentence and code where the error comes of Ray's own end.

    In an orderly exit Ray would wait for the processes that it has lost.
    """
    from gerbil_tune.training.ray_thread import loss_of_ray

    try:
        yield
    except GerbilTuneError as error:
        if loss_of_ray() is None:
            raise
        typer.echo(str(error) if isinstance(error, StoppedError) else f"error: {error}", err=True)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(error.exit_code)
