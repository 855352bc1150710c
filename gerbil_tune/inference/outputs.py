"""The files of a prediction job: where they go, what is there already, and what is still to do."""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

import gerbil_tune
from gerbil_tune.data.events import FILE_SUFFIXES, EventSet
from gerbil_tune.errors import ConfigError, LaunchError
from gerbil_tune.inference.inputs import SUFFIX, InputFile
from gerbil_tune.inference.locations import matching_locations
from gerbil_tune.inference.writer import (
    Columns,
    file_attributes,
    plain_shape,
    read_attributes,
    write_predictions,
)
from gerbil_tune.tracking.model_registry import ResolvedModel

if TYPE_CHECKING:
    from gerbil_tune.inference.callers import CallerColumns
    from gerbil_tune.inference.parts import PartsFolder
    from gerbil_tune.models.bundle import TrainedModel

_HDF5_BYTES = 1 << 16
"""What a file of predictions takes beside the numbers, and some more."""


def goes_into_one(output: Path) -> bool:
    """Whether the predictions of all inputs go into the file that is named."""
    return output.suffix in FILE_SUFFIXES and not output.expanduser().is_dir()


def plan_outputs(files: Sequence[InputFile], output: Path) -> list[Path]:
    """Choose the file that the predictions of each input go to; its folder is made when it is written.

    Args:
        files: Inputs.
        output: A file, for all of them, or a folder, in which ``<name>.predictions.h5`` mirror the inputs.

    Raises:
        ConfigError: If two inputs would go to one file of a folder, a file would be overwritten that is not
            one of predictions, or the folder cannot be written.
    """
    into_one = goes_into_one(output)
    output = output.expanduser().absolute()
    targets = (
        [output] * len(files)
        if into_one
        else [output / file.subfolder / f"{file.path.stem}{SUFFIX}" for file in files]
    )
    sources: dict[Path, Path] = {}
    for file, target in zip(files, targets, strict=True):
        if target in sources and not into_one:
            raise ConfigError(
                f"{sources[target]} and {file.path} would both be predicted into {target}; predict them in "
                "two calls with different outputs"
            )
        sources[target] = file.path
        if target.exists() and read_attributes(target) is None:
            raise ConfigError(
                f"output {target} exists and is not a file of predictions; choose another name"
            )
    check_folder(targets[0].parent)
    return targets


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """What goes into files of predictions beside what always does.

    Attributes:
        is_choice: Whether the events were chosen.
        aliases: Further names of the dataset ``predictions``.
        error_rate: Share of wrong ones among the animals that are named as callers, at most.
        density_step_mm: Side of the cells of density maps; None: no maps.
    """

    is_choice: bool = False
    aliases: tuple[str, ...] = ()
    error_rate: float = 0.05
    density_step_mm: float | None = None


