"""Pages on the disk: whole or not at all."""

import os
import time
from pathlib import Path


def write_text(path: Path, text: str) -> Path:
    """Write a file to a temporary name beside it and rename it; returns the path."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def written_now() -> str:
    """The time, for a reader anywhere."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
