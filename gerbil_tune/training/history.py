"""The history of a run: the metrics of each epoch, one JSON object a line.

Lines are added to it and brought to the disk one by one, so that a power cut may leave bytes in it that are
no line. The checkpoints say how far the run has come; of the history what can be read counts.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

HISTORY = "metrics.jsonl"
"""Name of the file in a run's folder."""


def append_epoch(run_dir: Path, metrics: Mapping[str, float]) -> None:
    """Add the metrics of an epoch, among them ``epoch``; they are on the disk then."""
    with (run_dir / HISTORY).open("a") as file:
        file.write(json.dumps(dict(metrics)) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_history(run_dir: Path) -> list[dict[str, float]]:
    """Metrics of each epoch in a run's history, in its order; what is no whole line of it is passed over."""
    return [metrics for _, metrics in _whole_lines(run_dir)]


def copy_history(run_dir_from: Path, run_dir_to: Path, epochs: int) -> None:
    """Copy the lines of the first epochs, and no others."""
    kept = [line for line, metrics in _whole_lines(run_dir_from) if metrics["epoch"] <= epochs]
    temporary = run_dir_to / f"{HISTORY}.partial"
    with temporary.open("wb") as file:
        file.write(b"".join(line + b"\n" for line in kept))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(run_dir_to / HISTORY)


def drop_history_after(run_dir: Path, epochs: int) -> None:
    """Drop from a run's history the epochs that it will do again, and what is not a whole line.

    Args:
        run_dir: Of the run.
        epochs: Done at its newest readable checkpoint.
    """
    if (run_dir / HISTORY).exists():
        copy_history(run_dir, run_dir, epochs)


def _whole_lines(run_dir: Path) -> list[tuple[bytes, dict[str, float]]]:
    try:
        *lines, _ = (run_dir / HISTORY).read_bytes().split(b"\n")  # the last one is not ended
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        try:
            metrics = json.loads(line)
        except ValueError:
            continue
        if isinstance(metrics, dict) and isinstance(metrics.get("epoch"), int | float):
            found.append((line, metrics))
    return found
