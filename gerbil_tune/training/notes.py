"""What a run has to say beside its metrics: a file of sentences in its folder, on every worker's storage."""

import json
from collections.abc import Iterable
from pathlib import Path

_NOTES = "notes.json"


def add_notes(run_dir: Path, notes: Iterable[str]) -> None:
    """Keep sentences that are not there yet; of rank 0 alone.

    Args:
        run_dir: Folder of the run.
        notes: A line each.
    """
    known = read_notes(run_dir)
    new = [note for note in notes if note not in known]
    if not new:
        return
    path = run_dir / _NOTES
    temporary = path.with_name(f"{path.name}.partial")
    temporary.write_text(json.dumps(known + new, indent=2) + "\n")
    temporary.replace(path)


def read_notes(run_dir: Path) -> list[str]:
    """All sentences, the first one first; none where the file is damaged."""
    try:
        notes = json.loads((run_dir / _NOTES).read_text())
    except (OSError, ValueError):
        return []
    return [str(note) for note in notes] if isinstance(notes, list) else []