@dataclass(frozen=True, eq=False)
class Output:
    """A file to write.

    Attributes:
        path: Its name.
        sources: The inputs that go into it.
        events: Their events, one after the other.
        bundle: The model.
        attributes: What the file states of model and data.
        options: What else goes into the file.
    """

    path: Path
    sources: tuple[Path, ...]
    events: EventSet
    bundle: "TrainedModel"
    attributes: dict[str, str | float]
    options: OutputOptions

    @property
    def all_attributes(self) -> dict[str, str | float]:
        """With those that hold for all files of predictions."""
        return file_attributes(self.bundle.setup, self.attributes)

    def is_up_to_date(self) -> bool:
        """Whether it is there already, from the same model, data and program."""
        return self.path.exists() and read_attributes(self.path) == self.all_attributes

    def finish(self, parts: "PartsFolder") -> None:
        """Write the file from its parts, and remove these.

        Raises:
            LaunchError: If it cannot be written; the parts are kept.
        """
        conformal, extra = self.bundle.calibration.conformal, self._extra()
        num_bytes = parts.num_bytes + sum(values.nbytes for values in extra.values())
        check_room(self.path.parent, num_bytes + _HDF5_BYTES)
        write_predictions(
            self.path,
            parts.read(),
            len(self.events),
            self.bundle.setup,
            self.attributes,
            region_levels=() if conformal is None else conformal.levels,
            density_step_mm=self.options.density_step_mm,
            callers=self._callers(),
            extra=extra,
            aliases=self.options.aliases,
        )
        parts.remove()

    def _callers(self) -> "CallerColumns | None":
        from gerbil_tune.inference.callers import caller_columns

        rule = self.bundle.calibration.callers
        return caller_columns(self.events, self.bundle.setup, rule, self.options.error_rate)

    def _extra(self) -> Columns:
        events, extra = self.events, Columns()
        locations = matching_locations(events, self.bundle.setup)
        if locations is not None:
            extra["locations"] = plain_shape(locations)
        if self.options.is_choice:
            extra["event_index"] = events.rows
        if len(self.sources) > 1:
            extra["file_index"] = events.file_numbers.astype(np.int64)
            names = [str(source) for source in self.sources]
            extra["files"] = np.array(names, dtype=h5py.string_dtype())
        return extra

    def failed_events(self) -> list[tuple[str, int, int]]:
        """File, place in it and flags of each event without a prediction, from the finished file."""
        from gerbil_tune.inference.flags import FAILED

        with h5py.File(self.path, "r") as file:
            flags_N = file["flags"][:]
        events = self.events
        return [
            (
                str(events.files[events.file_numbers[i]].path),
                int(events.file_rows[i]),
                int(flags_N[i]),
            )
            for i in np.flatnonzero(flags_N & np.uint8(FAILED))
        ]


def make_outputs(
    model: ResolvedModel,
    bundle: "TrainedModel",
    inputs: Sequence[tuple[Path, EventSet]],
    targets: Sequence[Path],
    options: OutputOptions,
) -> list[Output]:
    """Put inputs and targets together; inputs with one target go into it one after the other.

    Args:
        model: What was asked for.
        bundle: The same, loaded.
        inputs: Path and events of each input.
        targets: Of each input, from ``plan_outputs``.
        options: What else goes into the files.
    """
    by_target: dict[Path, list[tuple[Path, EventSet]]] = {}
    for each, target in zip(inputs, targets, strict=True):
        by_target.setdefault(target, []).append(each)
    outputs = []
    for target, members in by_target.items():
        events = members[0][1]
        if len(members) > 1:
            events = EventSet([file for _, each in members for file in each.files])
        sources = tuple(path for path, _ in members)
        attributes = _attributes(model, bundle, events, options)
        outputs.append(Output(target, sources, events, bundle, attributes, options))
    return outputs


def _attributes(
    model: ResolvedModel, bundle: "TrainedModel", events: EventSet, options: OutputOptions
) -> dict[str, str | float]:
    chosen: dict[str, str | float] = {}
    if options.is_choice:
        chosen["chosen_events"] = len(events)
    if options.aliases:
        chosen["aliases"] = ",".join(options.aliases)
    if events.animals is not None:
        chosen["error_rate"] = options.error_rate
    if options.density_step_mm is not None:
        chosen["density_step_mm"] = options.density_step_mm
    return {
        **chosen,
        "model_uri": model.uri,
        "model_version": model.version or "",
        "model_fingerprint": bundle.fingerprint,
        "temperature": bundle.calibration.temperature,
        "calibration_fingerprint": bundle.calibration.fingerprint,
        "data_fingerprint": events.fingerprint(),
        "package_version": gerbil_tune.__version__,
    }


def check_folder(folder: Path) -> None:
    """Raise where a folder, or the one that it will be made in, cannot be written."""
    try:
        existing = next(place for place in (folder, *folder.parents) if place.exists())
        # Permissions of networked disks are best asked by writing.
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise ConfigError(
            f"output folder {folder} cannot be written ({error.strerror}); choose another one"
        ) from None


def check_room(folder: Path, num_bytes: int) -> None:
    """Raise where a disk has no room for a file: HDF5 crashes where it runs out of it.

    Raises:
        LaunchError: With how much is free and how much is needed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        raise LaunchError(
            f"No space left on device: predictions of {num_bytes / 1e6:.1f} MB are to be written into "
            f"{folder}, where {free / 1e6:.1f} MB are free; what is done is kept, and the same command goes "
            "on once there is room"
        )
