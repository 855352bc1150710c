"""What has been predicted of a file so far, kept so that a job that is killed goes on from there.

    .NAME.parts/job.json                   what the predictions are of and by
    .NAME.parts/000000512-000001024.safetensors   events 512 to 1023

A part appears under its name when it is whole. HDF5 files that are being written do not survive a kill, which
is why the results are not written there at once.
"""

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from gerbil_tune.errors import ConfigError, LaunchError
from gerbil_tune.evaluation.predictions import EventPredictions

_JOB_FILE = "job.json"
_PART_NAME = re.compile(r"(\d{9,})-(\d{9,})\.safetensors")


class PartsFolder:
    """The parts of one file of predictions, beside the place where it will be.

    Args:
        target: The file that they will become.
        attributes: What it will state of its model and data. Parts are taken up where these are the same.
        overwrite: Whether parts of another job are thrown away.

    Raises:
        ConfigError: If there are parts of another job.
    """

    def __init__(
        self, target: Path, attributes: Mapping[str, Any], *, overwrite: bool = False
    ) -> None:
        self.target = target
        self.folder = target.with_name(f".{target.name}.parts")
        self._attributes = json.loads(json.dumps(dict(attributes)))
        if self.folder.exists() and self._other() is not None and overwrite:
            self.remove()
        if (differs := self._other()) is not None:
            raise ConfigError(
                f"{target} was begun with another {differs}, and a part of it is in {self.folder}; go on "
                "with what it was begun with, name another output, or give --overwrite to begin anew"
            )

    def _other(self) -> str | None:
        """What this job would do otherwise than the one that wrote the parts; None: nothing."""
        path = self.folder / _JOB_FILE
        if not path.is_file():
            return None
        try:
            before = json.loads(path.read_text())
        except ValueError:
            return "job"
        names = {**self._attributes, **before}
        differ = [name for name in names if before.get(name) != self._attributes.get(name)]
        return _TITLES.get(differ[0], differ[0]) if differ else None

    def spans(self) -> list[tuple[int, int]]:
        """Events [start, stop) of each part that is there, in order."""
        if not self.folder.is_dir():
            return []
        found = (_PART_NAME.fullmatch(path.name) for path in self.folder.iterdir())
        return sorted((int(match[1]), int(match[2])) for match in found if match)

    def write(self, start: int, predictions: EventPredictions) -> None:
        """Keep the predictions of the events from ``start`` on.

        Raises:
            LaunchError: If the disk is full or the folder cannot be written.
        """
        stop = start + len(predictions)
        values = {field.name: getattr(predictions, field.name) for field in fields(predictions)}
        path = self._path(start, stop)
        temporary = path.with_suffix(".partial")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not (self.folder / _JOB_FILE).exists():
                begun = self.folder / f"{_JOB_FILE}.partial"
                begun.write_text(json.dumps(self._attributes, indent=2))
                begun.replace(self.folder / _JOB_FILE)
            save_file(
                {name: value for name, value in values.items() if value is not None}, temporary
            )
            temporary.replace(path)
        except (OSError, SafetensorError) as error:
            raise LaunchError(
                f"{self.target}: predictions cannot be written ({_reason(error)}); what is done is kept, "
                "and the same command goes on once there is room"
            ) from None

    def read(self) -> Iterator[tuple[int, EventPredictions]]:
        """Yield the first event of each part and its predictions, in order.

        A part that is torn, by a power cut, is removed and missing.

        Raises:
            LaunchError: If the disk does not let it be read.
        """
        for start, stop in self.spans():
            path = self._path(start, stop)
            try:
                found = EventPredictions(**load_file(path))
            except OSError as error:
                raise LaunchError(
                    f"{path}: what an earlier run predicted cannot be read ({_reason(error)}); the same "
                    "command goes on once it can"
                ) from None
            except (SafetensorError, TypeError):
                path.unlink()
                continue
            if len(found) == stop - start:
                yield start, found
            else:
                path.unlink()

    @property
    def num_bytes(self) -> int:
        """What the parts take on the disk."""
        return sum(path.stat().st_size for path in self.folder.glob("*.safetensors"))

    def remove(self) -> None:
        """Throw everything away."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, start: int, stop: int) -> Path:
        return self.folder / f"{start:09d}-{stop:09d}.safetensors"


_TITLES = {
    "model_uri": "model",
    "model_version": "model",
    "model_fingerprint": "model",
    "temperature": "model",
    "calibration_fingerprint": "calibration of the model",
    "data_fingerprint": "input file",
    "chosen_events": "choice of events",
    "error_rate": "error rate",
    "density_step_mm": "step of density maps",
    "package_version": "version of gerbil_tune",
}


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error).splitlines()[0]
