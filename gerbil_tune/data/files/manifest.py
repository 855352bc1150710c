"""The manifest of a folder of shards: which files, in which order, and what they must hold.

It is JSON, ``manifest.json``, with format, version, finished, fingerprint, num_events and, for each of the
shards, name, num_events, num_bytes and checksum. It is there before the first shard is, not finished, so that
a folder whose writing was interrupted is known for one.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from gerbil_tune.errors import DatasetError

MANIFEST = "manifest.json"
_FORMAT = "gerbil_tune shards"
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Shard:
    """One file of a folder of shards.

    Attributes:
        name: Of the file, in the manifest's folder.
        num_events: Events in it.
        num_bytes: Its size.
        checksum: Of its audio, index and locations, as ``event_writer.content_checksum`` computes it.
    """

    name: str
    num_events: int
    num_bytes: int
    checksum: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a folder of shards holds.

    Attributes:
        folder: Where it is.
        fingerprint: Of the set that the shards were made of, and of how.
        shards: In the order of the events.
        finished: Whether all of them are written.
    """

    folder: Path
    fingerprint: str
    shards: tuple[Shard, ...]
    finished: bool = True

    @property
    def paths(self) -> list[Path]:
        """The shards' files.

        Raises:
            DatasetError: If one is missing or has another size than stated.
        """
        for shard in self.shards:
            path = self.folder / shard.name
            if not path.is_file():
                raise DatasetError(
                    f"{path}: is missing, but {self.folder / MANIFEST} lists it; copy the folder "
                    "of shards whole"
                )
            if path.stat().st_size != shard.num_bytes:
                raise DatasetError(
                    f"{path}: has {path.stat().st_size} bytes, but {self.folder / MANIFEST} says "
                    f"{shard.num_bytes}; copy the folder of shards again"
                )
        return [self.folder / shard.name for shard in self.shards]

    def write(self) -> Path:
        """Write ``manifest.json``; it is whole or not there."""
        content = {
            "format": _FORMAT,
            "version": _VERSION,
            "finished": self.finished,
            "fingerprint": self.fingerprint,
            "num_events": sum(shard.num_events for shard in self.shards),
            "shards": [asdict(shard) for shard in self.shards],
        }
        path = self.folder / MANIFEST
        temporary = path.with_name(f".{MANIFEST}.{os.getpid()}")
        temporary.write_text(json.dumps(content, indent=1) + "\n")
        temporary.replace(path)
        return path


def read_manifest(folder: Path) -> Manifest | None:
    """Read the manifest of a folder of shards, or None where it has none.

    Raises:
        DatasetError: If it cannot be read, is none of this package's, or the shards are not all written.
    """
    manifest = read_any_manifest(folder)
    if manifest is not None and not manifest.finished:
        raise DatasetError(
            f"{folder / MANIFEST}: says that these shards are not all written; run the gerbil-tune data "
            "shard command again that writes them, which goes on where it was stopped"
        )
    return manifest


def read_any_manifest(folder: Path) -> Manifest | None:
    """Read a manifest, also of a folder that is being written.

    Raises:
        DatasetError: If it cannot be read or is none of this package's.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text())
        if content["format"] != _FORMAT or content["version"] != _VERSION:
            raise ValueError(f"format {content['format']!r}, version {content['version']!r}")
        shards = tuple(
            Shard(
                Path(str(entry["name"])).name,
                int(entry["num_events"]),
                int(entry["num_bytes"]),
                str(entry["checksum"]),
            )
            for entry in content["shards"]
        )
        finished = content["finished"] is True
        if finished and not shards:
            raise ValueError("it lists no shard")
        return Manifest(folder, str(content["fingerprint"]), shards, finished)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"{path}: is no manifest that can be read ({type(error).__name__}: {error}); shard the data "
            "again with gerbil-tune data shard, or delete the manifest to use the folder's files as they are"
        ) from None
