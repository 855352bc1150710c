"""What went wrong in a worker by the run's own fault, told to the process that waits for the group.

Ray Train begins a group anew whatever its workers raise. That helps against a crash, not against a loss that
diverges or data that cannot be read, which a worker therefore notes in the run's folder.
"""

import json
import os
from pathlib import Path

import gerbil_tune.errors
from gerbil_tune.errors import GerbilTuneError
from gerbil_tune.training.memory import out_of_memory

_NOTE = "error.json"
_OUT_OF_MEMORY = "out of memory"


def is_own_error(error: BaseException) -> bool:
    """Whether trying again would lead to the same error."""
    return isinstance(error, GerbilTuneError) or out_of_memory(error)


def note_error(run_dir: Path, error: BaseException) -> None:
    """Keep an error of the run for ``noted_error``; the first one counts."""
    if (run_dir / _NOTE).exists():
        return
    kind = _OUT_OF_MEMORY if out_of_memory(error) else type(error).__name__
    run_dir.mkdir(parents=True, exist_ok=True)
    temporary = run_dir / f"{_NOTE}.{os.getpid()}"
    temporary.write_text(json.dumps({"kind": kind, "message": " ".join(str(error).split())}))
    temporary.replace(run_dir / _NOTE)


def noted_error(run_dir: Path) -> GerbilTuneError | MemoryError | None:
    """The error that a worker noted, or None."""
    try:
        note = json.loads((run_dir / _NOTE).read_text())
    except FileNotFoundError:
        return None
    if note["kind"] == _OUT_OF_MEMORY:
        return MemoryError(note["message"])
    error: GerbilTuneError = getattr(gerbil_tune.errors, note["kind"], GerbilTuneError)(
        note["message"]
    )
    return error


def forget_error(run_dir: Path) -> None:
    """Let the run be tried again."""
    (run_dir / _NOTE).unlink(missing_ok=True)
