"""Where things are kept that can be made again: packed audio and statistics of events.

    <cache>/packed/<content>.h5          audio of files that cannot be mapped into memory
    <cache>/recognised/<file's stamp>    content of a file that was seen before
    <cache>/statistics/<content>.f32     mean and standard deviation of each event and channel
    <cache>/features/<key>-cpu.npy       correlations and maps of events, where a study does not search them

Everything may be deleted at any time.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import platformdirs

VARIABLE = "GERBIL_TUNE_CACHE_DIR"
_BLOCK_BYTES = 1 << 24


def cache_folder(name: str) -> Path:
    """Make and return a folder of the cache: of ``GERBIL_TUNE_CACHE_DIR``, else of the user's cache folder.

    Raises:
        OSError: If it cannot be made.
    """
    chosen = os.environ.get(VARIABLE)
    root = Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("gerbil_tune")
    folder = root.absolute() / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def content_of(path: Path, watch: Callable[[int], None] | None = None) -> str:
    """Hash of all bytes of a file, 32 hex digits.

    A file is read whole when it is new or has been changed, moved or copied; otherwise its place, size and
    time of change recall what it held.

    Args:
        path: The file.
        watch: Is told how many bytes more were read.

    Raises:
        OSError: If the file or the cache cannot be read.
    """
    note = cache_folder("recognised") / _stamp(path)
    try:
        return note.read_text()
    except FileNotFoundError:
        digest = hashlib.blake2b(digest_size=16)
        with path.open("rb") as stream:
            while block := stream.read(_BLOCK_BYTES):
                digest.update(block)
                if watch is not None:
                    watch(len(block))
        content = digest.hexdigest()
        temporary = note.with_name(f".{note.name}.{os.getpid()}")
        temporary.write_text(content)
        temporary.replace(note)
        return content


def _stamp(path: Path) -> str:
    facts = path.stat()
    text = f"{path.resolve()} {facts.st_dev} {facts.st_ino} {facts.st_size} "
    # The time of the last change of any kind, for the other can be set to anything.
    text += f"{facts.st_mtime_ns} {facts.st_ctime_ns}"
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
