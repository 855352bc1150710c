"""The files in a trained model's folder: written whole or not at all, and read with care."""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gerbil_tune.errors import DatasetError
from gerbil_tune.models.calibrated import Calibration

CONFIG_FILE = "config.json"
"""Of a bundle: the experiment and the recording site."""
ENSEMBLE_FILE = "ensemble.json"
"""Of an ensemble, in its place: the members."""
METRICS_FILE = "metrics.json"
CALIBRATION_FILE = "calibration.json"
PROVENANCE_FILE = "provenance.json"
TEST_EVENTS_FILE = "test_events.npy"
"""Of a bundle that was trained beside test events: which they are."""

Facts = dict[str, Mapping[str, Any]]
"""Content by file name."""


def model_folder(path: Path) -> Path:
    """Folder of a model that is named by its folder or by its main file."""
    return path.parent if path.name in (CONFIG_FILE, ENSEMBLE_FILE) else path


def write_model_folder(
    parent: Path, folder: Path | None, fill: Callable[[Path], None], facts: Facts
) -> Path:
    """Write a folder under a temporary name and rename it; nothing stays where that fails.

    Args:
        parent: Where it becomes the next five-digit number.
        folder: Where it goes instead, exactly; it must be free.
        fill: Writes what is particular to the kind of model into the folder that it is given.
        facts: What all kinds have.

    Returns:
        The folder, which is on the disk.
    """
    parent = parent if folder is None else folder.parent
    parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".partial-", dir=parent))
    try:
        temporary.chmod(0o755)
        for name, content in facts.items():
            write_json(temporary / name, content)
        fill(temporary)
        # Whoever gets the folder may delete what it was made of: it has to outlast a power cut.
        flush_tree(temporary)
        target = _rename_to_free(temporary, parent, folder)
        flush(parent)
        return target
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def flush(path: Path) -> None:
    """Bring a file's content, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_tree(folder: Path) -> None:
    """Bring a folder with all that is in it to the disk."""
    for path in folder.rglob("*"):
        flush(path)
    flush(folder)


def model_facts(
    metrics: Mapping[str, Any], calibration: Calibration, provenance: Mapping[str, Any]
) -> Facts:
    """What every kind of model states of itself."""
    return {
        METRICS_FILE: metrics,
        CALIBRATION_FILE: calibration.to_json(),
        PROVENANCE_FILE: provenance,
    }


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object.

    Raises:
        ValueError: If a number in it is not finite.
    """
    path.write_text(json.dumps(dict(content), indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        DatasetError: If there is none.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"{path} cannot be read as JSON ({error}); export the model again"
        ) from None
    if not isinstance(content, dict):
        raise DatasetError(f"{path} must hold a JSON object, but holds {type(content).__name__}")
    return content


def read_calibration(folder: Path) -> Calibration:
    """Read what calibrates a model.

    Raises:
        DatasetError: If the folder's calibration.json does not state it.
    """
    path = folder / CALIBRATION_FILE
    return Calibration.from_json(read_json(path), str(path))


def _rename_to_free(temporary: Path, parent: Path, folder: Path | None) -> Path:
    """Rename to ``folder`` or to the next free five-digit number; safe against others doing the same."""
    while True:
        numbers = [int(p.name) for p in parent.iterdir() if re.fullmatch(r"\d{5,}", p.name)]
        target = folder or parent / f"{max(numbers, default=0) + 1:05d}"
        try:
            os.rename(temporary, target)  # noqa: PTH104 - Path.rename hides that a non-empty target fails
        except OSError:
            if folder is not None or not target.exists():
                raise
            continue
        return target
