"""The folder of a run of ``gerbil-tune train``: of one process at a time, one data set and one bundle.

Beside split, checkpoints and weights, ``<save path>/.runs/<name>-<identity>/`` has data.json, fingerprints of
the data that the run was begun on, and at its end exported.json, the bundle that came of it. The lock is
``<save path>/.runs/<name>-<identity>.lock``.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from gerbil_tune.errors import ConfigError, LaunchError
from gerbil_tune.models.bundle_files import flush, read_json, write_json

if TYPE_CHECKING:
    from gerbil_tune.data.splits.splits import Splits

_DATA, _EXPORTED = "data.json", "exported.json"
_LOCK_WAIT_S = 2.0
"""A run that has just been stopped may need a moment to end."""


@contextmanager
def held(run_dir: Path) -> Iterator[None]:
    """Keep others from a run.

    The lock is beside the folder, which is removed at the end; the system frees it when the process ends.

    Raises:
        LaunchError: If another process is at it.
    """
    run_dir.parent.mkdir(parents=True, exist_ok=True)
    path = run_dir.with_name(f"{run_dir.name}.lock")
    lock = FileLock(path, timeout=_LOCK_WAIT_S)
    try:
        lock.acquire()
    except Timeout:
        raise LaunchError(
            f"another process is training the same configuration on the same data ({run_dir}); wait for it, "
            "stop it, or give this run another name with --set name=NAME or another --save-path"
        ) from None
    try:
        yield
    finally:
        if not run_dir.exists():
            path.unlink(missing_ok=True)  # while it is held, or it might be another's by now
            with suppress(OSError):
                run_dir.parent.rmdir()  # unless it holds other runs
        lock.release()


def check_data(run_dir: Path, splits: "Splits") -> str:
    """Keep what a run is begun on, and refuse to go on with other data.

    Args:
        run_dir: Of the run.
        splits: As they are now. The test part may change: nothing that training does depends on it.

    Returns:
        The fingerprint of the training events.

    Raises:
        ConfigError: Naming the file that differs.
    """
    parts = (splits.train, splits.validation)
    now = {"train": splits.train.fingerprint(), "validation": splits.validation.fingerprint()}
    files = {str(file.path): file.fingerprint() for part in parts for file in part.files}
    path = run_dir / _DATA
    if not path.exists():
        run_dir.mkdir(parents=True, exist_ok=True)
        _write(path, {**now, "files": files})
        return now["train"]
    begun = read_json(path)
    if any(begun.get(name) != fingerprint for name, fingerprint in now.items()):
        what = _difference(begun.get("files", {}), files)
        raise ConfigError(
            f"{what} since the run in {run_dir} began, and a run cannot go on with other data; bring back "
            "what it was begun on, or remove that folder to begin anew"
        )
    return now["train"]


def exported_from(run_dir: Path) -> tuple[Path | None, bool]:
    """The bundle that a run has been exported as, if it is still there, and whether it lacks nothing."""
    path = run_dir / _EXPORTED
    if not path.exists():
        return None, False
    note = read_json(path)
    bundle = Path(str(note.get("bundle")))
    return (bundle, note.get("is_whole") is True) if bundle.is_dir() else (None, False)


def note_export(run_dir: Path, bundle: Path, *, is_whole: bool) -> None:
    """Keep which bundle came of a run, so that the run is not exported twice if it is killed before its end.

    Args:
        run_dir: Of the run.
        bundle: Its folder.
        is_whole: Whether all that belongs into it is there, and the run's folder needed no more.
    """
    _write(run_dir / _EXPORTED, {"bundle": str(bundle.resolve()), "is_whole": is_whole})


def remove_run(run_dir: Path, *others: Path) -> None:
    """Delete a run that has been exported, and other folders of it; last what says that it has been."""
    for path in (*others, *(path for path in run_dir.iterdir() if path.name != _EXPORTED)):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    shutil.rmtree(run_dir, ignore_errors=True)


def _difference(begun: Mapping[str, str], now: Mapping[str, str]) -> str:
    """What has happened to the first file that is not as it was."""
    for path in sorted({*begun, *now}):
        if path not in now:
            return f"{path} is no longer part of the data"
        if path not in begun:
            return f"{path} has come to the data"
        if begun[path] != now[path]:
            return f"{path} has changed"
    return "the split of the data has changed"


def _write(path: Path, content: Mapping[str, Any]) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    write_json(temporary, content)
    flush(temporary)
    temporary.replace(path)
    flush(path.parent)
